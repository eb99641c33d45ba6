"""What the MLflow server is told by its environment, and what it refuses."""

import configparser
import os
import stat
from pathlib import Path

import pytest

from deerfield.errors import InvalidInput
from services.databases import read_address
from services.objects import Bucket
from services.tracking import server
from services.tracking.__main__ import main
from services.tracking.settings import Account, read_settings

ACCOUNT = {"DEERFIELD_TRACKING_USERNAME": "ada", "DEERFIELD_TRACKING_PASSWORD": "correct %horse"}
BUCKET = {
    "DEERFIELD_TRACKING_ARTIFACTS": "s3://models/mlflow?endpoint=s3.hub:9000&secure=false&region=eu",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "hush",
}


def told(**values: str) -> dict[str, str]:
    return ACCOUNT | {f"DEERFIELD_TRACKING_{name}": value for name, value in values.items()}


def test_without_a_word_it_serves_sqlite_and_a_folder_of_its_volume_to_one_account():
    settings = read_settings(ACCOUNT)
    assert (settings.listen.host, settings.listen.port, settings.workers) == ("0.0.0.0", 5000, 2)
    assert settings.database == "sqlite:////var/lib/mlflow/mlflow.db"
    assert settings.artifacts == Path("/var/lib/mlflow/artifacts")
    assert settings.account == Account(username="ada", password="correct %horse")
    assert not settings.metrics


def test_names_are_allowed_with_the_port_and_without_it():
    settings = read_settings(told(ALLOWED_HOSTS="mlflow, mlflow.hub:80,*.example.org,fd00::5", LISTEN="[::]:5001"))
    assert set(settings.allowed_hosts) == {
        *("localhost", "localhost:5001", "127.0.0.1", "127.0.0.1:5001", "[::1]", "[::1]:5001", "mlflow", "mlflow:5001"),
        *("mlflow.hub:80", "*.example.org", "*.example.org:5001", "[fd00::5]", "[fd00::5]:5001"),
    }


def test_the_account_may_lie_in_files_and_there_may_be_none(tmp_path):
    for name, value in (("username", "ada\n"), ("password", "from a file, long\n")):
        (tmp_path / name).write_text(value)
    paths = {f"DEERFIELD_TRACKING_{name.upper()}_FILE": str(tmp_path / name) for name in ("username", "password")}
    assert read_settings(paths).account == Account(username="ada", password="from a file, long")
    assert read_settings({"DEERFIELD_TRACKING_OPEN": "1"}).account is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (told(LISTEN="5000"), "DEERFIELD_TRACKING_LISTEN: '5000' is no host:port"),
        (told(LISTEN="0.0.0.0:0"), "port 0 is none that others could call"),
        (told(DATABASE="mysql://u@h/d"), "database: mysql is not supported"),
        (told(DATABASE="sqlite://"), "a database in memory would forget every run"),
        (told(ARTIFACTS="gs://models"), "DEERFIELD_TRACKING_ARTIFACTS: gs:// is not supported"),
        (told(ARTIFACTS="s3://key:hush@models"), "a URL holds no credentials"),
        (told(ALLOWED_HOSTS="http://mlflow"), "'http://mlflow' is no name of a host"),
        (told(WORKERS="0"), "DEERFIELD_TRACKING_WORKERS is '0'; write a whole number from 1 to 64"),
        (told(METRICS="yes"), "DEERFIELD_TRACKING_METRICS is 'yes'; set it to 1 or 0"),
        (told(OPEN="1"), "DEERFIELD_TRACKING_OPEN is 1, and there is an account"),
        (told(PASSWORD=""), "DEERFIELD_TRACKING_PASSWORD is not set; set it, or DEERFIELD_TRACKING_PASSWORD_FILE"),
        (told(PASSWORD="short"), "DEERFIELD_TRACKING_PASSWORD has 5 characters; MLflow takes none under 12"),
        (told(PASSWORD="two\nlines of it"), "DEERFIELD_TRACKING_PASSWORD: it holds characters that cannot be printed"),
        (told(PASSWORD_FILE="/nowhere/password"), "DEERFIELD_TRACKING_PASSWORD_FILE names /nowhere/password, which"),
        (told(USERNAME="a:b"), "DEERFIELD_TRACKING_USERNAME: it holds a colon"),
        ({}, "DEERFIELD_TRACKING_USERNAME is not set"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(changes, sentence):
    with pytest.raises(InvalidInput) as refused:
        read_settings(changes)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "hush" not in str(refused.value)


def test_a_bad_setting_is_one_sentence_in_the_log_and_the_termination_message(tmp_path, capsys):
    message = tmp_path / "message"
    log = {"DEERFIELD_TERMINATION_LOG": str(message), "DEERFIELD_LOG": "console"}
    assert main([], told(WORKERS="many") | log) == 2
    said = capsys.readouterr().err
    assert said == "error: DEERFIELD_TRACKING_WORKERS is 'many'; write a whole number from 1 to 64\n"
    assert message.read_text() == said.strip()


def test_a_folder_that_is_not_there_or_not_ones_own_is_said_before_mlflow_is_asked(tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("")
    settings = told(ARTIFACTS=str(taken / "artifacts"), DATABASE=f"sqlite:///{tmp_path}/mlflow.db")
    assert main([], settings | {"DEERFIELD_LOG": "console"}) == 2
    assert f"error: artifacts: {taken}/artifacts cannot be written to (Not a directory)" in capsys.readouterr().err
    settings = told(ARTIFACTS=str(tmp_path / "artifacts"), DATABASE=f"sqlite:///{tmp_path}/no/mlflow.db")
    assert main([], settings | {"DEERFIELD_LOG": "console"}) == 2
    assert f"error: database: there is no folder {tmp_path}/no; make it" in capsys.readouterr().err


def test_mlflow_is_told_by_the_environment_and_a_file_that_nobody_else_reads(tmp_path):
    settings = read_settings(told(METRICS="1", DATABASE="postgresql://deer:hush%40@db/mlflow") | BUCKET)
    assert settings.artifacts == Bucket(
        name="models", prefix="mlflow/", endpoint="s3.hub:9000", secure=False, region="eu"
    )
    outside = told() | BUCKET | {"MLFLOW_TRACKING_URI": "http://elsewhere", "PATH": "/bin"}
    address = read_address(settings.database)
    found = server.environment_of(settings, address, tmp_path, outside)
    assert found["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql://deer:hush%40@db/mlflow?")
    assert found["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://models/mlflow"
    assert found["MLFLOW_S3_ENDPOINT_URL"] == "http://s3.hub:9000"
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert found["PATH"] == "/bin"
    assert not {"MLFLOW_TRACKING_URI", "DEERFIELD_TRACKING_PASSWORD"} & set(found)
    assert not any("correct" in value for value in found.values())
    assert not any("hush" in each or "correct" in each for each in (*server.command(settings), settings.as_json()))

    path = Path(found["MLFLOW_AUTH_CONFIG_PATH"])
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    config = configparser.ConfigParser()  # as MLflow reads it
    config.read(path)
    assert config["mlflow"]["admin_password"] == "correct %horse"
    assert config["mlflow"]["database_uri"] == found["MLFLOW_BACKEND_STORE_URI"]
    assert config.getint("mlflow", "auth_cache_ttl_seconds") == 60
