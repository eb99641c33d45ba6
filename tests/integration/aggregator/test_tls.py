"""TLS as it is: revocation on calls under way, certificates that change. Who may call what: test_security_matrix."""

import asyncio
import os
import shutil
import socket
import ssl
import threading
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import grpc
import pytest
import structlog
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.contextvars import merge_contextvars

from deerfield.certificates import load
from deerfield.errors import InvalidInput, NotAuthenticated, NotMember
from deerfield.exchange import Key, announce
from deerfield.manifest import describe, pieces
from deerfield.wire import codec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import unary, upstream
from deerfield.wire.channel import SITE_KEY, connect, connect_tls
from deerfield.wire.client import RunsClient, SiteClient
from deerfield.wire.federation_pb2_grpc import FederationStub, RunsStub
from services.aggregator.rpc.gate import Gate
from tests import pki, virtual_time
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import served
from tests.integration.aggregator.security import (
    METHODS,
    NOW,
    OLD,
    answer,
    channel_of,
)

Code = grpc.StatusCode


@pytest.fixture
def secure(aggregator, consortium):
    with served(aggregator, gate=consortium.gate()) as found:
        yield found


@pytest.fixture
def address(secure):
    return secure.ports.listening


@pytest.mark.parametrize("caller", ["nobody", "plaintext", "foreign", "expired", "aggregator"])
def test_whoever_has_no_certificate_of_this_ca_reaches_no_call(consortium, address, caller):
    if caller == "nobody":
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(consortium.server.authority.read_bytes()))
    elif caller == "plaintext":
        channel = connect(address, role="operator")
    elif caller == "foreign":
        channel = channel_of(address, consortium.other(consortium.files("site", "north")))
    elif caller == "expired":
        channel = channel_of(address, consortium.files("site", "north", now=OLD, days=30), OLD)
    else:
        channel = channel_of(address, consortium.server)
    with channel:
        assert {answer(channel, method)[0] for method in METHODS} == {Code.UNAVAILABLE}


@pytest.mark.parametrize("role", ["site", "operator", "observer"])
def test_whoever_is_revoked_is_refused_every_call_also_of_an_open_connection(consortium, address, role):
    files = consortium.files(role, "north")
    hello = next(method for method in METHODS if method.name == "Hello")
    with channel_of(address, files) as channel:
        assert answer(channel, hello)[0] is not Code.UNAUTHENTICATED
        consortium.revoke(files)
        answers = [answer(channel, method) for method in METHODS]
        assert {code for code, _ in answers} == {Code.UNAUTHENTICATED}
        assert all("is revoked" in said for _, said in answers)
        with pytest.raises(NotAuthenticated, match="is revoked"):
            RunsClient(channel).list()
        with pytest.raises(grpc.RpcError) as health:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        with pytest.raises(grpc.RpcError) as listing:
            next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(ask, timeout=5))
    assert {health.value.code(), listing.value.code()} == {Code.UNAUTHENTICATED}
    renewed = pki.files(consortium.ca, consortium.folder / "renewed", load(files, NOW).peer)
    with channel_of(address, renewed) as channel:
        assert answer(channel, hello)[0] is not Code.UNAUTHENTICATED


def test_a_refusal_for_a_certificate_is_logged_with_its_call_and_its_site(consortium, address):
    north, ada = consortium.files("site", "north"), consortium.files("operator", "ada")
    with structlog.testing.capture_logs([merge_contextvars]) as lines:
        for files in (north, ada):
            consortium.revoke(files)
            with channel_of(address, files) as channel:
                for method in METHODS:
                    answer(channel, method)
    refused = [line for line in lines if line["event"] == "refused"]
    told = [(line["call"], line.get("site"), line["error"]) for line in refused]
    assert told == [(method.name, site, "NotAuthenticated") for site in ("north", None) for method in METHODS]
    assert all("is revoked" in line["message"] for line in refused)


def test_a_certificate_that_ends_or_is_of_another_federation_is_refused_on_an_open_connection(consortium, address):
    hello = next(method for method in METHODS if method.name == "Hello")
    other = replace(pki.NORTH, federation="hearts")
    wrong = other_federation(consortium, other)
    with channel_of(address, wrong) as channel:
        code, said = answer(channel, hello)
        assert (code, "of another federation than 'lungs'" in said) == (Code.UNAUTHENTICATED, True)
    with channel_of(address, consortium.files("site", "north", days=3)) as channel:
        assert answer(channel, hello)[0] is not Code.UNAUTHENTICATED
        consortium.clock.now += timedelta(days=4)
        code, said = answer(channel, hello)
        assert (code, "has expired" in said) == (Code.UNAUTHENTICATED, True)


