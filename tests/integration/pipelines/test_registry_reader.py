"""The registry as it is read: a real MLflow on a SQLite file and behind its own server, and servers that misbehave."""

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from math import inf

import pytest

from deerfield import peft_folder
from deerfield.errors import InvalidInput, Unreachable
from deerfield.runspec import Privacy
from deerfield.tensors import digest
from pipelines.registry.reader import open_registry
from tests import mlflow_server
from tests.fakes import adapter, run_spec

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
SPEC = run_spec("north", "south", privacy=Privacy(unit="record", epsilon=3.0))
NAME = SPEC.name


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Two versions, the first of which is the champion, and a model of something else's making."""
    folder = tmp_path_factory.mktemp("registry")
    uri = mlflow_server.database(folder)
    versions = [mlflow_server.add(uri, SPEC, adapter(seed), f"run-{seed}", epsilon=seed + 0.5) for seed in (1, 2)]
    client = mlflow_server.client(uri)
    client.set_registered_model_alias(NAME, "champion", versions[0])
    client.log_dict(client.get_model_version(NAME, "1").run_id, {"time": 1.0}, "phases/000001.json")
    client.create_registered_model("foreign")
    client.create_model_version("foreign", str(folder / "nothing"))
    return uri


def test_versions_are_told_as_they_were_registered(registry):
    reader = open_registry(registry)
    assert reader.models() == ("foreign", NAME)
    newest, first = reader.versions(NAME)
    assert (newest.version, first.version) == ("2", "1")
    assert (newest.aliases, first.aliases) == (("candidate",), ("champion",))
    assert (first.run, first.digest) == ("run-1", digest(adapter(1)))
    assert newest.epsilon == {"north": 2.5, "south": 2.5}
    assert reader.champion(NAME) == reader.version(NAME, "1") == first
    assert reader.champion("foreign") is None


def test_an_adapter_is_what_was_registered(registry, tmp_path):
    reader = open_registry(registry)
    spec, found = peft_folder.read(reader.adapter(reader.version(NAME, "2"), tmp_path))
    assert (digest(found), spec) == (digest(adapter(2)), SPEC)


def test_artifacts_of_the_run_are_listed_and_read(registry):
    reader = open_registry(registry)
    version = reader.version(NAME, "1")
    assert reader.artifacts(version, "phases") == ("phases/000001.json",)
    assert reader.artifacts(version, "nothing") == ()
    assert reader.document(version, "phases/000001.json") == {"time": 1.0}
    with pytest.raises(InvalidInput, match=r"give verdict.json of version 1 of teaching run: it is not there"):
        reader.document(version, "verdict.json")


@pytest.mark.parametrize("content", [b'{"time": "\xff"}', b"{", b""])
def test_an_artifact_that_is_no_json_is_one_sentence(few, content, tmp_path):
    reader, client = open_registry(few), mlflow_server.client(few)
    version = reader.version(NAME, "1")
    (tmp_path / "verdict.json").write_bytes(content)
    client.log_artifact(version.mlflow_run, str(tmp_path / "verdict.json"))
    with pytest.raises(
        InvalidInput, match=r"^verdict\.json of version 1 of teaching run at sqlite:.* is no JSON"
    ) as said:
        reader.document(version, "verdict.json")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("tag", ["unknown", "", "nan", "-inf", "-1"])
def test_an_epsilon_that_is_no_number_is_infinite(few, tag):
    mlflow_server.client(few).set_model_version_tag(NAME, "1", "deerfield.epsilon.north", tag)
    assert open_registry(few).version(NAME, "1").epsilon == {"north": inf, "south": 1.0}


@pytest.mark.parametrize(
    ("model", "version", "words"),
    [
        ("unknown", "1", "find version 1 of unknown: it is not there"),
        (NAME, "7", "find version 7 of teaching run: it is not there"),
        (NAME, "newest", "'newest' of teaching run is no number"),
        ("o'er", "1", '"o\'er" is no name of a model'),
    ],
)
def test_what_is_not_there_is_named(registry, model, version, words):
    with pytest.raises(InvalidInput, match=words):
        open_registry(registry).version(model, version)


def test_a_version_of_something_else_has_no_adapter(registry, tmp_path):
    reader = open_registry(registry)
    with pytest.raises(InvalidInput, match="version 1 of foreign"):
        reader.adapter(reader.version("foreign", "1"), tmp_path)


@pytest.fixture
def few(tmp_path):
    """A registry that a test may spoil."""
    uri = mlflow_server.database(tmp_path)
    mlflow_server.add(uri, SPEC, adapter(1), "run-1")
    return uri


def test_a_version_that_is_deleted_underneath_is_missed(few, tmp_path):
    reader, client = open_registry(few), mlflow_server.client(few)
    version = reader.version(NAME, "1")
    client.set_model_version_tag(NAME, "1", "deerfield.digest", "0" * 64)
    with pytest.raises(InvalidInput, match=r"its tag deerfield.digest is 000000000000: somebody changed one of them"):
        reader.adapter(reader.version(NAME, "1"), tmp_path / "changed")
    client.delete_model_version(NAME, "1")
    with pytest.raises(InvalidInput, match="give the adapter of version 1 of teaching run: it is not there, or no lon"):
        reader.adapter(version, tmp_path / "deleted")


def test_a_server_is_read_as_its_database_is_and_its_guard_is_explained(registry, tmp_path):
    expected = open_registry(registry).versions(NAME)
    with mlflow_server.serving(tmp_path, registry) as port:
        reader = open_registry(f"http://localhost:{port}")
        assert reader.versions(NAME) == expected
        assert reader.document(expected[1], "phases/000001.json") == {"time": 1.0}
        assert digest(peft_folder.read(reader.adapter(expected[0], tmp_path))[1]) == digest(adapter(2))
        with pytest.raises(InvalidInput, match="find version 7 of teaching run: it is not there"):
            reader.version(NAME, "7")
        with pytest.raises(InvalidInput, match=rf"guard against DNS rebinding.*--allowed-hosts 127\.0\.0\.1:{port}"):
            open_registry(f"http://127.0.0.1:{port}").versions(NAME)


@contextmanager
def answering(status, body):
    """A server that gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://ada:secret@127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, b"You are not authenticated.", InvalidInput, "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, b"Permission denied", InvalidInput, "does not let these credentials find the champion of m"),
        (403, json.dumps({"error_code": "PERMISSION_DENIED", "message": "no"}).encode(), InvalidInput, "403: .*no"),
        (404, b"<html>nothing here</html>", InvalidInput, "that is no MLflow tracking server"),
        (200, b"<html>welcome</html>", Unreachable, "not in a valid JSON"),
        (400, b"<html>what?</html>", Unreachable, "error code 400"),
    ],
)
def test_what_a_server_refuses_is_one_sentence_without_the_password(status, body, kind, words):
    with answering(status, body) as url, pytest.raises(kind, match=words) as refused:
        open_registry(url).champion("m")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_server_that_is_away_is_said_to_be_with_the_time_it_took():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(Unreachable, match=rf"{url} could not list its models within \d+ s \(Connection refused\)"):
            open_registry(url).models()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "MLFLOW_TRACKING_URI"),
        ("sqlite:////no/such/mlflow.db", "/no/such/mlflow.db is not there"),
        ("ftp://x", "ftp://x is no MLflow tracking URI"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_before_anything_is_made(uri, words):
    with pytest.raises(InvalidInput, match=words):
        open_registry(uri)
