"""Certificates, requests and TLS keys in PEM files: read, and checked against each other.

Any PKI serves: of a certificate, deerfield asks that it holds exactly one identity (`deerfield.identity`).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias, TypeVar, cast, get_args

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificatePublicKeyTypes,
    PublicKeyTypes,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from deerfield.errors import InvalidInput
from deerfield.identity import SCHEME, Peer, parse_peer
from deerfield.keyfile import OTHERS, WORLD

WARN_DAYS = 30  # before the end of a certificate
FILE_BYTES = 8 << 20  # a bundle of thousands of certificates, or a list of as many serials, is smaller

Named: TypeAlias = x509.Certificate | x509.CertificateSigningRequest
Parsed = TypeVar("Parsed")
Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What one end of a TLS connection is configured with."""

    certificate: Path  # its own, intermediate ones after it
    key: Path
    authority: Path  # the CA certificates that the other end is checked against


def given_files(certificate: Path | None, key: Path | None, authority: Path | None) -> Files | None:
    """The files of the three flags, or None; raises InvalidInput for some without the others."""
    if certificate and key and authority:
        return Files(certificate=certificate, key=key, authority=authority)
    if certificate or key or authority:
        raise InvalidInput(
            "--tls-certificate, --tls-key and --tls-ca belong together; give all three, or none for an aggregator on "
            "loopback"
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the files hold, checked."""

    peer: Peer
    serial: int
    ends: datetime
    certificate: bytes  # PEM, as all three
    key: bytes = field(repr=False)
    authority: bytes
    warnings: tuple[str, ...]


def load(files: Files, now: datetime) -> Credentials:
    """Reads the three files and holds them against each other.

    Raises:
        InvalidInput: a file cannot be read or is something else, the key is of another certificate, the certificate
            has no identity or is not valid now, or no CA is.
    """
    certificate, key, authority = read(files.certificate), read(files.key), read(files.authority)  # once: they rotate
    own = parse_certificates(certificate, files.certificate)[0]
    peer = peer_of(own, str(files.certificate))
    check_valid(own, str(files.certificate), now)
    if spki(parse_key(key, files.key).public_key()) != spki(public_key(own, str(files.certificate))):
        raise InvalidInput(f"{files.key} is not the key of {files.certificate}; give the pair that was made together")
    authorities = [each for each in parse_certificates(authority, files.authority) if is_authority(each)]
    if not authorities:
        raise InvalidInput(f"{files.authority} holds no CA certificate; ask the consortium's operator for ca.crt")
    if len(authorities) == 1:
        check_valid(authorities[0], str(files.authority), now)
    return Credentials(
        peer=peer,
        serial=own.serial_number,
        ends=own.not_valid_after_utc,
        certificate=certificate,
        key=key,
        authority=authority,
        warnings=(*ending(own, str(files.certificate), now), *open_to_others(files.key)),
    )


def peer_of(holder: Named, where: str) -> Peer:
    """Whom a certificate or request speaks for.

    Raises:
        InvalidInput: it has no subject alternative name, or not exactly one deerfield identity in it.
    """
    names = alternative_names(holder, where).get_values_for_type(x509.UniformResourceIdentifier)
    found = [uri for uri in names if uri.lower().startswith(SCHEME)]
    if len(found) != 1:
        raise InvalidInput(
            f"{where} holds {len(found)} deerfield identities ({SCHEME}...) in its names, not one; request another "
            "(deerfield pki request)"
        )
    return parse_peer(found[0])


def hosts_of(holder: Named) -> list[str]:
    """The names and addresses of machines among its alternative names; none where these cannot be read."""
    try:
        names = holder.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    return [str(each.value) for each in names if isinstance(each, x509.DNSName | x509.IPAddress)]


def alternative_names(holder: Named, where: str) -> x509.SubjectAlternativeName:
    """Its subject alternative names; raises InvalidInput if it has none that can be read."""
    try:
        return holder.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise InvalidInput(f"{where} has no subject alternative name, so it names nobody; request another") from None
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise InvalidInput(f"{where} has extensions that cannot be read; request another") from None


def public_key(holder: Named, where: str) -> CertificatePublicKeyTypes:
    """The key that it is about; raises InvalidInput for one of a kind that is not known."""
    try:
        return holder.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput(f"{where} has a key of an unknown kind; use ECDSA P-256") from None


def is_authority(certificate: x509.Certificate) -> bool:
    """May it sign others?"""
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False


def check_valid(certificate: x509.Certificate, where: str, now: datetime) -> None:
    """Raises InvalidInput unless the certificate is valid at `now`."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        raise InvalidInput(f"{where} has expired, on {ends:%Y-%m-%d %H:%M} UTC; request another")
    if now < begins:
        raise InvalidInput(f"{where} is valid from {begins:%Y-%m-%d %H:%M} UTC on; check this machine's clock")


def days_left(certificate: x509.Certificate, now: datetime) -> int:
    """Whole days until it ends; below 0 when it has."""
    return (certificate.not_valid_after_utc - now) // timedelta(days=1)


def ending(certificate: x509.Certificate, where: str, now: datetime) -> tuple[str, ...]:
    """A sentence if the certificate ends soon or has ended."""
    left, end = days_left(certificate, now), f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    if left < 0:
        return (f"{where} has expired, on {end}; request another",)
    return (f"{where} ends in {left} days, on {end}; request another now",) if left < WARN_DAYS else ()


def open_to_others(key: Path) -> tuple[str, ...]:
    """A sentence if others than its owner may use the key; no error, because a mounted secret cannot always help it.

    A Secret of Kubernetes is root's, and a pod reads it as its group (fsGroup): that is no others.
    """
    try:
        found = key.stat()
    except OSError as error:  # it was there a moment ago, and is being replaced
        raise InvalidInput(f"{key} cannot be read ({error.strerror})") from None
    mode, own = found.st_mode & 0o777, found.st_uid == os.geteuid()
    return (f"{key} is open to others (mode {mode:04o}), and is a private key; run chmod 600 on it",) * bool(
        mode & (OTHERS if own else WORLD)
    )


def parse_certificates(data: bytes, path: Path) -> list[x509.Certificate]:
    """The certificates of PEM data, one at least; raises InvalidInput, which names `path`."""
    return _parsed(data, path, "certificate", x509.load_pem_x509_certificates)


def parse_request(data: bytes, path: Path) -> x509.CertificateSigningRequest:
    """A certificate signing request (PEM); raises InvalidInput, which names `path`."""
    return _parsed(data, path, "certificate signing request", x509.load_pem_x509_csr)


def parse_key(data: bytes, path: Path) -> CertificateIssuerPrivateKeyTypes:
    """A private key that can sign (PEM, without a password); raises InvalidInput, which names `path`."""
    key = _parsed(data, path, "private key without a password", lambda pem: load_pem_private_key(pem, password=None))
    if not isinstance(key, get_args(CertificateIssuerPrivateKeyTypes)):
        raise InvalidInput(f"{path} holds a key that cannot sign, so it can belong to no certificate of TLS")
    return cast(CertificateIssuerPrivateKeyTypes, key)


def _parsed(data: bytes, path: Path, what: str, parse: Callable[[bytes], Parsed]) -> Parsed:
    try:
        return parse(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(f"{path} holds no {what} in PEM form") from None


def read(path: Path) -> bytes:
    """A small file; raises InvalidInput if it cannot be read or is no such file."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror}); see that it is there and that this user may read it"
        ) from None
    if len(data) > FILE_BYTES:
        raise InvalidInput(f"{path} is over {FILE_BYTES >> 20} MiB; no file of a PKI is")
    return data


def stamp(*paths: Path) -> Stamp:
    """What changes when a file does; a missing one has a stamp too."""
    found = []
    for path in paths:
        try:
            state = path.stat()
            found.append((state.st_mtime_ns, state.st_ino, state.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def spki(key: PublicKeyTypes) -> bytes:
    """A public key as it stands in certificates (DER)."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_fingerprint(key: PublicKeyTypes) -> str:
    """sha256 of a public key: the same for the key, its request and every certificate of it."""
    return sha256(spki(key)).hexdigest()


def utc_now() -> datetime:
    """Now, without the part of a second that certificates do not have."""
    return datetime.now(UTC).replace(microsecond=0)
