"""Who is let in over TLS: the aggregator's own certificate, reread when its files change, and the callers' serials."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import grpc
import structlog

from deerfield.certificates import Credentials, Files, load, parse_certificates, peer_of
from deerfield.errors import InvalidInput, NotAuthenticated
from deerfield.identity import Peer
from deerfield.revocation import read_revoked, serial_text
from services.aggregator.identity import ROLES, Context, Identity

Stamp: TypeAlias = tuple[tuple[int, int, int], ...]
CERTIFICATES = 4096  # parsed ones to remember: more than a federation has callers

log = structlog.get_logger()


class Gate:
    """The data port's certificate and the rule for callers: of this federation, valid now, not revoked."""

    def __init__(self, files: Files, revoked: Path | None, clock: Callable[[], datetime]) -> None:
        """Reads the files.

        Raises:
            InvalidInput: one cannot be used, or the certificate is not an aggregator's.
        """
        self._files, self._list, self._clock = files, revoked, clock
        self._stamp = _stamp(files.certificate, files.key, files.authority)
        self._own = _aggregators(load(files, clock()), files)
        self._listed: Stamp = _stamp(revoked) if revoked else ()
        self._revoked: Mapping[int, Mapping[str, str]] = read_revoked(revoked) if revoked else {}
        for warning in self._own.warnings:
            log.warning("certificate", sentence=warning)

    def credentials(self) -> grpc.ServerCredentials:
        """For a port: every caller must show a certificate of the CA, and each handshake sees the files of the day."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._own),
            self._changed,  # type: ignore[arg-type]  # None says "as before", which the stubs do not know
            require_client_authentication=True,
        )

    def identify(self, context: Context) -> Identity:
        """The caller, by its certificate; raises NotAuthenticated unless it may call now."""
        peer = self._peer(context)
        role = ROLES.get(peer.role)
        if role is None:
            raise NotAuthenticated(f"{peer.uri} may not call; a site, an operator or an observer may")
        return Identity(role=role, site=peer.name if role == "site" else "", name=peer.name)

    def expires(self) -> datetime:
        """When the data port's certificate does."""
        return self._own.ends

    def check(self, context: Context) -> None:
        """Raises NotAuthenticated unless the caller may call now."""
        self.identify(context)

    def _peer(self, context: Context) -> Peer:
        shown = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
        try:
            peer, serial, ends = _parsed(shown)
        except InvalidInput as error:
            raise NotAuthenticated(str(error)) from None
        if serial in self._refused():
            raise NotAuthenticated(f"the certificate of {peer.uri} with serial {serial_text(serial)} is revoked")
        if self._clock() > ends:
            raise NotAuthenticated(f"the certificate of {peer.uri} has expired, on {ends:%Y-%m-%d %H:%M} UTC")
        if peer.federation != self._own.peer.federation:
            raise NotAuthenticated(f"{peer.uri} is of another federation than {self._own.peer.federation!r}")
        return peer

    def _refused(self) -> Mapping[int, Mapping[str, str]]:
        if self._list is not None and (now := _stamp(self._list)) != self._listed:
            self._listed = now
            try:
                self._revoked = read_revoked(self._list)
                log.info("revoked certificates", count=len(self._revoked))
            except InvalidInput as error:  # the last list that could be read stays in force
                log.error("revoked certificates", sentence=str(error), count=len(self._revoked))
        return self._revoked

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        files = self._files
        if (now := _stamp(files.certificate, files.key, files.authority)) == self._stamp:
            return None
        self._stamp = now
        try:
            own = _aggregators(load(files, self._clock()), files)
        except InvalidInput as error:  # half of a new pair: the old one serves until the other half is there
            log.error("certificate not reloaded", sentence=str(error))
            return None
        self._own = own
        log.info("certificate reloaded", ends=own.ends.isoformat(), warnings=own.warnings)
        return _configuration(own)


def _aggregators(own: Credentials, files: Files) -> Credentials:
    if own.peer.role != "aggregator":
        raise InvalidInput(f"{files.certificate} is of {own.peer.uri}; the data port needs an aggregator's")
    return own


def _configuration(own: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(own.key, own.certificate)], own.authority)


def _stamp(*paths: Path) -> Stamp:
    """What changes when a file does; a missing one has a stamp too."""
    found = []
    for path in paths:
        try:
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_ino, state.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


@lru_cache(CERTIFICATES)
def _parsed(shown: bytes) -> tuple[Peer, int, datetime]:
    where = "the certificate that was shown"
    certificate = parse_certificates(shown, Path(where))[0]
    return peer_of(certificate, where), certificate.serial_number, certificate.not_valid_after_utc
