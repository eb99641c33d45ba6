"""`deerfield pki sign`: what a request asks for, checked; the certificate has nothing else of the request."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from deerfield.certificates import alternative_names, key_fingerprint, parse_request, public_key, read
from deerfield.errors import InvalidInput
from deerfield.identity import Address, Peer, parse_host, parse_peer
from pipelines.pki.pki_authority import Authority, entry, record_issued
from pipelines.pki.pki_request import check_hosts, names, subject, write_new
from pipelines.pki.pki_signer import BACKDATED, Signer, usage

RSA_BITS = 2048  # at least: what TLS libraries still accept


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A request that may be signed."""

    peer: Peer
    hosts: Sequence[str | Address]
    key: CertificatePublicKeyTypes


def read_wish(path: Path, federation: str) -> Wish:
    """What a request asks for.

    Raises:
        InvalidInput: it is no request, its signature is wrong, or it asks for what this CA signs for nobody.
    """
    request = parse_request(read(path), path)
    key = _checked_key(request, path)
    asked = list(alternative_names(request, str(path)))
    uris = [each.value for each in asked if isinstance(each, x509.UniformResourceIdentifier)]
    hosts = [each for each in asked if isinstance(each, x509.DNSName | x509.IPAddress)]
    if len(uris) != 1 or len(uris) + len(hosts) != len(asked):
        raise InvalidInput(
            f"{path} asks for {len(asked)} names, {len(uris)} of them URIs; deerfield signs exactly one URI, and host "
            "names beside an aggregator's"
        )
    peer = parse_peer(uris[0])
    if peer.federation != federation:
        raise InvalidInput(f"{path} is of federation {peer.federation!r}; this CA signs for {federation!r} alone")
    return Wish(peer=peer, hosts=check_hosts(peer, [parse_host(str(each.value)) for each in hosts]), key=key)


def signed_by_its_key(request: x509.CertificateSigningRequest) -> bool:
    """Does whoever made it have the key?"""
    try:
        return request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _checked_key(request: x509.CertificateSigningRequest, path: Path) -> CertificatePublicKeyTypes:
    key = public_key(request, str(path))
    if not signed_by_its_key(request):
        raise InvalidInput(f"{path} is not signed by its own key: it was changed on its way; ask for it again")
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS:
        return key
    raise InvalidInput(
        f"{path} has a key that deerfield does not sign; use ECDSA P-256, P-384, or RSA of {RSA_BITS} bits"
    )


def check_days(signer: Signer, days: int, now: datetime) -> None:
    """Raises InvalidInput unless a certificate of so many days ends before its CA."""
    left = (signer.certificate.not_valid_after_utc - now).days
    if not 1 <= days <= left:
        raise InvalidInput(f"--days {days} is outside 1 to {left}; the CA itself ends then")


def describe(wish: Wish, days: int) -> Sequence[str]:
    """What is about to be signed, line by line."""
    hosts = ", ".join(map(str, wish.hosts))
    return (
        f"identity    {wish.peer.uri}",
        *([f"hosts       {hosts}"] if hosts else []),
        f"valid for   {days} days",
        f"public key  sha256 {key_fingerprint(wish.key)}",
    )


def sign(authority: Authority, wish: Wish, out: Path, days: int, now: datetime) -> x509.Certificate:
    """Notes the certificate's serial, then writes the certificate.

    Raises:
        InvalidInput: `out` is there already or cannot be written, or `days` is out of range.
    """
    check_out(out)
    certificate = issue(authority.signer, wish, days, now)
    record_issued(authority.folder, entry(certificate, now))
    write_new(out.parent, {out: certificate.public_bytes(Encoding.PEM)})
    return certificate


def check_out(out: Path) -> None:
    """Raises InvalidInput if a certificate cannot go to `out`."""
    if out.exists() or out.is_symlink():
        raise InvalidInput(f"{out} is there already, and is never overwritten; name another file")
    if not out.parent.is_dir():
        raise InvalidInput(f"{out.parent} is no folder; make it first")


def issue(signer: Signer, wish: Wish, days: int, now: datetime) -> x509.Certificate:
    """The certificate, which nobody has noted yet; raises InvalidInput where `days` is out of range."""
    check_days(signer, days, now)
    server = wish.peer.role == "aggregator"
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    issuer = signer.certificate
    builder = x509.CertificateBuilder(issuer.subject, subject(wish.peer), wish.key, x509.random_serial_number())
    builder = builder.not_valid_before(max(now - BACKDATED, issuer.not_valid_before_utc))
    builder = builder.not_valid_after(now + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(usage("digital_signature"), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    builder = builder.add_extension(names(wish.peer, wish.hosts), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(wish.key), critical=False)
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    known = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return builder.add_extension(known, critical=False).sign(signer.key, SHA256())
