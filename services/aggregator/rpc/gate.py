"""Who is let in over TLS: the aggregator's own certificate, reread when its files change, and the callers' serials."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import grpc
import structlog

from deerfield.certificates import Credentials, Files, Stamp, hosts_of, parse_certificates, peer_of, stamp
from deerfield.errors import InvalidInput, NotAuthenticated
from deerfield.identity import Peer
from deerfield.renewal import Held
from deerfield.revocation import read_revoked, serial_text
from services.aggregator.rpc.identity import ROLES, Context, Identity

WARNING_S = 3600.0  # between two looks at whether a warning is due
CERTIFICATES = 4096  # parsed ones to remember: more than a federation has callers

log = structlog.get_logger()


class Gate:
    """The data port's certificate and the rule for callers: of this federation, valid now, not revoked."""

    def __init__(self, files: Files, revoked: Path | None, clock: Callable[[], datetime]) -> None:
        """Reads the files.

        Raises:
            InvalidInput: one cannot be used, or the certificate is not an aggregator's.
        """
        self._list, self._clock = revoked, clock
        self._held = Held(files, lambda own: _check_aggregators(own, files), clock)
        self._listed: Stamp = stamp(revoked) if revoked else ()
        self._revoked: Mapping[int, Mapping[str, str]] = read_revoked(revoked) if revoked else {}
        self._warn()

    def credentials(self) -> grpc.ServerCredentials:
        """For a port: every caller must show a certificate of the CA, and each handshake sees the files of the day."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._held.own),
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
        return self._held.own.ends

    def shown(self, context: Context) -> Mapping[str, str]:
        """Whom the caller's certificate names, whether or not it is let in: role, name and serial."""
        try:
            peer, serial, _ = _parsed(next(iter(context.auth_context().get("x509_pem_cert", ())), b""))
        except InvalidInput:
            return {"role": "unknown"}
        return {"role": peer.role, "name": peer.name, "federation": peer.federation, "serial": serial_text(serial)}

    def check(self, context: Context) -> None:
        """Raises NotAuthenticated unless the caller may call now."""
        self._warn()
        self.identify(context)

    async def warning(self) -> None:
        """Warns of the aggregator's own certificate also where nobody calls, until it is cancelled."""
        while True:
            await asyncio.sleep(WARNING_S)
            self._warn()

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
        if peer.federation != self._held.own.peer.federation:
            raise NotAuthenticated(f"{peer.uri} is of another federation than {self._held.own.peer.federation!r}")
        return peer

    def _refused(self) -> Mapping[int, Mapping[str, str]]:
        if self._list is not None and (now := stamp(self._list)) != self._listed:
            self._listed = now
            try:
                self._revoked = read_revoked(self._list)
                log.info("revoked certificates", count=len(self._revoked))
            except InvalidInput as error:  # the last list that could be read stays in force
                log.error("revoked certificates", sentence=str(error), count=len(self._revoked))
        return self._revoked

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            if not self._held.reread():
                return None
        except InvalidInput as error:  # half of a new pair: the old one serves until the other half is there
            log.error("certificate not reloaded", sentence=str(error))
            return None
        own = self._held.own
        log.info("certificate reloaded", ends=own.ends.isoformat(), warnings=own.warnings)
        return _configuration(own)

    def _warn(self) -> None:
        for warning in self._held.due_warnings():
            log.warning("certificate", sentence=warning)


def _check_aggregators(own: Credentials, files: Files) -> None:
    if own.peer.role != "aggregator":
        raise InvalidInput(f"{files.certificate} is of {own.peer.uri}; the data port needs an aggregator's")
    if not hosts_of(parse_certificates(own.certificate, files.certificate)[0]):
        raise InvalidInput(
            f"{files.certificate} names no host, so that no site could connect; request another with the names that "
            "sites reach the aggregator by (deerfield pki request --aggregator --host NAME)"
        )


def _configuration(own: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(own.key, own.certificate)], own.authority)


@lru_cache(CERTIFICATES)
def _parsed(shown: bytes) -> tuple[Peer, int, datetime]:
    where = "the certificate that was shown"
    certificate = parse_certificates(shown, Path(where))[0]
    return peer_of(certificate, where), certificate.serial_number, certificate.not_valid_after_utc
