"""What `deerfield pipelines run-local --runner docker` shows its containers, and refuses before anything starts."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from deerfield.runfile import load
from pipelines.local.containers import PACKAGES, shown
from tests.command import deerfield
from tests.integration.federation import write


class Empty(BaseHTTPRequestHandler):
    """A container engine without an image."""

    def do_GET(self) -> None:
        known = self.path.endswith("/version")
        body = json.dumps({"ApiVersion": "1.41"} if known else {"message": "no such image"}).encode()
        self.send_response(200 if known else 500 if "/broken" in self.path else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"tcp://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def run_local(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    path = folder / "run.yaml"
    return deerfield("pipelines", "run-local", path, "--out", folder / "out", *options, **environment)


def test_containers_have_the_data_and_the_model_to_read_and_the_run_to_write(tmp_path):
    file, out = load(write(tmp_path)), tmp_path / "out"
    found = shown("sha", file, out, "http://mlflow")
    assert found.written == {str(out): str(out)}
    assert set(found.read) == {str(tmp_path / "notes.csv"), str(tmp_path / "model")}
    found = shown("sha", file, out, f"sqlite:///{tmp_path / 'first' / 'mlflow.db'}")
    assert set(found.written) == {str(out), str(tmp_path / "first")}  # its artifacts lie beside it


def test_a_model_that_a_package_carries_is_where_python_finds_it_in_a_container(tmp_path):
    file = load(write(tmp_path, embedded={"base": "package:yaml"}))
    (carried,) = (path for path in shown("sha", file, tmp_path, "").read if path.startswith(PACKAGES))
    assert carried == f"{PACKAGES}/yaml"
    assert Path(shown("sha", file, tmp_path, "").read[carried], "__init__.py").exists()


def test_an_image_or_an_engine_that_is_not_there_is_said_before_anything_starts(tmp_path, engine):
    write(tmp_path)
    code, said = run_local(tmp_path, "--runner", "docker", DOCKER_HOST="tcp://127.0.0.1:9")
    assert code == 1
    assert "no container engine answers at tcp://127.0.0.1:9 " in said
    assert "podman system service" in said
    code, said = run_local(tmp_path, "--runner", "docker", "--image", "steps:7", DOCKER_HOST=engine)
    assert (code, said.partition(";")[0]) == (2, "--image steps:7: the container engine has no such image")
    code, said = run_local(tmp_path, "--runner", "docker", "--image", "broken:7", DOCKER_HOST=engine)
    assert (code, said.partition(" (500 ")[0]) == (1, f"no container engine answers at {engine}")
    code, said = run_local(tmp_path, "--image", "steps:7")
    assert (code, said.partition(":")[0]) == (2, "--image is for --runner docker")
    assert not (tmp_path / "out").exists()
