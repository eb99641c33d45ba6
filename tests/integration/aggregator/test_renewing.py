"""A site whose certificate is renewed, and its old one revoked, while it works: it goes on, without a restart."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256

import grpc
import pytest

from deerfield.certificates import load
from deerfield.errors import NotAuthenticated
from deerfield.exchange import Key, announce
from deerfield.manifest import describe, pieces
from deerfield.renewal import Held
from deerfield.wire import codec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import unary, upstream
from deerfield.wire.channel import connect_tls
from deerfield.wire.client import SiteClient
from deerfield.wire.connection import secure
from deerfield.wire.federation_pb2_grpc import FederationStub
from deerfield.wire.handshake import Way
from deerfield.wire.renewing import LOOK_S, Renewing, Told
from pipelines.pki import pki_authority
from tests import pki
from tests.fakes import Clock, TeachingSite, adapter, run_spec
from tests.integration.aggregator.security import METHODS, NOW, Consortium, answer, channel_of


@dataclass
class Renewable:
    """A site's files, which can be replaced, and what its log was told."""

    consortium: Consortium
    renewed: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.files = self.consortium.files("site", "north")
        self.serial = load(self.files, NOW).serial
        self.new = pki.files(self.consortium.ca, self.consortium.folder / "renewed")

    @property
    def told(self) -> Told:
        return Told(renewed=self.renewed.append, warned=self.warned.append)

    def renew(self):
        for source, target in ((self.new.key, self.files.key), (self.new.certificate, self.files.certificate)):
            put(source, target)

    def revoke(self):
        """The first certificate."""
        pki_authority.revoke(self.consortium.ca.folder, self.serial, "test", NOW)


def put(source, target):
    aside = target.with_name("aside")
    shutil.copyfile(source, aside)
    os.replace(aside, target)


@pytest.fixture
def north(consortium):
    return Renewable(consortium)


def anybody(own):
    """Accepts every owner."""


def test_it_goes_on_in_its_run(address, runs, north):
    run = runs.start(run_spec("north", rounds=2), "once")
    with secure(Way(address=address, files=north.files), anybody, north.told) as channel:
        site = TeachingSite(
            "north", SiteClient(channel, run=run, backoff=Backoff(first_s=0.01, patience_s=10)), adapter(1)
        )
        assert site.step()
        north.renew()
        north.revoke()
        for _ in range(3):
            assert site.step()
        assert list(runs.watch(run))[-1].kind == "run_finished"
    assert len(north.renewed) == 1
    assert "deerfield://lungs/site/north was renewed, until 20" in north.renewed[0]


def test_without_new_files_it_ends(address, runs, north):
    run = runs.start(run_spec("north", rounds=1), "once")
    with secure(Way(address=address, files=north.files), anybody, north.told) as channel:
        site = TeachingSite("north", SiteClient(channel, run=run), adapter(1))
        assert site.step()
        north.revoke()
        with pytest.raises(NotAuthenticated, match="is revoked"):
            site.step()


