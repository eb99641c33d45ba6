"""What MLflow's client makes of a server that is not as it should be: whether the recorder waits for it."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.aggregator.mlflow_errors import may_pass
from services.aggregator.rounds.recorder import TrackingAway
from services.aggregator.tracking import MlflowTracking
from tests.fakes import run_spec
from tests.integration.aggregator.conftest import open_aggregator
from tests.integration.aggregator.processes import running, work
from tests.mlflow_server import client, serving

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning",  # MLflow 3.17 on SQLAlchemy 2.1
)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The URI of a server that answers everything alike, and asks to be left alone for an hour."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Retry-After", "3600")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def told(tmp_path, clock):
    """Tells the tracking server at a URI of a run's start; answers what that raised."""
    aggregator = open_aggregator(tmp_path, clock)
    run = aggregator.runs.start(run_spec("north"), "once")
    (event,) = aggregator.runs.events(run, 0)

    def tell(uri):
        try:
            return MlflowTracking(aggregator.desk, uri).record(event)
        except Exception as error:
            return error

    yield tell
    aggregator.desk.store.close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (502, b"<html>bad gateway</html>"),
        (503, b"upstream connect error"),
        (429, b"slow down"),
        (401, b"You are not authenticated"),
        (403, b"Invalid Host header - possible DNS rebinding attack detected"),
        (200, b"<html>We are upgrading</html>"),
    ],
)
def test_a_server_that_may_answer_otherwise_later_is_waited_for_and_not_by_its_own_clock(told, status, body):
    with answering(status, body) as uri:
        error = told(uri)
    assert isinstance(error, TrackingAway)
    assert "MlflowException" in str(error)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "a name has no slash"}'),
        (404, b"no such page"),
        (409, b'{"error_code": "RESOURCE_CONFLICT", "message": "it is there already"}'),
    ],
)
def test_a_request_that_is_wrong_is_not_waited_for(told, status, body):
    with answering(status, body) as uri:
        error = told(uri)
    assert "MlflowException" in {each.__name__ for each in type(error).__mro__}


def test_a_server_that_is_not_there_is_waited_for(told):
    with answering(200, b"") as uri:
        pass
    assert isinstance(told(uri), TrackingAway)


def test_stores_of_artifacts_are_waited_for_by_what_they_answer():
    import requests
    from botocore.exceptions import ClientError, EndpointConnectionError

    def http(status):
        response = requests.Response()
        response.status_code = status
        return requests.HTTPError("PUT failed", response=response)

    def s3(status):
        return ClientError({"Error": {"Code": "?"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")

    assert all(may_pass(error) for error in (http(502), http(403), s3(503), s3(403), ConnectionResetError("cut")))
    assert may_pass(EndpointConnectionError(endpoint_url="http://s3"))
    assert may_pass(requests.ConnectionError("refused"))
    assert not any(may_pass(error) for error in (http(413), s3(404), TypeError("ours"), LookupError("ours")))


@pytest.mark.e2e
def test_a_run_keeps_its_record_through_a_restart_of_mlflow(tmp_path):
    from tests.integration.federation import environment, wait_for  # which imports torch

    uri, keep = f"sqlite:///{tmp_path / 'mlflow.db'}", ("--artifacts-destination", str(tmp_path / "artifacts"))
    with ExitStack() as around:
        with serving(tmp_path, uri, *keep) as port:
            where = f"http://localhost:{port}"
            aggregator = around.enter_context(running(tmp_path, "--tracking", where, env=environment()))
            runs = around.enter_context(aggregator.runs())
            run = runs.start(run_spec("north", rounds=1), "once")
            site = around.enter_context(aggregator.site("north", run))
            site.step()
            wait_for(lambda: client(uri).get_experiment_by_name("teaching run"))
        work(site)
        assert runs.get(run).state == "FINISHED", "rounds do not wait"
        wait_for(lambda: "tracking_waits" in [event.kind for event in runs.past(run)])
        with serving(tmp_path, uri, *keep, port=port):
            events = {event.kind: event.detail for event in runs.watch(run)}
            version = client(where).get_model_version_by_alias("teaching run", "candidate")
    assert "tracking_failed" not in events
    assert (version.version, version.tags["deerfield.run"]) == (events["registered"]["version"], run)
    assert aggregator.said("tracking answers again") == 1
