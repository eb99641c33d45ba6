"""`python -m services.tracking` as a process: who gets in, what is kept where, what is brought up to date."""

import os
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from deerfield.errors import Unreachable
from services.databases import read_address
from services.tracking.database import prepare, url
from services.tracking.probe import ask
from services.tracking.settings import Account
from tests import postgres, s3
from tests.integration.federation import wait_for

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
START_S = 240.0
NAMES = ("localhost", "mlflow.hub")
ADA = Account(username="ada", password="correct %horse, and 'quoted'")
EXPERIMENTS = "/api/2.0/mlflow/experiments/search?max_results=1"


@contextmanager
def serving(folder: Path, account: Account = ADA, **told: str) -> Iterator[int]:
    """The port of a server that is gone after the block, which must end it within its grace; its log is server.log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        "LISTEN": f"127.0.0.1:{port}",
        "DATABASE": f"sqlite:///{folder}/mlflow.db",
        "ARTIFACTS": str(folder / "artifacts"),
        "ALLOWED_HOSTS": "mlflow.hub",
        "USERNAME": account.username,
        "PASSWORD": account.password,
        "WORKERS": "1",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
    kept |= {f"DEERFIELD_TRACKING_{name}": value for name, value in own.items()} | told
    log = folder / "server.log"
    with log.open("ab") as out:
        line = [sys.executable, "-m", "services.tracking"]
        process = psutil.Popen(line, env=kept, stdout=out, stderr=out)
    try:
        wait_for(lambda: _is_well(process, port, log), START_S)
        lines = [each.cmdline() for each in (process, *process.children(recursive=True))]
        assert account.password not in str(lines)
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert account.password not in log.read_text()
    finally:
        for each in (*process.children(recursive=True), process) if process.is_running() else ():
            each.kill()


def _is_well(process: subprocess.Popen, port: int, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        ask(f"127.0.0.1:{port}")
    except Unreachable:
        return False
    return True


def status(port: int, account: Account | None = None, host: str = "localhost", path: str = EXPERIMENTS) -> int:
    headers = {"Host": host}
    if account:
        pair = f"{account.username}:{account.password}".encode()
        headers["Authorization"] = f"Basic {b64encode(pair).decode()}"
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def logs_a_run(port: int, folder: Path) -> str:
    """What a process with MLflow's client writes, and reads again: a metric and an artifact."""
    code = """
import sys, tempfile, pathlib, mlflow
client = mlflow.MlflowClient()
run = client.create_run(client.create_experiment("lungs")).info.run_id
client.log_metric(run, "loss", 0.5)
note = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
note.write_text("kept")
client.log_artifact(run, str(note))
print(client.get_run(run).data.metrics["loss"], open(client.download_artifacts(run, "note.txt")).read())
"""
    here = os.environ | {"MLFLOW_TRACKING_URI": f"http://localhost:{port}", "TMPDIR": str(folder)}
    here |= {"MLFLOW_TRACKING_USERNAME": ADA.username, "MLFLOW_TRACKING_PASSWORD": ADA.password}
    done = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.e2e
def test_it_lets_in_the_account_alone_by_its_own_names_and_keeps_what_is_logged(tmp_path):
    with serving(tmp_path, DEERFIELD_TRACKING_METRICS="1") as port:
        assert status(port) == 401
        assert status(port, Account(username="ada", password="another password")) == 401
        assert [status(port, ADA, host) for host in (f"localhost:{port}", "mlflow.hub", f"mlflow.hub:{port}")] == [
            200
        ] * 3
        assert status(port, ADA, "elsewhere.example") == 403
        assert status(port, host="elsewhere.example", path="/health") == 200  # a kubelet knows no name
        assert (status(port, ADA, path="/metrics"), status(port, path="/metrics")) == (200, 401)
        assert logs_a_run(port, tmp_path) == "0.5 kept"
    assert [each.name for each in tmp_path.glob("artifacts/**/note.txt")] == ["note.txt"]
    changed = Account(username="ada", password="after a rotation")
    with serving(tmp_path, changed) as port:
        assert (status(port, ADA), status(port, changed)) == (401, 200)


@pytest.mark.e2e
def test_it_serves_from_postgresql_and_a_bucket(tmp_path):
    with postgres.serving() as database, s3.serving() as objects:
        bucket, name = objects.bucket(), database.create()
        places = {
            "DEERFIELD_TRACKING_DATABASE": database.url(name).replace("+psycopg", ""),
            "DEERFIELD_TRACKING_ARTIFACTS": objects.url(bucket, "mlflow"),
        }
        with serving(tmp_path, **places, **s3.ENVIRONMENT) as port:
            assert logs_a_run(port, tmp_path) == "0.5 kept"
        kept = [each.object_name for each in objects.client.list_objects(bucket, recursive=True)]
        assert [each for each in kept if each.startswith("mlflow/") and each.endswith("/note.txt")]
        assert postgres.PASSWORD not in (tmp_path / "server.log").read_text()


@pytest.mark.e2e
def test_the_database_of_an_earlier_mlflow_is_brought_up_to_date_and_a_later_one_refused(tmp_path):
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine, text

    address = read_address(f"sqlite:///{tmp_path}/mlflow.db")
    engine = create_engine(url(address))
    Base.metadata.create_all(engine)
    config = utils._get_alembic_config(url(address))
    newest = ScriptDirectory.from_config(config).get_current_head()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, f"{newest}-1")
    assert utils._get_schema_version(engine) != newest
    prepare(address, None)
    assert utils._get_schema_version(engine) == newest

    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'ffffffffffff'"))
    engine.dispose()
    told = {"DATABASE": url(address), "ARTIFACTS": str(tmp_path / "artifacts"), "OPEN": "1"}
    here = os.environ | {f"DEERFIELD_TRACKING_{name}": value for name, value in told.items()}
    line = [sys.executable, "-m", "services.tracking"]
    done = subprocess.run(line, env=here | {"DEERFIELD_LOG": "console"}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"error: database: {tmp_path}/mlflow.db is not of this MLflow or an earlier one")
    assert "Traceback" not in done.stderr


@pytest.mark.e2e
def test_a_database_or_bucket_that_refuses_is_one_sentence(tmp_path):
    from services.tracking.__main__ import main

    account = {"DEERFIELD_TRACKING_USERNAME": "ada", "DEERFIELD_TRACKING_PASSWORD": ADA.password}
    log = {"DEERFIELD_LOG": "console", "DEERFIELD_TERMINATION_LOG": str(tmp_path / "message")}
    with postgres.serving() as database, s3.serving() as objects:
        name, bucket = database.create(), objects.bucket()
        wrong = {
            "database: ": ("DEERFIELD_TRACKING_DATABASE", database.url(name, password="wrong")),
            "artifacts: ": ("DEERFIELD_TRACKING_ARTIFACTS", objects.url("no-such-bucket")),
        }
        right = {
            "DEERFIELD_TRACKING_DATABASE": f"sqlite:///{tmp_path}/mlflow.db",
            "DEERFIELD_TRACKING_ARTIFACTS": objects.url(bucket),
        }
        for begin, (variable, value) in wrong.items():
            assert main([], account | log | s3.ENVIRONMENT | right | {variable: value}) == 2
            said = (tmp_path / "message").read_text()
            print(said)
            assert said.startswith(f"error: {begin}")
            assert "wrong" not in said
