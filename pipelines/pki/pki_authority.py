"""A consortium's own CA: a folder with its key, its certificate, what it has issued, and what it has revoked."""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from deerfield import durable
from deerfield.certificates import (
    hosts_of,
    key_fingerprint,
    open_to_others,
    parse_certificates,
    peer_of,
    public_key,
    read,
)
from deerfield.errors import InvalidInput
from deerfield.revocation import parse_serial, read_revoked, serial_text
from pipelines.pki import pki_signer
from pipelines.pki.pki_request import key_pem, write_new
from pipelines.pki.pki_signer import Signer

CERTIFICATE, KEY, ISSUED, REVOKED = "ca.crt", "ca.key", "issued.jsonl", "revoked.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A CA that can sign."""

    folder: Path
    federation: str
    signer: Signer
    warnings: tuple[str, ...] = ()  # sentences about its key's file


def make(folder: Path, federation: str, now: datetime) -> x509.Certificate:
    """Makes a CA in `folder`.

    Raises:
        InvalidInput: the name breaks the rule, or there is a CA already, or the folder cannot be used.
    """
    certificate, key = pki_signer.generate(federation, now)
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


def load(folder: Path, now: datetime) -> Authority:
    """The CA in `folder`; raises InvalidInput where there is none that can sign at `now`."""
    certificate, key = folder / CERTIFICATE, folder / KEY
    signer, federation = pki_signer.parse(_certificate(folder), read(key), (certificate, key), now)
    return Authority(folder=folder, federation=federation, signer=signer, warnings=open_to_others(key))


def load_public(folder: Path) -> tuple[x509.Certificate, str]:
    """The CA's certificate and its federation; raises InvalidInput where `pki init` made none."""
    return pki_signer.parse_public(_certificate(folder), folder / CERTIFICATE)


def _certificate(folder: Path) -> bytes:
    if not (folder / CERTIFICATE).is_file():
        raise InvalidInput(f"{folder} holds no CA ({CERTIFICATE} is missing); make one with deerfield pki init")
    return read(folder / CERTIFICATE)


def entry(certificate: x509.Certificate, now: datetime) -> dict[str, object]:
    """What is noted of a certificate that the CA has signed."""
    peer = peer_of(certificate, "the certificate")
    return {
        "serial": serial_text(certificate.serial_number),
        "identity": peer.uri,
        "hosts": hosts_of(certificate),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "public_key": key_fingerprint(public_key(certificate, peer.uri)),
        "time": now.isoformat(),
    }


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
