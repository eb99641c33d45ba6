"""`python -m services.aggregator.selftest`: shows that the aggregator's image works, in a container of its own."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from deerfield import selftest
from deerfield.errors import Malfunction
from services.aggregator.probe import ask

END_S = 60.0
FREE = "127.0.0.1:0"
NO_TLS = (
    "--tls-certificate",
    "",
    "--tls-key",
    "",
    "--tls-ca",
    "",
)  # whatever the image says: nobody calls from outside


def own() -> Iterator[str]:
    """No torch, MLflow as far as models need it, and an aggregator that starts, serves and ends."""
    if importlib.util.find_spec("torch"):
        raise Malfunction("there is a torch in the image, which nothing here may need; build it anew")
    yield "no torch"
    import mlflow.pyfunc

    yield f"mlflow {mlflow.__version__} registers models"
    with TemporaryDirectory() as folder:
        yield from _served(Path(folder))


def _served(folder: Path) -> Iterator[str]:
    places = ["--database", f"sqlite:///{folder / 'aggregator.db'}", "--blobs", str(folder / "blobs")]
    line = [sys.executable, "-m", "services.aggregator", "--listen", FREE, "--health", FREE, *places, *NO_TLS]
    with (folder / "log").open("w+b") as log, subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            assert process.stdout is not None
            if not (printed := process.stdout.readline()):
                log.seek(0)
                raise Malfunction(f"the aggregator does not start: {log.read().decode(errors='replace')[-500:]}")
            ask(json.loads(printed)["health"])
            yield "the aggregator serves on loopback"
            process.terminate()
            if code := process.wait(END_S):
                raise Malfunction(f"the aggregator ends with exit code {code} after SIGTERM, not 0")
            yield "it ends when it is told to"
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(selftest.run("deerfield-aggregator", own))