class During(grpc.StreamUnaryClientInterceptor):
    """Does something once, after the first chunk of the first upload."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act, self.uploads = act, 0

    def intercept_stream_unary(self, continuation, client_call_details, request_iterator):
        self.uploads += 1
        return continuation(client_call_details, self._acting(request_iterator, self.uploads == 1))

    def _acting(self, chunks, acts):
        for number, chunk in enumerate(chunks):
            yield chunk
            if acts and number == 0:
                self.act()


def test_an_upload_under_way_by_a_certificate_that_is_revoked_goes_on_by_the_new_one(address, runs, north):
    run = runs.start(run_spec("north", rounds=1), "once")

    def replaced():
        north.renew()
        north.revoke()

    during = During(replaced)
    with secure(Way(address=address, files=north.files), anybody, north.told) as channel:
        link = SiteClient(
            grpc.intercept_channel(channel, during), run=run, backoff=Backoff(first_s=0.01, patience_s=10)
        )
        site = TeachingSite("north", link, adapter(1))
        assert site.step()
        assert during.uploads == 2
        assert site.step()
        assert list(runs.watch(run))[-1].kind == "run_finished"
    assert [event.kind for event in runs.watch(run)].count("update_sealed") == 2


def test_calls_in_flight_end_on_the_old_connection_which_is_closed_when_they_have(address, runs, north):
    run, clock, opened = runs.start(run_spec("north", rounds=1), "once"), Clock(), []

    def connect(own):
        channel = connect_tls(address, own)
        opened.append(FederationStub(channel))
        return channel

    with Renewing(Held(north.files, anybody, lambda: NOW), connect, north.told, clock) as channel:
        stub, site = FederationStub(channel), TeachingSite("north", SiteClient(channel, run=run), adapter(1))
        assignment = site.link.next_task()
        update = site.update(assignment)
        message = codec.encode_announcement(Key(run=run, incarnation=1, round=0, phase=0), announce(update))
        missing = unary(stub.BeginUpload, message, 5).missing
        manifest = describe(update.delta)
        data = {sha256(piece).digest(): piece for _, piece in pieces(update.delta, manifest, manifest.chunks)}

        def chunks():
            yield pb.Chunk(sha256=missing[0], data=data[missing[0]])
            north.renew()
            clock.advance(LOOK_S)
            site.link.hello()  # by the new certificate
            assert len(opened) == 2
            for sha in missing[1:]:
                yield pb.Chunk(sha256=sha, data=data[sha])

        assert upstream(stub.PutChunks, chunks(), 10).stored == len(missing)
        site.link.hello()
        with pytest.raises(ValueError, match="closed channel"):
            opened[0].Hello(pb.HelloRequest())
        north.revoke()
        site.link.hello()
    assert len(opened) == 2


def test_half_of_a_pair_keeps_the_old_one_and_says_so_once(address, north):
    clock = Clock()
    held = Held(north.files, anybody, lambda: NOW)
    with Renewing(held, lambda own: connect_tls(address, own), north.told, clock) as channel:
        link = SiteClient(channel)
        put(north.new.certificate, north.files.certificate)
        for _ in range(3):
            clock.advance(LOOK_S)
            link.hello()
        assert len(north.warned) == 1
        assert "stays as it was: " in north.warned[0]
        assert "is not the key of" in north.warned[0]
        assert north.renewed == []
        put(north.new.key, north.files.key)
        clock.advance(LOOK_S / 2)
        link.hello()
        assert north.renewed == []  # files are not looked at for every call
        clock.advance(LOOK_S / 2)
        link.hello()
        assert len(north.renewed) == 1


def test_an_end_that_is_near_is_in_the_log_once_a_day(address, consortium, tmp_path):
    files = consortium.files("site", "brief", days=20)
    told: list[str] = []
    with secure(Way(address=address, files=files), anybody, Told(renewed=told.append, warned=told.append)) as channel:
        for _ in range(3):
            SiteClient(channel).hello()
    assert len(told) == 1
    assert "ends in 19 days" in told[0]  # and some hours


def test_a_ca_is_replaced_step_by_step_while_the_aggregator_serves_and_then_what_the_old_one_signed_is_worth_nothing(
    consortium, address
):
    old, trusted = consortium.files("site", "north"), consortium.server.authority
    new_ca = pki.authority(consortium.folder / "new")
    new = pki.files(new_ca, consortium.folder / "new-north")
    server = pki.files(new_ca, consortium.folder / "new-server", pki.AGGREGATOR, hosts=("127.0.0.1",))
    first, second = trusted.read_bytes(), new.authority.read_bytes()
    aside = consortium.folder / "bundle.crt"

    def trust(certificates):
        aside.write_bytes(certificates)
        put(aside, trusted)

    def hello(files, authority):
        with channel_of(address, replace(files, authority=authority)) as channel:
            return answer(channel, METHODS[0])[0]

    both = consortium.folder / "both.crt"
    both.write_bytes(first + second)
    assert hello(new, both) is grpc.StatusCode.UNAVAILABLE  # the aggregator does not know its CA yet
    trust(first + second)
    assert hello(old, both) == hello(new, both) != grpc.StatusCode.UNAVAILABLE
    assert hello(new, new.authority) is grpc.StatusCode.UNAVAILABLE  # as somebody with the aggregator's old key
    for name in ("key", "certificate"):
        put(getattr(server, name), getattr(consortium.server, name))
    assert hello(old, both) == hello(new, new.authority) != grpc.StatusCode.UNAVAILABLE
    trust(second)
    assert hello(old, both) is grpc.StatusCode.UNAVAILABLE
    assert hello(new, new.authority) is not grpc.StatusCode.UNAVAILABLE