def other_federation(consortium, peer):
    """Files for a peer of another federation by the same CA, as a PKI of many federations would issue them."""
    ca = replace(consortium.ca, federation=peer.federation)
    return pki.files(ca, consortium.folder / "hearts", peer)


def test_sites_finish_a_run_over_tls_and_are_who_their_certificates_say(consortium, address):
    def site(name, run):
        return SiteClient(channel_of(address, consortium.files("site", name)), run=run, backoff=Backoff(patience_s=5))

    with channel_of(address, consortium.files("operator", "ada")) as channel:
        runs = RunsClient(channel)
        run = runs.start(run_spec("north", "south", rounds=1), "once")
        sites = [TeachingSite(name, site(name, run), adapter(seed)) for seed, name in enumerate(("north", "south"))]
        with pytest.raises(NotMember, match="west is not one of the sites"):
            site("west", run).next_task()
        threads = [threading.Thread(target=lambda each=each: (each.step(), each.step())) for each in sites]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert list(runs.watch(run))[-1].kind == "run_finished"


def test_metadata_is_not_believed_beside_a_certificate(consortium, address):
    with channel_of(address, consortium.files("site", "west")) as channel:
        claims = ((SITE_KEY, "north"), ("deerfield-role", "operator"))
        with pytest.raises(grpc.RpcError) as refused:
            RunsStub(channel).List(pb.ListRequest(), timeout=5, metadata=claims)
    assert refused.value.code() is Code.PERMISSION_DENIED


def test_an_observer_reads_no_tensors(consortium, address):
    with channel_of(address, consortium.files("observer", "eve")) as channel, pytest.raises(grpc.RpcError) as refused:
        next(FederationStub(channel).GetChunks(pb.GetChunksRequest(sha256=[b"0" * 32]), timeout=5))
    assert refused.value.code() is Code.PERMISSION_DENIED


def test_a_revoked_site_ends_in_the_middle_of_its_upload(consortium, address, secure):
    files = consortium.files("site", "north")
    with channel_of(address, consortium.files("operator", "ada")) as channel:
        run = RunsClient(channel).start(run_spec("north", rounds=1), "once")
    with channel_of(address, files) as channel:
        stub, north = FederationStub(channel), TeachingSite("north", SiteClient(channel, run=run), adapter(1))
        assignment = north.link.next_task()
        update = north.update(assignment)
        message = codec.encode_announcement(Key(run=run, incarnation=1, round=0, phase=0), announce(update))
        missing = unary(stub.BeginUpload, message, 5).missing
        data = {sha256(piece).digest(): piece for piece in pieces_of(update)}

        def chunks():
            yield pb.Chunk(sha256=missing[0], data=data[missing[0]])
            while unary(stub.UploadStatus, pb.UploadStatusRequest(key=message.key), 5).missing == missing:
                pass
            consortium.revoke(files)
            yield pb.Chunk(sha256=missing[0], data=data[missing[0]])

        with pytest.raises(NotAuthenticated, match="is revoked"):
            upstream(stub.PutChunks, chunks(), 10)


def pieces_of(update):
    manifest = describe(update.delta)
    return dict(pieces(update.delta, manifest, manifest.chunks)).values()


def test_a_revoked_observer_sees_nothing_that_happens_afterwards(consortium, address):
    files = consortium.files("observer", "eve")
    with channel_of(address, consortium.files("operator", "ada")) as ada, channel_of(address, files) as eve:
        run = RunsClient(ada).start(run_spec("north", rounds=1), "once")
        watching = RunsClient(eve).watch(run)
        assert next(watching).kind == "run_started"
        consortium.revoke(files)
        RunsClient(ada).abort(run, "enough")
        with pytest.raises(NotAuthenticated, match="is revoked"):
            list(watching)


def shown(address, files):
    """The serial of the certificate that the server shows to a new connection."""
    context = ssl.create_default_context(cafile=files.authority)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 5) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).serial_number


def test_a_new_certificate_is_served_without_a_restart_and_half_of_one_is_not(consortium, address):
    north, before = consortium.files("site", "north"), load(consortium.server, NOW).serial
    new = pki.files(consortium.ca, consortium.folder / "new", pki.AGGREGATOR, hosts=("127.0.0.1",))
    with channel_of(address, north) as channel:
        hello = next(method for method in METHODS if method.name == "Hello")
        assert answer(channel, hello)[0] is Code.FAILED_PRECONDITION  # an empty request has no version
        assert shown(address, north) == before
        put(new.certificate, consortium.server.certificate)
        assert shown(address, north) == before
        put(new.key, consortium.server.key)
        assert shown(address, north) == load(new, NOW).serial != before
        assert answer(channel, hello)[0] is Code.FAILED_PRECONDITION  # the old connection goes on
    put(north.certificate, consortium.server.certificate)
    put(north.key, consortium.server.key)
    assert shown(address, north) == load(new, NOW).serial  # no site's certificate is served


