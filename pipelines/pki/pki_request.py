"""`deerfield pki request`: a private key that never leaves its folder, and a request for a certificate of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from deerfield import durable
from deerfield.certificates import key_fingerprint
from deerfield.errors import InvalidInput
from deerfield.identity import Address, Peer, PeerRole, make_peer, parse_host

KEY, REQUEST = "tls.key", "tls.csr"  # as Kubernetes names them, with tls.crt and ca.crt


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """What was made."""

    key: Path
    request: Path
    peer: Peer
    public_key: str  # sha256


def who(federation: str, aggregator: bool, site: str | None, operator: str | None, observer: str | None) -> Peer:
    """The one peer that was asked for; raises InvalidInput for none or several."""
    named: dict[PeerRole, str | None] = {"site": site, "operator": operator, "observer": observer}
    asked = [(role, name) for role, name in named.items() if name is not None]
    if aggregator:
        asked.append(("aggregator", ""))
    if len(asked) != 1:
        raise InvalidInput(f"{len(asked)} owners are named; give one of --site, --aggregator, --operator, --observer")
    return make_peer(federation, asked[0][0], asked[0][1] or "")


def request(folder: Path, peer: Peer, hosts: Sequence[str]) -> Requested:
    """Makes the key and the request.

    Raises:
        InvalidInput: hosts are missing, wrong, or not for this role; the folder has a key already or cannot be used.
    """
    checked = check_hosts(peer, [parse_host(host) for host in hosts])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(peer))
    csr = builder.add_extension(names(peer, checked), critical=False).sign(key, SHA256())
    files = {folder / KEY: key_pem(key), folder / REQUEST: csr.public_bytes(Encoding.PEM)}
    write_new(folder, files)
    return Requested(
        key=folder / KEY, request=folder / REQUEST, peer=peer, public_key=key_fingerprint(key.public_key())
    )


def check_hosts(peer: Peer, hosts: Sequence[str | Address]) -> tuple[str | Address, ...]:
    """The hosts, each once; raises InvalidInput where they do not fit the role."""
    if peer.role == "aggregator" and not hosts:
        raise InvalidInput("an aggregator's certificate needs the names that sites reach it by; give --host")
    if peer.role != "aggregator" and hosts:
        raise InvalidInput(f"host names are for an aggregator; a certificate of role {peer.role} has none")
    return tuple(dict.fromkeys(hosts))


def subject(peer: Peer) -> x509.Name:
    """For people to read; who the owner is stands in the alternative names alone."""
    names = ((NameOID.ORGANIZATION_NAME, peer.federation), (NameOID.COMMON_NAME, peer.name or peer.role))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in names])


def names(peer: Peer, hosts: Sequence[str | Address]) -> x509.SubjectAlternativeName:
    """The alternative names of a request or certificate: the peer's URI, and an aggregator's hosts."""
    return x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier(peer.uri),
            *(x509.DNSName(host) if isinstance(host, str) else x509.IPAddress(host) for host in hosts),
        ]
    )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as a file holds it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_new(folder: Path, files: dict[Path, bytes]) -> None:
    """Makes all of the files, readable by their owner alone, or none.

    Raises:
        InvalidInput: one is there, or they cannot be made to last.
    """
    for path in files:
        if path.exists() or path.is_symlink():
            raise InvalidInput(f"{path} is there already, and is never overwritten; name another folder")
    made: list[Path] = []
    try:
        durable.make_folder(folder)
        for path, data in files.items():
            made.append(path)
            durable.create(path, data)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise InvalidInput(f"{folder} cannot be used ({error.strerror}); name a folder that you may write to") from None
    if any(path.read_bytes() != data for path, data in files.items()):
        raise InvalidInput(f"another process wrote to {folder} just now; empty it and try again")
