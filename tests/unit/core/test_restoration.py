"""An operator's word on a restore: what is believed, and why anything else is not."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from deerfield.certificates import Files, load
from deerfield.errors import NotRestored
from deerfield.identity import Peer
from deerfield.restoration import Trust, check, sign
from pipelines.pki import pki_request
from tests import pki
from tests.pki import FEDERATION, NOW

ADA = Peer(federation=FEDERATION, role="operator", name="ada")
RUNS = {"run-a": 1_800_000_000, "run-b": 7}
BACKUP = "b" * 64


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return pki.authority(tmp_path_factory.mktemp("pki") / "ca")


@pytest.fixture(scope="module")
def ada(ca, tmp_path_factory):
    return load(pki.files(ca, tmp_path_factory.mktemp("pki") / "ada", ADA), NOW)


@pytest.fixture
def trust(ca):
    return Trust(federation=FEDERATION, authority=(ca.folder / "ca.crt").read_bytes())


def test_an_operators_word_is_believed_for_the_runs_and_incarnations_that_it_names(ada, trust):
    signed = sign(ada, RUNS, BACKUP, NOW)
    assert [check(signed, run, number, trust, NOW) for run, number in RUNS.items()] == ["ada", "ada"]
    assert json.loads(signed.statement) == {
        "federation": FEDERATION,
        "operator": "ada",
        "backup": BACKUP,
        "time": NOW.isoformat(),
        "runs": RUNS,
    }
    for run, number in (("run-a", 7), ("run-c", 7), ("run-b", 8)):
        with pytest.raises(NotRestored, match="is about other runs or incarnations"):
            check(signed, run, number, trust, NOW)


def test_without_a_word_or_without_a_ca_nobody_is_believed(ada, trust):
    with pytest.raises(NotRestored, match="no operator has signed"):
        check(None, "run-b", 7, trust, NOW)
    with pytest.raises(NotRestored, match="no CA to check"):
        check(sign(ada, RUNS, BACKUP, NOW), "run-b", 7, None, NOW)


@pytest.mark.parametrize("role", ["site", "observer", "aggregator"])
def test_nobody_but_an_operator_of_the_federation_is_believed(ca, tmp_path, trust, role):
    peer = Peer(federation=FEDERATION, role=role, name="" if role == "aggregator" else "x")
    hosts = ("127.0.0.1",) if role == "aggregator" else ()
    signed = sign(load(pki.files(ca, tmp_path / "x", peer, hosts=hosts), NOW), RUNS, BACKUP, NOW)
    with pytest.raises(NotRestored):
        check(signed, "run-b", 7, trust, NOW)


def test_an_operator_of_another_federation_or_ca_is_not_believed(ca, ada, tmp_path, trust):
    elsewhere = replace(ca, federation="hearts")
    other = pki.files(elsewhere, tmp_path / "hearts", replace(ADA, federation="hearts"))
    with pytest.raises(NotRestored, match="no operator of 'lungs'"):
        check(sign(load(other, NOW), RUNS, BACKUP, NOW), "run-b", 7, trust, NOW)
    foreign = pki.files(pki.authority(tmp_path / "ca"), tmp_path / "ada", ADA)
    with pytest.raises(NotRestored, match="not to be believed"):
        check(sign(load(foreign, NOW), RUNS, BACKUP, NOW), "run-b", 7, trust, NOW)
    selfmade = pki.foreign(tmp_path / "self", pki.uri(ADA.uri))
    with pytest.raises(NotRestored, match="not to be believed"):
        check(sign(load(selfmade, NOW), RUNS, BACKUP, NOW), "run-b", 7, trust, NOW)


def test_what_was_changed_or_has_expired_is_not_believed(ada, trust):
    signed = sign(ada, RUNS, BACKUP, NOW)
    more = replace(signed, statement=signed.statement.replace('"run-b": 7', '"run-b": 8'))
    for changed in (more, replace(signed, signature="00" * 70), replace(signed, certificates="no PEM")):
        with pytest.raises(NotRestored, match="not to be believed"):
            check(changed, "run-b", 8, trust, NOW)
    with pytest.raises(NotRestored, match="not to be believed"):
        check(signed, "run-b", 7, trust, NOW + timedelta(days=366))


def test_another_certificate_of_the_same_operator_does_not_make_the_signature(ca, ada, tmp_path, trust):
    renewed = pki.files(ca, tmp_path / "renewed", ADA)
    mixed = replace(sign(ada, RUNS, BACKUP, NOW), certificates=renewed.certificate.read_text())
    with pytest.raises(NotRestored, match="the signature is of something else"):
        check(mixed, "run-b", 7, trust, NOW)


def issued(folder: Path, key, *, through_intermediate: bool) -> tuple[Files, bytes]:
    """Files of ada by a PKI of another kind: no key identifiers, maybe an intermediate CA; and its root."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = certificate("root", "root", root_key.public_key(), root_key, ca=True)
    chain, signer, issuer = [], root_key, "root"
    if through_intermediate:
        signer, issuer = ec.generate_private_key(ec.SECP384R1()), "middle"
        chain = [certificate("middle", "root", signer.public_key(), root_key, ca=True)]
    leaf = certificate("ada", issuer, key.public_key(), signer, ca=False)
    folder.mkdir()
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in (leaf, *chain))
    (folder / "tls.crt").write_bytes(pem)
    (folder / "tls.key").write_bytes(pki_request.key_pem(key))
    (folder / "tls.key").chmod(0o600)
    (folder / "ca.crt").write_bytes(root.public_bytes(Encoding.PEM))
    files = Files(certificate=folder / "tls.crt", key=folder / "tls.key", authority=folder / "ca.crt")
    return files, root.public_bytes(Encoding.PEM)


def certificate(subject, issuer, key, signer, *, ca):
    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    ends = NOW + timedelta(days=90)
    builder = x509.CertificateBuilder(name(issuer), name(subject), key, x509.random_serial_number(), NOW, ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([pki.uri(ADA.uri)]), critical=False)
    return builder.sign(signer, SHA256())


@pytest.mark.parametrize("through_intermediate", [False, True])
@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA"])
def test_an_operator_of_an_existing_pki_is_believed(tmp_path, kind, through_intermediate):
    make = {
        "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
    }
    files, root = issued(tmp_path / "pki", make[kind](), through_intermediate=through_intermediate)
    signed = sign(load(files, NOW), RUNS, BACKUP, NOW)
    assert check(signed, "run-b", 7, Trust(federation=FEDERATION, authority=root), NOW) == "ada"