def put(source, target):
    aside = target.with_name("aside")
    shutil.copyfile(source, aside)
    os.replace(aside, target)


def test_the_log_warns_of_the_aggregators_own_end_once_a_day(consortium, tmp_path, aggregator):
    files = pki.files(consortium.ca, tmp_path / "brief", pki.AGGREGATOR, hosts=("127.0.0.1",), days=20)
    hello = next(method for method in METHODS if method.name == "Hello")
    with structlog.testing.capture_logs() as lines:
        gate = Gate(files, None, consortium.clock)
        north = consortium.files("site", "north")
        with served(aggregator, gate=gate) as found, channel_of(found.ports.listening, north) as channel:
            for _ in range(3):
                for _ in range(2):
                    answer(channel, hello)
                consortium.clock.now += timedelta(days=1)
    said = [line["sentence"] for line in lines if line["event"] == "certificate"]
    assert [sentence.split(" ends in ")[1].split(",")[0] for sentence in said] == ["20 days", "19 days", "18 days"]


def test_it_does_so_also_where_nobody_calls(consortium, tmp_path):
    files = pki.files(consortium.ca, tmp_path / "brief", pki.AGGREGATOR, hosts=("127.0.0.1",), days=20)

    async def two_days(gate):
        warning = asyncio.create_task(gate.warning())
        for _ in range(48):
            await asyncio.sleep(3600)
            consortium.clock.now += timedelta(hours=1)
        warning.cancel()

    with structlog.testing.capture_logs() as lines:
        virtual_time.run(two_days(Gate(files, None, consortium.clock)))
    assert [line["sentence"].split(" ends in ")[1].split(",")[0] for line in lines] == ["20 days", "19 days"]


def test_a_list_that_is_damaged_later_leaves_the_last_one_in_force(consortium, address):
    one, two = consortium.files("site", "north"), consortium.files("site", "south")
    hello = next(method for method in METHODS if method.name == "Hello")
    consortium.revoke(one)
    with channel_of(address, one) as north, channel_of(address, two) as south:
        assert answer(north, hello)[0] is Code.UNAUTHENTICATED
        good = consortium.revoked.read_text()
        for damage in (good[:20], None):
            consortium.revoked.unlink() if damage is None else consortium.revoked.write_text(damage)
            assert answer(north, hello)[0] is Code.UNAUTHENTICATED
            assert answer(south, hello)[0] is Code.FAILED_PRECONDITION
        consortium.revoked.write_text(good)
        consortium.revoke(two)
        assert answer(south, hello)[0] is Code.UNAUTHENTICATED


def test_a_gate_is_not_opened_with_what_is_wrong(consortium, tmp_path):
    north = consortium.files("site", "north")
    with pytest.raises(InvalidInput, match="the data port needs an aggregator's"):
        Gate(north, None, consortium.clock)
    foreign = pki.foreign(tmp_path / "foreign", pki.uri(pki.AGGREGATOR.uri))
    with pytest.raises(InvalidInput, match=r"names no host, so that no site could connect; .* --host NAME"):
        Gate(foreign, None, consortium.clock)
    with pytest.raises(InvalidInput, match=r"missing\.json cannot be read"):
        Gate(consortium.server, tmp_path / "missing.json", consortium.clock)
    with pytest.raises(InvalidInput, match="has expired"):
        Gate(consortium.server, None, lambda: NOW + timedelta(days=366))


def test_a_server_of_another_name_or_ca_is_not_spoken_to(consortium, aggregator):
    files = consortium.files("site", "north")
    elsewhere = pki.files(consortium.ca, consortium.folder / "elsewhere", pki.AGGREGATOR, hosts=("agg.example.org",))
    hello = next(method for method in METHODS if method.name == "Hello")
    gate = Gate(elsewhere, None, consortium.clock)
    with served(aggregator, gate=gate) as found, channel_of(found.ports.listening, files) as channel:
        assert answer(channel, hello)[0] is Code.UNAVAILABLE
    consortium.other(files)
    own = replace(load(files, NOW), authority=(consortium.folder / "other" / "ca.crt").read_bytes())
    gate = consortium.gate()
    with served(aggregator, gate=gate) as found, connect_tls(found.ports.listening, own) as channel:
        assert answer(channel, hello)[0] is Code.UNAVAILABLE
