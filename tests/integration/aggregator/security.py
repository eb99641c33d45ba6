"""A server over TLS, and callers of every kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import grpc
from google.protobuf.message_factory import GetMessageClass

from deerfield.certificates import Files, load
from deerfield.identity import Peer
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.channel import connect_tls
from pipelines.pki import pki_authority
from services.aggregator.rpc.gate import Gate
from tests import pki
from tests.pki import NOW

METHODS = tuple(method for service in pb.DESCRIPTOR.services_by_name.values() for method in service.methods)
OLD = NOW - timedelta(days=400)


@dataclass
class Calendar:
    """A clock that stands still until it is moved."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Consortium:
    """A CA, the files of the aggregator on this machine, and those of whoever asks."""

    folder: Path
    ca: pki_authority.Authority
    server: Files
    clock: Calendar

    @classmethod
    def found(cls, folder: Path) -> "Consortium":
        folder.mkdir()
        ca = pki.authority(folder / "ca", now=OLD)
        server = pki.files(ca, folder / "server", pki.AGGREGATOR, hosts=("127.0.0.1",))
        return cls(folder=folder, ca=ca, server=server, clock=Calendar())

    @property
    def revoked(self) -> Path:
        return self.ca.folder / "revoked.json"

    def gate(self) -> Gate:
        return Gate(self.server, self.revoked, self.clock)

    def files(self, role: str, name: str, **options) -> Files:
        peer = Peer(federation="lungs", role=role, name=name)
        return pki.files(self.ca, self.folder / f"{role}-{name}", peer, **options)

    def revoke(self, files: Files) -> None:
        pki_authority.revoke(self.ca.folder, load(files, self.clock()).serial, "test", self.clock())

    def other(self, files: Files, name: str = "other") -> Files:
        """The same owner by another CA, in the folder `name`, who trusts this one's aggregator."""
        ca = pki.authority(self.folder / name)
        theirs = pki.files(ca, self.folder / f"{name}-files", load(files, self.clock()).peer)
        return replace(theirs, authority=files.authority)


def channel_of(address: str, files: Files, now: datetime = NOW) -> grpc.Channel:
    return connect_tls(address, load(files, now))


def answer(channel: grpc.Channel, method) -> tuple[grpc.StatusCode, str]:
    """What an empty request of any method gets: the code and the sentence; OK where it was served."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    forms = {False: "unary", True: "stream"}
    stub = getattr(channel, f"{forms[method.client_streaming]}_{forms[method.server_streaming]}")(
        path, GetMessageClass(method.input_type).SerializeToString, GetMessageClass(method.output_type).FromString
    )
    request = GetMessageClass(method.input_type)()
    try:
        reply = stub(iter([request]) if method.client_streaming else request, timeout=10)
        if method.server_streaming:
            next(reply, None)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


@contextmanager
def without_certificate(address: str, server: Files) -> Iterator[grpc.Channel]:
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(server.authority.read_bytes())) as channel:
        yield channel
