"""`deerfield pki init` and `request`, and the certificate at the end: what is in the files, and what is refused."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from deerfield.certificates import Files, load, utc_now
from tests import pki
from tests.pki_command import deerfield, extension, read, refused, request, signed, tree


def test_a_ca_signs_and_nothing_below_it_may(ca):
    made = read(ca / "ca.crt")
    assert extension(made, x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)
    uses = extension(made, x509.KeyUsage)
    assert (uses.critical, uses.value.key_cert_sign, uses.value.digital_signature) == (True, True, False)
    made.verify_directly_issued_by(made)
    assert made.not_valid_before_utc < utc_now()
    assert 3600 < (made.not_valid_after_utc - utc_now()).days < 3660
    assert {path.name: path.stat().st_mode & 0o777 for path in ca.iterdir()} == dict.fromkeys(
        ("ca.key", "ca.crt", "issued.jsonl", "revoked.json"), 0o600
    )
    assert ca.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kept", ["ca.key", "ca.crt", "issued.jsonl", "revoked.json"])
def test_a_ca_is_never_overwritten(ca, tmp_path, kept):
    for path in ca.iterdir():
        if path.name != kept:
            path.unlink()
    assert "is there already, and is never overwritten" in refused(tmp_path, "init", ca, "--federation", "lungs")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk that fills up: what a process writes beyond `size` bytes of a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_ca_is_made_whole_or_not_at_all(tmp_path):
    with files_of_at_most(400):  # the key has 241 bytes, the certificate about 600
        code, said = deerfield("init", tmp_path / "ca", "--federation", "lungs")
    assert (code, "File too large" in said) == (2, True)
    assert list((tmp_path / "ca").iterdir()) == []
    assert deerfield("init", tmp_path / "ca", "--federation", "lungs")[0] == 0


@pytest.mark.parametrize(
    ("who", "names", "purpose"),
    [
        (("--site", "St. Mary"), ["deerfield://lungs/site/St.%20Mary"], ExtendedKeyUsageOID.CLIENT_AUTH),
        (("--operator", "ada"), ["deerfield://lungs/operator/ada"], ExtendedKeyUsageOID.CLIENT_AUTH),
        (("--observer", "eve"), ["deerfield://lungs/observer/eve"], ExtendedKeyUsageOID.CLIENT_AUTH),
        (
            ("--aggregator", "--host", "Agg.example.org", "--host", "10.0.0.1", "--host", "agg.example.org"),
            ["deerfield://lungs/aggregator", "agg.example.org", ip_address("10.0.0.1")],
            ExtendedKeyUsageOID.SERVER_AUTH,
        ),
    ],
)
def test_a_certificate_says_who_and_for_what_and_nothing_else(ca, tmp_path, who, names, purpose):
    made, authority = read(signed(ca, tmp_path / "north", *who)), read(ca / "ca.crt")
    assert [each.value for each in extension(made, x509.SubjectAlternativeName).value] == names
    assert list(extension(made, x509.ExtendedKeyUsage).value) == [purpose]
    assert extension(made, x509.BasicConstraints).value.ca is False
    uses = extension(made, x509.KeyUsage)
    assert (uses.critical, uses.value.digital_signature, uses.value.key_cert_sign) == (True, True, False)
    made.verify_directly_issued_by(authority)
    assert timedelta(minutes=5) < utc_now() - made.not_valid_before_utc < timedelta(minutes=20)
    assert (made.not_valid_after_utc - utc_now()).days in {364, 365}


def test_a_key_is_of_its_owner_alone_and_stays_where_it_was_made(ca, tmp_path):
    certificate = signed(ca, tmp_path / "north", "--site", "north")
    key = tmp_path / "north" / "tls.key"
    assert key.stat().st_mode & 0o777 == 0o600
    private = {path for path in tree(tmp_path) if path.is_file() and b"PRIVATE" in path.read_bytes()}
    assert private == {key, ca / "ca.key"}
    found = load(Files(certificate=certificate, key=key, authority=ca / "ca.crt"), utc_now())
    assert found.peer == pki.NORTH
    assert isinstance(load_pem_private_key(key.read_bytes(), None).curve, ec.SECP256R1)


def test_serials_are_random_and_noted_before_there_is_a_certificate(ca, tmp_path):
    made = [read(signed(ca, tmp_path / name, "--site", name)) for name in ("a", "b", "c")]
    notes = [json.loads(line) for line in (ca / "issued.jsonl").read_text().splitlines()]
    assert [int(note["serial"], 16) for note in notes] == [each.serial_number for each in made]
    assert [note["identity"] for note in notes] == [f"deerfield://lungs/site/{name}" for name in "abc"]
    assert len({each.serial_number >> 100 for each in made}) == 3
    csr, out = request(tmp_path / "d", "--site", "d"), tmp_path / "d.crt"
    issued = (ca / "issued.jsonl").read_bytes()

    with files_of_at_most(len(issued) + 10):
        assert "nothing was signed" in refused(tmp_path, "sign", csr, "--ca", ca, "--out", out, "--yes")
    assert (ca / "issued.jsonl").read_bytes() == issued


def test_nothing_is_signed_before_it_was_shown_and_agreed_to(ca, tmp_path):
    csr = request(tmp_path / "north", "--site", "north")
    before, shown = tree(tmp_path), deerfield("show", csr, "--json")[1]
    code, said = deerfield("sign", csr, "--ca", ca, "--out", tmp_path / "c.crt", answer="n\n")
    assert (code, tree(tmp_path)) == (1, before)
    assert "identity    deerfield://lungs/site/north" in said
    assert json.loads(shown)["public_key"] in said
    assert deerfield("sign", csr, "--ca", ca, "--out", tmp_path / "c.crt", answer="y\n")[0] == 0
    assert (tmp_path / "c.crt").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "0 owners are named; give one of --site, --aggregator, --operator, --observer"),
        (("--site", "a", "--operator", "b"), "2 owners are named"),
        (("--site", "a", "--aggregator"), "2 owners are named"),
        (("--site", ""), "'' cannot be the name of the site"),
        (("--site", "a/b"), "cannot be the name of the site; 1 to 63 letters"),
        (("--operator", "../x"), "cannot be the name of the operator"),
        (("--site", "a", "--host", "b"), "a certificate of role site has none"),
        (("--aggregator",), "give --host"),
        (("--aggregator", "--host", "*.example.org"), "is no host name"),
        (("--aggregator", "--host", "agg:8600"), "is no host name"),
    ],
)
def test_a_request_for_nobody_or_for_two_is_not_made(tmp_path, arguments, sentence):
    said = refused(tmp_path, "request", tmp_path / "new", "--federation", "lungs", *arguments)
    assert sentence in said


def test_a_bad_federation_is_refused_by_both(tmp_path):
    assert "cannot be the name of the federation" in refused(tmp_path, "init", tmp_path / "ca", "--federation", "a/b")
    said = refused(tmp_path, "request", tmp_path / "s", "--federation", "", "--site", "a")
    assert "cannot be the name of the federation" in said


def test_a_key_is_never_overwritten(tmp_path):
    request(tmp_path / "north", "--site", "north")
    again = ("request", tmp_path / "north", "--federation", "lungs", "--site", "north")
    assert "tls.key is there already" in refused(tmp_path, *again)
    (tmp_path / "file").write_text("")
    assert "cannot be used" in refused(tmp_path, "request", tmp_path / "file" / "x", *again[2:])
