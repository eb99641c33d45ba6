"""`mlflow server` of some settings: its command line, which holds no secret, its environment, the files it reads."""

import configparser
import os
import secrets
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from deerfield.errors import InvalidInput
from services.databases import Address
from services.objects import (
    ACCESS,
    AWS,
    FAILURES,
    SECRET,
    SESSION,
    Bucket,
    EnvironmentProvider,
    advice,
    connect,
    sentence,
)
from services.tracking.database import url
from services.tracking.settings import PREFIX, Account, Settings

GRACE_S = 20  # for calls under way after SIGTERM; uvicorn would wait for connections that are kept alive
CACHE_S = 60  # how long a password that was right is right without being hashed again: 16 times as many calls
MARK = ".deerfield-tracking"  # an object that shows at every start that the bucket can be written to
# what MLflow would read in the place of ours, and what only this program needs
DROPPED = ("MLFLOW_TRACKING_URI", "MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD", f"{PREFIX}PASSWORD")


def command(settings: Settings) -> list[str]:
    """What is executed."""
    line = [sys.executable, "-m", "mlflow", "server", "--uvicorn-opts", f"--timeout-graceful-shutdown {GRACE_S}"]
    return line + (["--app-name", "basic-auth"] if settings.account else [])


def environment_of(
    settings: Settings, address: Address, folder: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """The server's environment: everything that is here, and the settings as MLflow reads them."""
    told = {
        "MLFLOW_HOST": settings.listen.host,
        "MLFLOW_PORT": str(settings.listen.port),
        "MLFLOW_WORKERS": str(settings.workers),
        "MLFLOW_BACKEND_STORE_URI": url(address),
        "MLFLOW_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(settings.allowed_hosts),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes less
        "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing is told to anybody outside
        **_artifacts(settings.artifacts, environment),
    }
    if settings.metrics:
        told["MLFLOW_EXPOSE_PROMETHEUS"] = str(folder / "metrics")
    if settings.account:
        told["MLFLOW_AUTH_CONFIG_PATH"] = str(write_auth(folder, settings.account, url(address)))
        # signs the form of new accounts alone; whoever serves from several pods gives all of them the same
        told["MLFLOW_FLASK_SERVER_SECRET_KEY"] = environment.get("MLFLOW_FLASK_SERVER_SECRET_KEY") or secrets.token_hex(
            32
        )
    return {name: value for name, value in environment.items() if name not in DROPPED} | told


def write_auth(folder: Path, account: Account, database: str) -> Path:
    """MLflow's file on accounts, for nobody else's eyes."""
    section = {
        "default_permission": "READ",  # of further accounts, which the first one makes
        "database_uri": database,
        "admin_username": account.username,
        "admin_password": account.password,
        "auth_cache_ttl_seconds": str(CACHE_S),
    }
    # MLflow reads it with interpolation
    config = configparser.ConfigParser(interpolation=None)
    config["mlflow"] = {name: value.replace("%", "%%") for name, value in section.items()}
    path = folder / "basic_auth.ini"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        config.write(file)
    return path


def check_artifacts(place: Path | Bucket, environment: Mapping[str, str]) -> None:
    """Writes once to where artifacts go.

    Raises:
        InvalidInput: the folder or bucket cannot be used; the sentence says why.
    """
    if isinstance(place, Path):
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / MARK).write_bytes(b"")
        except OSError as error:
            raise InvalidInput(
                f"artifacts: {place} cannot be written to ({error.strerror}); name a folder of a volume that this user "
                "may write to"
            ) from None
        return
    keys = EnvironmentProvider(environment, "artifacts")
    keys.retrieve()
    try:
        connect(place, keys).put_object(place.name, f"{place.prefix}{MARK}", BytesIO(), 0)
    except FAILURES as error:
        raise InvalidInput(f"artifacts: {place}: {sentence('take an object', error)}; {advice(error)}") from error


def _artifacts(place: Path | Bucket, environment: Mapping[str, str]) -> dict[str, str]:
    if isinstance(place, Path):
        return {"MLFLOW_ARTIFACTS_DESTINATION": str(place)}
    keys = EnvironmentProvider(environment, "artifacts").retrieve()
    told = {
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{place.name}/{place.prefix}".rstrip("/"),
        "AWS_DEFAULT_REGION": place.region,
        ACCESS: keys.access_key,
        SECRET: keys.secret_key,
    }
    if keys.session_token:
        told[SESSION] = keys.session_token
    if place.endpoint != AWS:
        told["MLFLOW_S3_ENDPOINT_URL"] = f"{'https' if place.secure else 'http'}://{place.endpoint}"
    if authority := environment.get("SSL_CERT_FILE"):  # of the server; what checks the bucket reads it too
        told["AWS_CA_BUNDLE"] = authority
    return told
