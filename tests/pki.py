"""A consortium's CA and certificates, made by the code that makes real ones; and requests that it would not make."""

from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from deerfield.certificates import Files, utc_now
from deerfield.identity import Peer
from pipelines.pki import pki_authority, pki_request, pki_signing

NOW = utc_now()
FEDERATION = "lungs"
NORTH = Peer(federation=FEDERATION, role="site", name="north")
AGGREGATOR = Peer(federation=FEDERATION, role="aggregator")


def authority(folder: Path, federation: str = FEDERATION, now=NOW) -> pki_authority.Authority:
    pki_authority.make(folder, federation, now)
    return pki_authority.load(folder, now)


def files(ca: pki_authority.Authority, folder: Path, peer: Peer = NORTH, *, days=365, now=NOW, hosts=()) -> Files:
    """The files of a peer with a certificate of `ca`, in `folder`."""
    made = pki_request.request(folder, peer, hosts)
    wish = pki_signing.read_wish(made.request, ca.federation)
    pki_signing.sign(ca, wish, folder / "tls.crt", days, now)
    return Files(certificate=folder / "tls.crt", key=made.key, authority=ca.folder / "ca.crt")


def request(path: Path, *names: x509.GeneralName, key=None, extensions=()) -> Path:
    """A request for `names`, as another tool would make it."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    path.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return path


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def foreign(folder: Path, *names: x509.GeneralName) -> Files:
    """Files with a self-signed certificate for `names`, as another PKI might issue it; it is its own CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 7, NOW, NOW + timedelta(days=90))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    folder.mkdir()
    (folder / "tls.crt").write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(pki_request.key_pem(key))
    (folder / "tls.key").chmod(0o600)
    return Files(certificate=folder / "tls.crt", key=folder / "tls.key", authority=folder / "tls.crt")
