"""What stands in the Secrets of an installation: a line for each, and what a person should mend."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from cryptography import x509

from deerfield.certificates import ending, hosts_of, parse_certificates, parse_key, peer_of, public_key, spki
from deerfield.errors import InvalidInput
from deerfield.identity import Peer, parse_host
from deerfield.revocation import serial_text
from pipelines.cluster.kubernetes_secrets import Secret
from pipelines.cluster.wanted import Entry, Wanted
from pipelines.pki.pki_authority import CERTIFICATE, issued_by
from pipelines.pki.pki_signer import parse_public


def describe(secret: Secret) -> str:
    """Name and content of a Secret, without what is secret in it."""
    return f"{secret.name}: {'; '.join(_described(secret)) or 'nothing that deerfield knows'}"


def _described(secret: Secret) -> Iterator[str]:
    found = certificates(secret)
    for name, certificate in found.items():
        until = f"until {certificate.not_valid_after_utc:%Y-%m-%d}"
        if name == CERTIFICATE:
            if len(found) == 1:  # beside others it is theirs
                yield f"the CA {certificate.subject.rfc4514_string()}, {until}"
            continue
        hosts = ", ".join(hosts_of(certificate))
        serial = serial_text(certificate.serial_number)
        yield f"{_identity(certificate)}{' at ' if hosts else ''}{hosts}, {until}, serial {serial}"
    if "password" in secret.data:
        yield f"a password of {secret.data.get('username', b'').decode(errors='replace')}"


def certificates(secret: Secret) -> dict[str, x509.Certificate]:
    """The certificates in a Secret, by key, as far as they can be read."""
    found = {}
    for name in sorted(name for name in secret.data if name.endswith(".crt")):
        try:
            found[name] = parse_certificates(secret.data[name], Path(name))[0]
        except InvalidInput:
            continue
    return found


def warnings(entry: Entry, wanted: Wanted, held: Mapping[str, Secret], now: datetime) -> Iterator[str]:
    """What is wrong with the Secret of an entry, a sentence each; nothing where it is not held."""
    if (secret := held.get(entry.secret)) is None:
        return
    try:
        if entry.kind == "ca":
            yield from _of_authority(secret, wanted.federation, now)
        elif entry.kind == "password":
            yield from _of_password(secret, entry)
        else:
            authority = wanted.authority and held.get(wanted.authority.secret)
            yield from _of_certificates(secret, entry, wanted.federation, now)
            if authority and secret.data.get(CERTIFICATE) != authority.data.get(CERTIFICATE):
                yield f"Secret {secret.name} trusts another CA ({CERTIFICATE}) than the one in Secret {authority.name}"
    except InvalidInput as error:
        yield str(error)


def _of_authority(secret: Secret, federation: str, now: datetime) -> Iterator[str]:
    certificate, found = parse_public(secret.part(CERTIFICATE), secret.place(CERTIFICATE))
    if found != federation:
        yield f"Secret {secret.name} holds the CA of federation {found!r}, and {federation!r} is wanted"
    yield from ending(certificate, f"the CA in Secret {secret.name}", now)


def _of_password(secret: Secret, entry: Entry) -> Iterator[str]:
    secret.part("password")
    if (username := secret.part("username").decode(errors="replace")) != entry.username:
        yield f"Secret {secret.name} is of username {username!r}, and {entry.username!r} is wanted"


def _of_certificates(secret: Secret, entry: Entry, federation: str, now: datetime) -> Iterator[str]:
    authority = parse_certificates(secret.part(CERTIFICATE), secret.place(CERTIFICATE))[0]
    for name, peer in entry.peers(federation).items():
        where = f"Secret {secret.name}: {name}.crt"
        certificate = parse_certificates(secret.part(f"{name}.crt"), Path(where))[0]
        key = parse_key(secret.part(f"{name}.key"), secret.place(f"{name}.key"))
        if spki(key.public_key()) != spki(public_key(certificate, where)):
            yield f"{where} is not the certificate of {name}.key"
        if not issued_by(certificate, authority):
            yield f"{where} was not signed by the {CERTIFICATE} beside it"
        yield from _unlike(certificate, peer, entry, where)
        yield from ending(certificate, where, now)


def _unlike(certificate: x509.Certificate, peer: Peer, entry: Entry, where: str) -> Iterator[str]:
    """How a certificate differs from the one that is wanted."""
    if (found := _identity(certificate)) != peer.uri:
        yield f"{where} is of {found}, and {peer.uri} is wanted"
    there = set(hosts_of(certificate))
    if absent := [host for host in entry.hosts if str(parse_host(host)) not in there]:
        yield f"{where} is not for {', '.join(absent)}, only for {', '.join(sorted(there)) or 'no host'}"


def _identity(certificate: x509.Certificate) -> str:
    try:
        return peer_of(certificate, "it").uri
    except InvalidInput:
        return "nobody that deerfield knows"
