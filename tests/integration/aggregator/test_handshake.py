"""What keeps a caller from its aggregator is one sentence, found out at real servers."""

import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from deerfield.errors import HandshakeFailed, InvalidInput, Unreachable
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import SiteClient
from deerfield.wire.connection import explaining, open_runs
from deerfield.wire.handshake import Way, cause
from services.aggregator.rpc.gate import Gate
from services.client.connection import open_channel
from tests import pki
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.integration.aggregator.security import NOW, OLD


@pytest.fixture
def aggregator(tmp_path, clock):
    found = open_aggregator(tmp_path, clock)
    yield found
    found.desk.store.close()


@pytest.fixture
def north(consortium):
    return consortium.files("site", "north")


@pytest.fixture
def serve(aggregator, consortium):
    """Serves the aggregator by the given certificate, or by its own."""

    @contextmanager
    def serving(files=None, clock=None):
        with served(aggregator, gate=Gate(files or consortium.server, None, clock or consortium.clock)) as found:
            yield found.ports.listening

    return serving


@contextmanager
def answering(answer):
    """A server that does `answer` with each connection; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert not thread.is_alive()


def of_aggregator(consortium, name, **options):
    return pki.files(consortium.ca, consortium.folder / name, pki.AGGREGATOR, **{"hosts": ("127.0.0.1",), **options})


def test_a_connection_that_can_be_made_has_no_cause_to_name(serve, north):
    with serve() as address:
        assert cause(Way(address=address, files=north)) is None


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("no-such-host.invalid:8600", "no address is known for no-such-host.invalid; check the name, and DNS"),
        ("127.0.0.1:FREE", "cannot be reached (connection refused); check the address"),
    ],
)
def test_an_address_where_nobody_answers_is_worth_another_try(north, address, says):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.replace("FREE", str(free.getsockname()[1]))
        found = cause(Way(address=address, files=north))
    assert isinstance(found, Unreachable)
    assert found.exit_code == 1
    assert says in str(found)


def test_an_address_that_is_none_is_not(north):
    for address in ("aggregator.example.org", "127.0.0.1:http"):
        with pytest.raises(HandshakeFailed, match="is no host:port"):
            raise cause(Way(address=address, files=north))


def test_a_ca_that_is_unknown_here_is_named(serve, consortium, north):
    ca = pki.authority(consortium.folder / "theirs")
    with serve(pki.files(ca, consortium.folder / "theirs-server", pki.AGGREGATOR, hosts=("127.0.0.1",))) as address:
        said = mended(address, north)
    assert "by CN=deerfield CA,O=lungs, by no CA in " in said
    assert "ask the consortium's operator for ca.crt" in said


def mended(address, files, now=None) -> str:
    """The sentence of a cause that a person can mend."""
    found = cause(Way(address=address, files=files), now)
    assert isinstance(found, HandshakeFailed)
    assert found.exit_code == 2
    assert "\n" not in str(found)
    assert address in str(found)
    return str(found)


def test_an_aggregator_of_another_name_says_which_names_it_has(serve, consortium, north):
    with serve(of_aggregator(consortium, "elsewhere", hosts=("agg.example.org", "10.0.0.7"))) as address:
        assert "is not for 127.0.0.1, but agg.example.org, 10.0.0.7; use a name that it has" in mended(address, north)


def test_an_aggregators_certificate_that_has_expired_or_is_of_tomorrow_is_held_against_the_clock(
    serve, consortium, north
):
    expired = of_aggregator(consortium, "expired", now=OLD, days=30)
    with serve(expired, clock=lambda: OLD) as address:
        said = mended(address, north)
    assert f"has expired, on {OLD + timedelta(days=30):%Y-%m-%d %H:%M} UTC, and it is {NOW:%Y-%m-%d }" in said
    assert "by this machine's clock; have it renewed, or set the clock right" in said
    early = of_aggregator(consortium, "early", now=NOW + timedelta(days=2))
    with serve(early, clock=lambda: NOW + timedelta(days=3)) as address:
        said = mended(address, north)
    assert f"is not valid before {NOW + timedelta(days=2) - timedelta(minutes=10):%Y-%m-%d %H:%M} UTC" in said
    assert "by this machine's clock; set the clock right" in said


def test_a_certificate_that_the_aggregator_refuses_is_named(serve, consortium, north):
    foreign, server = consortium.other(north), consortium.server
    with serve() as address:
        said = mended(address, foreign)
        assert f"refuses {foreign.certificate}, which was signed by no CA in {foreign.authority}" in said
        assert "it trusts another CA, or its clock is not within" in mended(address, server)  # for servers, not clients


def test_our_own_certificate_that_has_expired_needs_no_server(consortium, north):
    expired = consortium.files("site", "old", now=OLD, days=30)
    found = cause(Way(address="127.0.0.1:1", files=expired))
    assert isinstance(found, HandshakeFailed)
    assert f"{expired.certificate} has expired, on " in str(found)
    found = cause(Way(address="127.0.0.1:1", files=replace(north, key=expired.key)))
    assert "is not the key of" in str(found)


def test_a_port_without_tls_is_named(server, north):
    assert "does not speak TLS" in mended(server.ports.listening, north)
    with answering(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")) as address:
        assert "does not speak TLS" in mended(address, north)


@pytest.mark.parametrize("latest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_port_that_speaks_tls_is_named_where_no_certificate_is_given(consortium, latest):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(consortium.server.authority))
    context.load_cert_chain(consortium.server.certificate, consortium.server.key)
    context.maximum_version, context.verify_mode = latest, ssl.CERT_REQUIRED

    def answer(connection):
        with suppress(ssl.SSLError, ConnectionError):
            context.wrap_socket(connection, server_side=True).recv(1)

    with answering(answer) as address:
        said = mended(address, None)
    assert said.endswith("speaks TLS, and no certificate was given; give --tls-certificate, --tls-key and --tls-ca")


def test_in_plaintext_a_command_ends_at_once_at_a_port_that_speaks_tls(serve):
    named = pytest.raises(HandshakeFailed, match="speaks TLS, and no certificate was given")
    with serve() as address, open_runs(Way(address=address), print) as runs, named:
        runs.list()


def test_a_port_without_tls_needs_no_certificate(server):
    assert cause(Way(address=server.ports.listening)) is None
    with answering(lambda connection: connection.recv(4096)) as address:  # it breaks off
        assert cause(Way(address=address)) is None
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert cause(Way(address=f"127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)) is None


def test_a_web_server_is_no_aggregator(consortium, north):
    files = of_aggregator(consortium, "web")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["http/1.1"])

    def answer(connection):
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1)

    with answering(answer) as address:
        assert "speaks TLS but not gRPC; another service is there" in mended(address, north)


def test_a_server_that_says_why_it_refuses_is_believed(consortium, north):
    """OpenSSL's servers send an alert where gRPC's break off."""
    server = of_aggregator(consortium, "alerting")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.authority))
    context.load_cert_chain(server.certificate, server.key)
    context.set_alpn_protocols(["h2"])
    context.verify_mode = ssl.CERT_REQUIRED

    def answer(connection):
        with suppress(ssl.SSLError):
            context.wrap_socket(connection, server_side=True).recv(1)

    with answering(answer) as address:
        assert "which is of a CA that it does not know" in mended(address, consortium.other(north))
        late = consortium.files("site", "late", now=OLD, days=30)  # our clock is behind: there it has ended
        said = mended(address, late, OLD + timedelta(days=1))
        assert f"refuses {late.certificate}, which has expired by its clock; compare the clocks" in said


@pytest.mark.parametrize("reads", [0, 4096])
def test_a_connection_that_is_cut_is_worth_another_try(north, reads):
    with answering(lambda connection: connection.recv(reads)) as address:
        found = cause(Way(address=address, files=north))
    assert isinstance(found, Unreachable)
    assert "breaks the connection off; is an aggregator there?" in str(found)


def test_silence_is_worth_another_try(north):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = cause(Way(address=f"127.0.0.1:{silent.getsockname()[1]}", files=north, timeout_s=0.2))
    assert isinstance(found, Unreachable)
    assert "takes the connection but does not answer" in str(found)


class Waits:
    """A `sleep` that notes what it is asked, and ends it all at the third."""

    def __init__(self):
        self.asked = []

    def __call__(self, seconds):
        self.asked.append(seconds)
        if len(self.asked) == 3:
            raise InterruptedError


def test_a_site_tries_every_minute_for_ever_with_one_line_and_a_command_ends_at_once(serve, consortium, north):
    foreign, waits, said = consortium.other(north), Waits(), []
    with serve() as address:
        way = Way(address=address, files=foreign)
        backoff = Backoff(sleep=waits, explain=explaining(way, said.append))
        with open_channel(way, "north") as channel, pytest.raises(InterruptedError):
            SiteClient(channel, backoff=backoff).hello()
        assert waits.asked == [60.0, 60.0, 60.0]
        assert len(said) == 3
        assert len({*said}) == 1
        assert "which was signed by no CA in" in said[0]
        ada = consortium.files("operator", "ada")
        theirs = consortium.other(ada, "another")
        with open_runs(Way(address=address, files=ada), said.append) as runs:
            assert runs.list() == ()
        with open_runs(Way(address=address, files=theirs), said.append) as runs, pytest.raises(HandshakeFailed):
            runs.list()
        with pytest.raises(InvalidInput, match="needs an operator's or an observer's"):
            open_runs(Way(address=address, files=north), said.append).__enter__()
    assert len(said) == 3


def site_command(tmp_path, address, files):
    """The site's own process."""
    (tmp_path / "policy.yaml").write_text("populations: {}\nmodels: {}\n")
    command = [sys.executable, "-m", "services.client", "site", "--site", "north", "--aggregator", address]
    command += ["--run", "any", "--policy", str(tmp_path / "policy.yaml"), "--state", str(tmp_path / "state")]
    command += ["--tls-certificate", str(files.certificate), "--tls-key", str(files.key)]
    return subprocess.Popen([*command, "--tls-ca", str(files.authority)], stderr=subprocess.PIPE, text=True)


