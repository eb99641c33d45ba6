"""The certificates of one embedded run: a CA of its own, made when it starts and deleted when it ends.

So that a trial on one machine takes the path that a consortium takes. The keys lie in the run's folder, readable by
their owner alone, for as long as the run lasts; nothing needs them afterwards.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from deerfield.certificates import Files, load, utc_now
from deerfield.errors import InvalidInput
from deerfield.identity import Peer, PeerRole
from deerfield.wire.channel import connect_tls
from deerfield.wire.proxy import host_of, is_loopback
from pipelines.pki import pki_authority, pki_request, pki_signing

FOLDER = "pki"  # in the folder of the run
FEDERATION = "embedded"
DAYS = 90  # longer than any run, and than the month in which an end is warned of
CERTIFICATE = "tls.crt"


@dataclass(frozen=True, slots=True)
class RunPki:
    """Issues one certificate for each party of a run."""

    authority: pki_authority.Authority

    @property
    def revoked(self) -> Path:
        """The list that the aggregator reads; empty."""
        return self.authority.folder / pki_authority.REVOKED

    def aggregator(self, listen: str) -> Files:
        """The aggregator's, for the host that it listens at.

        Raises:
            InvalidInput: others than this machine can reach it.
        """
        return self._issue("aggregator", "", (_loopback(listen),))

    def site(self, name: str) -> Files:
        """A site's."""
        return self._issue("site", name)

    def operator(self, name: str) -> Files:
        """For the launcher and the evaluator."""
        return self._issue("operator", name)

    def _issue(self, role: PeerRole, name: str, hosts: tuple[str, ...] = ()) -> Files:
        """A party's files, made when they are first asked for."""
        place = self.authority.folder.parent / role / name
        files = Files(
            certificate=place / CERTIFICATE,
            key=place / pki_request.KEY,
            authority=self.authority.folder / pki_authority.CERTIFICATE,
        )
        if not files.certificate.exists():
            peer = Peer(federation=FEDERATION, role=role, name=name)
            wish = pki_signing.read_wish(pki_request.request(place, peer, hosts).request, FEDERATION)
            pki_signing.sign(self.authority, wish, files.certificate, DAYS, utc_now())
        return files


@contextmanager
def run_pki(folder: Path) -> Iterator[RunPki]:
    """A new CA below the run's folder; it is gone, with every key that it signed, when the block is left."""
    place, now = folder / FOLDER, utc_now()
    try:
        pki_authority.make(place / "ca", FEDERATION, now)
        yield RunPki(pki_authority.load(place / "ca", now))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def channel(address: str, files: Files) -> grpc.Channel:
    """A channel of this process's own, for the owner of `files`."""
    return connect_tls(address, load(files, utc_now()))


def flags(files: Files) -> list[str]:
    """The files as the aggregator and `services.client` take them."""
    pairs = {"--tls-certificate": files.certificate, "--tls-key": files.key, "--tls-ca": files.authority}
    return [part for flag, path in pairs.items() for part in (flag, str(path))]


def _loopback(listen: str) -> str:
    host = host_of(listen)
    if not is_loopback(host):
        raise InvalidInput(
            f"--listen {listen} is not on this machine alone, where an embedded run stays; use 127.0.0.1:PORT, or "
            "start python -m services.aggregator with TLS for others to join"
        )
    return host
