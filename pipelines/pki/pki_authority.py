"""A consortium's own CA: a folder with its key, its certificate, what it has issued, and what it has revoked."""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from deerfield import durable
from deerfield.certificates import (
    check_valid,
    is_authority,
    open_to_others,
    parse_certificates,
    parse_key,
    public_key,
    read,
    spki,
)
from deerfield.errors import InvalidInput
from deerfield.identity import check_name
from deerfield.revocation import parse_serial, read_revoked, serial_text
from pipelines.pki.pki_request import key_pem, write_new

CERTIFICATE, KEY, ISSUED, REVOKED = "ca.crt", "ca.key", "issued.jsonl", "revoked.json"
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
class Authority:
    """A CA that can sign."""

    folder: Path
    federation: str
    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes = field(repr=False)
    warnings: tuple[str, ...] = ()  # sentences about its key's file


def make(folder: Path, federation: str, now: datetime) -> x509.Certificate:
    """Makes a CA in `folder`.

    Raises:
        InvalidInput: the name breaks the rule, or there is a CA already, or the folder cannot be used.
    """
    check_name("federation", federation)
    key = ec.generate_private_key(ec.SECP256R1())
    named = ((NameOID.ORGANIZATION_NAME, federation), (NameOID.COMMON_NAME, "deerfield CA"))
    subject = x509.Name([x509.NameAttribute(oid, text) for oid, text in named])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - BACKDATED).not_valid_after(now + timedelta(days=365 * YEARS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    certificate = builder.sign(key, SHA256())
    write_new(
        folder,
        {
            folder / KEY: key_pem(key),
            folder / CERTIFICATE: certificate.public_bytes(Encoding.PEM),
            folder / ISSUED: b"",
            folder / REVOKED: b"[]\n",
        },
    )
    return certificate


def usage(*uses: str) -> x509.KeyUsage:
    """What a key may be used for, and nothing else."""
    return x509.KeyUsage(**{use: use in uses for use in USES})


def load(folder: Path, now: datetime) -> Authority:
    """The CA in `folder`; raises InvalidInput where there is none that can sign at `now`."""
    certificate, federation = load_public(folder)
    check_valid(certificate, str(folder / CERTIFICATE), now)
    key = parse_key(read(folder / KEY), folder / KEY)
    if spki(key.public_key()) != spki(public_key(certificate, str(folder / CERTIFICATE))):
        raise InvalidInput(f"{folder / KEY} is not the key of {folder / CERTIFICATE}; restore both from one copy")
    warnings = open_to_others(folder / KEY)
    return Authority(folder=folder, federation=federation, certificate=certificate, key=key, warnings=warnings)


def load_public(folder: Path) -> tuple[x509.Certificate, str]:
    """The CA's certificate and its federation; raises InvalidInput where `pki init` made none."""
    if not (folder / CERTIFICATE).is_file():
        raise InvalidInput(f"{folder} holds no CA ({CERTIFICATE} is missing); make one with deerfield pki init")
    certificate = parse_certificates(read(folder / CERTIFICATE), folder / CERTIFICATE)[0]
    named = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if not is_authority(certificate) or len(named) != 1:
        raise InvalidInput(
            f"{folder / CERTIFICATE} is no CA certificate of deerfield pki init; use your PKI's own tools"
        )
    federation = str(named[0].value)
    check_name("federation", federation)
    return certificate, federation


def record_issued(folder: Path, entry: dict[str, object]) -> None:
    """Notes a certificate, before there is one. Raises InvalidInput if the note cannot be made to last."""
    try:
        durable.appended(folder / ISSUED, json.dumps(entry, sort_keys=True).encode())
    except OSError as error:
        raise InvalidInput(f"{folder / ISSUED} cannot be written ({error.strerror}); nothing was signed") from None


def issued(folder: Path) -> Sequence[dict[str, str]]:
    """What the CA has signed; a line that a crash tore is of a certificate that never was."""
    found = []
    try:
        lines = (folder / ISSUED).read_bytes().splitlines()
    except OSError as error:
        raise InvalidInput(f"{folder / ISSUED} cannot be read ({error.strerror}); restore it from a copy") from None
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Did this CA sign it?"""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def serial_of(text: str, folder: Path) -> int:
    """The serial that a person means by a number or by a certificate's file.

    Raises:
        InvalidInput: it is neither, or is not of this CA.
    """
    if (path := Path(text)).is_file():
        certificate, (authority, _) = parse_certificates(read(path), path)[0], load_public(folder)
        if certificate == authority:
            raise InvalidInput(f"{path} is the CA itself; to end it, give every party the certificate of a new one")
        if not issued_by(certificate, authority):
            raise InvalidInput(f"{path} was not issued by the CA in {folder}")
        return certificate.serial_number
    serial = parse_serial(text)
    if serial_text(serial) not in {entry.get("serial") for entry in issued(folder)}:
        raise InvalidInput(f"serial {serial_text(serial)} is not in {folder / ISSUED}; give the certificate's file")
    return serial


def revoke(folder: Path, serial: int, reason: str, now: datetime) -> bool:
    """Adds a serial to the list that the aggregator reads; False if it is in it already, with its first reason.

    Raises:
        InvalidInput: there is no reason, or the list cannot be read or written.
    """
    if not reason.strip():
        raise InvalidInput("--reason is empty; say in a few words why, it stands in the list")
    try:
        with _alone(folder):
            revoked = {serial_text(each): dict(why) for each, why in read_revoked(folder / REVOKED).items()}
            if serial_text(serial) in revoked:
                return False
            revoked[serial_text(serial)] = {"reason": reason.strip(), "time": now.isoformat()}
            entries = [{"serial": each, **why} for each, why in revoked.items()]
            durable.replaced(folder / REVOKED, (json.dumps(entries, indent=2) + "\n").encode())
    except OSError as error:
        raise InvalidInput(f"{folder / REVOKED} cannot be written ({error.strerror}); nothing was revoked") from None
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
