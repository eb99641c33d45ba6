"""What a person is told when Kubeflow Pipelines does not answer, says no, or is something else."""

import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from deerfield.errors import DeerfieldError, HandshakeFailed, InvalidInput, Unreachable
from pipelines.kubeflow import holdings, kfp_link
from pipelines.kubeflow.kfp_transport import Where
from tests import kfp_server, pki


@pytest.fixture
def kfp():
    with kfp_server.serving() as server:
        yield server


def told(error, address="", patience_s=0.0, **where):
    """The sentence that a look at this address ends with."""
    with pytest.raises(error) as refused:
        holdings.look(Where(address=address, **where), patience_s)
    assert "\n" not in str(refused.value)
    return str(refused.value).replace(address, "KFP")


@contextmanager
def answering(status, body, **headers):
    """Something else that speaks HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(10)


def test_nobody_at_the_address_is_said_with_the_address_the_cause_and_how_long_it_was_tried():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sentence = told(Unreachable, f"http://127.0.0.1:{port}")
    assert sentence == "KFP at KFP does not answer (connection refused); tried for 0 s"


def test_a_name_that_nobody_has_is_said():
    assert "does not answer (its name cannot be resolved)" in told(Unreachable, "http://kfp.invalid:8888")


def test_it_is_asked_again_until_it_answers_and_each_pause_says_why(kfp, capsys):
    kfp.refuse("GET", "healthz", 503, "no healthy upstream", times=2)
    assert holdings.look(Where(address=kfp.address), 30.0).pipelines == []
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("fails (status 503: no healthy upstream); asking again in" in line for line in lines)


def test_a_server_that_fails_is_given_up_after_the_patience(kfp):
    kfp.refuse("GET", "healthz", 500, "database is gone", times=50)
    sentence = told(Unreachable, kfp.address, patience_s=1.0)
    assert sentence.startswith("KFP at KFP fails (status 500: database is gone); tried for ")


def test_a_missing_and_a_wrong_token_are_said_with_the_audience(kfp, tmp_path):
    kfp.token = "right"
    assert "asks for a token, and none is given (401" in told(InvalidInput, kfp.address)
    token = tmp_path / "token"
    token.write_text("forged")
    sentence = told(InvalidInput, kfp.address, token=token)
    assert f"does not accept the token in {token} (401" in sentence
    assert "audience pipelines.kubeflow.org" in sentence
    assert "forged" not in sentence


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"", "is empty"), (b"\xff", "not ASCII")])
def test_a_token_that_cannot_be_read_is_said_and_nothing_is_asked(kfp, tmp_path, content, why):
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    sentence = told(InvalidInput, kfp.address, token=token)
    assert str(token) in sentence
    assert why in sentence
    assert kfp.requests == []


def test_a_namespace_that_the_token_may_not_use_is_said(kfp):
    kfp.multi_user, kfp.namespaces = True, {"hearts"}
    sentence = told(InvalidInput, kfp.address, namespace="lungs")
    assert "forbids this (403: User" in sentence
    assert "namespace 'lungs'" in sentence


def test_a_namespace_is_asked_for_where_there_are_several_users_and_refused_where_there_are_none(kfp):
    assert "is single-user and has no namespaces; leave --namespace lungs out" in told(
        InvalidInput, kfp.address, namespace="lungs"
    )
    kfp.multi_user = True
    assert "is multi-user; give --namespace" in told(InvalidInput, kfp.address)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"<html>MLflow</html>", {"Content_Type": "text/html"}),
        (200, b"<html>says that it is JSON</html>", {"Content_Type": "application/json"}),
        (200, b"OK", {"Content_Type": "text/plain"}),
        (200, b"[]", {"Content_Type": "application/json"}),
        (404, b"<html>not found</html>", {"Content_Type": "text/html; charset=utf-8"}),
        (404, b"", {}),
        (302, b"", {"Location": "http://127.0.0.1:1/dex/auth"}),
    ],
)
def test_a_server_of_another_kind_is_told_from_kubeflow_pipelines(status, body, headers):
    with answering(status, body, **headers) as address:
        sentence = told(InvalidInput, address)
    assert f"what answers at KFP (status {status}, no JSON) is not the API of Kubeflow Pipelines" in sentence
    assert "ml-pipeline" in sentence
    assert ("behind a login page" in sentence) == (status == 302)


def test_a_proxy_that_forbids_in_plain_text_is_heard():
    with answering(403, b"RBAC: access denied", Content_Type="text/plain") as address:
        assert "forbids this (403: RBAC: access denied)" in told(InvalidInput, address)


def test_a_server_that_takes_a_request_and_never_answers_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "does not answer (no answer within 0.3 s)" in told(Unreachable, address, limits_s=(5.0, 0.3))


def test_a_server_with_tls_is_checked_by_the_ca_that_is_given(tmp_path):
    files = pki.files(pki.authority(tmp_path / "ca"), tmp_path / "server", pki.AGGREGATOR, hosts=["127.0.0.1"])
    with kfp_server.serving(files) as server:
        assert holdings.look(Where(address=server.address, ca=files.authority), 0.0).schedules == []
        sentence = told(HandshakeFailed, server.address)
    assert "CERTIFICATE_VERIFY_FAILED" in sentence
    assert "give --ca FILE" in sentence


def test_a_server_without_tls_at_an_https_address_is_said(kfp):
    address = kfp.address.replace("http:", "https:")
    sentence = told(HandshakeFailed, address)
    assert sentence.startswith("no TLS connection to KFP (")
    assert sentence.endswith("give --ca FILE, the CA it is checked by")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("ml-pipeline:8888", "is no address of an API; write such as http://ml-pipeline.kubeflow:8888"),
        ("http://kfp/#/pipelines", "is no address of an API"),
        ("ftp://kfp", "is no address of an API"),
        ("http://", "is no address of an API"),
        ("http://ada:secret@kfp", "--kfp has a password in it"),
    ],
)
def test_what_can_be_no_address_is_refused(address, sentence):
    with pytest.raises(InvalidInput) as refused:
        Where(address=address)
    assert sentence in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_ca_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"--ca .*ca.crt is no file"):
        Where(address="https://kfp", ca=tmp_path / "ca.crt")


def test_the_client_asks_nothing_and_reads_nothing_by_itself(kfp, capfd):
    with kfp_link.connected(Where(address=kfp.address)) as client:
        assert kfp.requests == []
        assert client.get_user_namespace() == ""
        with pytest.raises(DeerfieldError, match=r"refuses \(status 404: .* not found\)"):
            client.get_recurring_run("nobody")
    assert capfd.readouterr() == ("", "")
