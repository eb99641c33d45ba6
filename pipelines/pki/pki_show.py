"""`deerfield pki show`: what a certificate, a request, a private key or a CA's folder is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from deerfield.certificates import (
    Named,
    days_left,
    ending,
    hosts_of,
    is_authority,
    key_fingerprint,
    open_to_others,
    parse_certificates,
    parse_key,
    parse_request,
    peer_of,
    public_key,
    read,
)
from deerfield.errors import InvalidInput
from deerfield.revocation import read_revoked, serial_text
from pipelines.pki import pki_authority
from pipelines.pki.pki_signing import signed_by_its_key

Facts: TypeAlias = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What was found, in the order to print it, and what to warn of."""

    facts: Facts
    warnings: tuple[str, ...] = ()


def look(path: Path, now: datetime) -> Shown:
    """What `path` is; raises InvalidInput where it is nothing of a PKI."""
    if path.is_dir():
        return _folder(path, now)
    data = read(path)
    if b"PRIVATE KEY-----" in data:
        return _key(path, data)
    if b"CERTIFICATE REQUEST-----" in data:
        return _request(path, data)
    if b"-----BEGIN CERTIFICATE-----" in data:
        return _certificate(path, parse_certificates(data, path)[0], now)
    raise InvalidInput(f"{path} is no certificate, request or private key in PEM form, and no folder of a CA")


def _certificate(path: Path, certificate: x509.Certificate, now: datetime) -> Shown:
    authority = is_authority(certificate)
    identity, nameless = (certificate.subject.rfc4514_string(), ()) if authority else _identity(certificate, path)
    facts: dict[str, str | int | bool] = {
        "kind": "CA certificate" if authority else "certificate",
        "identity": identity,
        "hosts": "" if authority or nameless else ", ".join(hosts_of(certificate)),
        "serial": serial_text(certificate.serial_number),
        "issuer": certificate.issuer.rfc4514_string(),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "days_left": days_left(certificate, now),
        "fingerprint": certificate.fingerprint(SHA256()).hex(),
        "public_key": key_fingerprint(public_key(certificate, str(path))),
    }
    early = now < certificate.not_valid_before_utc
    warnings = (f"{path} is not valid yet; check this machine's clock",) * early
    return Shown(facts=facts, warnings=(*nameless, *warnings, *ending(certificate, str(path), now)))


def _request(path: Path, data: bytes) -> Shown:
    request = parse_request(data, path)
    identity, nameless = _identity(request, path)
    proven = signed_by_its_key(request)
    facts: Facts = {
        "kind": "certificate signing request",
        "identity": identity,
        "hosts": "" if nameless else ", ".join(hosts_of(request)),
        "signed_by_its_key": proven,
        "public_key": key_fingerprint(public_key(request, str(path))),
    }
    warnings = () if proven else (f"{path} is not signed by its own key; ask for it again",)
    return Shown(facts=facts, warnings=(*nameless, *warnings))


def _key(path: Path, data: bytes) -> Shown:
    facts: Facts = {
        "kind": "private key",
        "mode": f"{path.stat().st_mode & 0o777:04o}",
        "public_key": key_fingerprint(parse_key(data, path).public_key()),
    }
    return Shown(facts=facts, warnings=open_to_others(path))


def _folder(path: Path, now: datetime) -> Shown:
    certificate, federation = pki_authority.load_public(path)
    of_ca = _certificate(path / pki_authority.CERTIFICATE, certificate, now)
    key = path / pki_authority.KEY
    facts = {
        **of_ca.facts,
        "kind": "CA folder",
        "federation": federation,
        "issued": len(pki_authority.issued(path)),
        "revoked": len(read_revoked(path / pki_authority.REVOKED)),
    }
    missing = (f"{key} is missing: this folder signs nothing",)
    return Shown(facts=facts, warnings=(*of_ca.warnings, *(open_to_others(key) if key.exists() else missing)))


def _identity(holder: Named, path: Path) -> tuple[str, tuple[str, ...]]:
    try:
        return peer_of(holder, str(path)).uri, ()
    except InvalidInput as error:
        return "", (str(error),)
