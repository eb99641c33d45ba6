"""A consortium's CA as values: made and read without any file, so that its key can stay in memory."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from deerfield.certificates import check_valid, is_authority, parse_certificates, parse_key, public_key, spki
from deerfield.errors import InvalidInput
from deerfield.identity import check_name

YEARS = 10  # of a consortium; its members' certificates are renewed under it
BACKDATED = timedelta(minutes=10)  # for clocks that are behind
USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A CA's certificate and its key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = field(repr=False)


def generate(federation: str, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A new CA; raises InvalidInput for a name that breaks the rule."""
    check_name("federation", federation)
    key = ec.generate_private_key(ec.SECP256R1())
    named = ((NameOID.ORGANIZATION_NAME, federation), (NameOID.COMMON_NAME, "deerfield CA"))
    subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in named])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - BACKDATED).not_valid_after(now + timedelta(days=365 * YEARS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, SHA256()), key


def parse(certificate: bytes, key: bytes, places: tuple[Path, Path], now: datetime) -> tuple[Signer, str]:
    """The CA of two PEM texts, and its federation; `places` name them in errors.

    Raises:
        InvalidInput: they are none that can sign at `now`.
    """
    found, federation = parse_public(certificate, places[0])
    check_valid(found, str(places[0]), now)
    signing = parse_key(key, places[1])
    if spki(signing.public_key()) != spki(public_key(found, str(places[0]))):
        raise InvalidInput(f"{places[1]} is not the key of {places[0]}; restore both from one copy")
    return Signer(certificate=found, key=signing), federation


def parse_public(certificate: bytes, place: Path) -> tuple[x509.Certificate, str]:
    """A CA's certificate and its federation; raises InvalidInput for one that `generate` has not made."""
    found = parse_certificates(certificate, place)[0]
    named = found.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if not is_authority(found) or len(named) != 1:
        raise InvalidInput(f"{place} is no CA certificate of deerfield pki init; use your PKI's own tools")
    federation = str(named[0].value)
    check_name("federation", federation)
    return found, federation


def usage(*uses: str) -> x509.KeyUsage:
    """What a key may be used for, and nothing else."""
    return x509.KeyUsage(**{use: use in uses for use in USES})
