"""`python -m services.tracking.selftest`: shows that the MLflow server's image works, in a container of its own."""

import os
import secrets
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from deerfield import selftest
from deerfield.errors import Malfunction, Unreachable
from services.tracking.probe import ask
from services.tracking.settings import PREFIX

START_S, END_S = 300.0, 60.0  # reading MLflow from a cold disk takes most of it
USER = "selftest"
EXPERIMENTS = "/api/2.0/mlflow/experiments/search?max_results=1"


def own() -> Iterator[str]:
    """A server on SQLite that starts, asks for its password, refuses foreign names, measures itself, and ends."""
    import boto3
    import psycopg

    yield f"boto3 {boto3.__version__}, psycopg {psycopg.__version__} with {psycopg.pq.__impl__} libpq"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with TemporaryDirectory() as folder:
        yield from _served(Path(folder), address)


def _served(folder: Path, address: str) -> Iterator[str]:
    password = secrets.token_hex(16)
    told = {
        "LISTEN": address,
        "DATABASE": f"sqlite:///{folder / 'mlflow.db'}",
        "ARTIFACTS": str(folder / "artifacts"),
        "USERNAME": USER,
        "PASSWORD": password,
        "METRICS": "1",
        "WORKERS": "1",
    }
    line = [sys.executable, "-m", "services.tracking"]
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment = others | {PREFIX + name: value for name, value in told.items()}
    with (
        (folder / "log").open("w+b") as log,
        subprocess.Popen(line, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            _wait(process, address, folder / "log")
            yield "the server answers on loopback"
            account = {"Authorization": f"Basic {b64encode(f'{USER}:{password}'.encode()).decode()}"}
            _expect(address, EXPERIMENTS, {}, 401)
            _expect(address, EXPERIMENTS, account, 200)
            yield "it asks for its password"
            _expect(address, EXPERIMENTS, {**account, "Host": "elsewhere.example"}, 403)
            yield "it refuses foreign names"
            _expect(address, "/metrics", account, 200)
            yield "it has metrics"
            process.terminate()
            if code := process.wait(END_S):
                raise Malfunction(f"the server ends with exit code {code} after SIGTERM, not 0")
            yield "it ends when it is told to"
        finally:
            process.kill()


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = monotonic() + START_S
    while monotonic() < end:
        with suppress(Unreachable):
            return ask(address)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
            break
    raise Malfunction(f"the server does not start: {log.read_text(errors='replace')[-500:]}")


def _expect(address: str, path: str, headers: Mapping[str, str], status: int) -> None:
    connection = HTTPConnection(address, timeout=END_S)
    connection.request("GET", path, headers=dict(headers))
    answered = connection.getresponse().status
    connection.close()
    if answered != status:
        raise Malfunction(f"{path} is answered with {answered}, not {status}")


if __name__ == "__main__":
    sys.exit(selftest.run("deerfield-tracking", own))
