"""A real MLflow for the tests: a registry on a SQLite file, versions as the aggregator registers them, a server."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from deerfield.runspec import RunSpec
from deerfield.tensors import Tensors, digest
from services.aggregator.registry import Release, register
from services.aggregator.tracking import RUN_TAG

START_S = 120.0


def database(folder: Path) -> str:
    """The tracking URI of a registry in `folder`, which is made if it is not there."""
    import mlflow

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.MlflowClient(tracking_uri=uri).search_experiments()
    return uri


def add(uri: str, spec: RunSpec, adapter: Tensors, run: str, epsilon: float = 1.0) -> str:
    """Registers `adapter` as a version of the model that `spec` names; answers its number."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    try:
        known = client.get_experiment_by_name(spec.name)
        place = str(Path(uri.removeprefix("sqlite:///")).parent / "artifacts") if uri.startswith("sqlite:") else None
        experiment = known.experiment_id if known else client.create_experiment(spec.name, place)
        mlflow_run = client.create_run(experiment, tags={RUN_TAG: run}).info.run_id
        epsilons = dict.fromkeys(spec.federation.sites, epsilon)
        release = Release(run=run, spec=spec, adapter=adapter, digest=digest(adapter), epsilon=epsilons)
        return register(client, mlflow_run, release).version
    finally:
        mlflow.set_tracking_uri(before)


def client(uri: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri)


@contextmanager
def serving(folder: Path, uri: str, *more: str, port: int = 0, **environment: str) -> Iterator[int]:
    """A server of that registry on a loopback port, which lets in who calls it `localhost` and nobody else.

    `more` flags and `environment` say where it keeps artifacts; `port` 0 takes a free one.
    """
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that a server has just left
        free.bind(("127.0.0.1", port))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--allowed-hosts", f"localhost:{port}", *more]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | environment
    kept["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven processes less
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=kept, start_new_session=True)
    try:
        _wait(process, port, log)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it would wait for connections that are kept alive
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if monotonic() > end or process.poll() is not None:
                raise AssertionError(log.read_text()) from None
            signal.sigtimedwait([], 0.1)