def test_the_site_command_says_the_cause_in_one_line_of_its_log_and_stays(serve, consortium, north, tmp_path):
    foreign = consortium.other(north)
    with serve() as address, site_command(tmp_path, address, foreign) as process:
        limit = threading.Timer(90, process.kill)
        limit.start()
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "no connection" in line:
                break
        stays = process.poll() is None
        process.terminate()
        lines += process.stderr.readlines()
        limit.cancel()
    assert stays, lines
    assert [word for word in ("site starts", "no connection") if any(word in line for line in lines)] == [
        "site starts",
        "no connection",
    ]
    assert len(lines) == 2, lines
    assert f"the aggregator at {address} refuses {foreign.certificate}, which was signed by no CA in" in lines[1]


def test_the_site_command_ends_where_its_own_files_cannot_be_used(consortium, north, tmp_path):
    south = consortium.files("site", "south")
    with site_command(tmp_path, "127.0.0.1:1", south) as process:
        said = process.stderr.read()
    assert process.returncode == 2
    assert said.endswith("is of deerfield://lungs/site/south, not of site north; give the site's own\n")
    assert "Traceback" not in said


@pytest.mark.parametrize("address", ["localhost", "https://localhost:18600"])
def test_the_site_command_ends_where_its_aggregators_address_is_none(north, tmp_path, address):
    with site_command(tmp_path, address, north) as process:
        limit = threading.Timer(90, process.kill)
        limit.start()
        said = process.stderr.read()
        limit.cancel()
    assert process.returncode == 2
    assert f"error: --aggregator: '{address}' is no host:port" in said
    assert "Traceback" not in said


def test_a_command_without_patience_ends_where_nobody_answers(consortium):
    ada = consortium.files("operator", "ada")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        way = Way(address=f"127.0.0.1:{free.getsockname()[1]}", files=ada)
        with (
            open_runs(way, print, Backoff(patience_s=0)) as runs,
            pytest.raises(Unreachable, match="connection refused"),
        ):
            runs.list()
