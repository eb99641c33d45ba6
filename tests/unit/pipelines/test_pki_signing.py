"""`deerfield pki sign`: the requests that it must not sign."""

import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests import pki
from tests.pki_command import deerfield, extension, read, refused, request

SITE, HOST = pki.uri("deerfield://lungs/site/north"), x509.DNSName("agg.example.org")
AGGREGATOR = pki.uri("deerfield://lungs/aggregator")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((), "has no subject alternative name"),
        ((SITE, SITE), "deerfield signs exactly one URI"),
        ((SITE, pki.uri("https://example.org")), "deerfield signs exactly one URI"),
        ((SITE, x509.RFC822Name("a@example.org")), "deerfield signs exactly one URI"),
        ((HOST,), "deerfield signs exactly one URI"),
        ((pki.uri("https://example.org"),), "is no deerfield identity"),
        ((pki.uri("deerfield://lungs/admin/north"),), "is no deerfield identity"),
        ((pki.uri("deerfield://lungs/site/nort%68"),), "is no deerfield identity"),
        ((pki.uri("deerfield://hearts/site/north"),), "is of federation 'hearts'; this CA signs for 'lungs' alone"),
        ((SITE, HOST), "a certificate of role site has none"),
        ((AGGREGATOR,), "needs the names that sites reach it by"),
        ((AGGREGATOR, x509.DNSName("*.example.org")), "is no host name"),
        ((AGGREGATOR, HOST, x509.RFC822Name("a@example.org")), "deerfield signs exactly one URI"),
    ],
)
def test_a_request_for_anything_but_one_identity_is_not_signed(ca, tmp_path, names, sentence):
    csr = pki.request(tmp_path / "x.csr", *names)
    said = refused(tmp_path, "sign", csr, "--ca", ca, "--out", tmp_path / "x.crt", "--yes")
    assert sentence in said


def test_a_request_that_was_changed_on_its_way_is_not_signed(ca, tmp_path):
    csr = request(tmp_path / "north", "--site", "north")
    der = x509.load_pem_x509_csr(csr.read_bytes()).public_bytes(pki.Encoding.DER)
    changed = x509.load_der_x509_csr(der.replace(b"/site/north", b"/site/south"))
    csr.write_bytes(changed.public_bytes(pki.Encoding.PEM))
    said = refused(tmp_path, "sign", csr, "--ca", ca, "--out", tmp_path / "x.crt", "--yes")
    assert "is not signed by its own key" in said
    assert "not signed by its own key" in deerfield("show", csr)[1]


def test_a_weak_key_is_not_signed_and_other_strong_ones_are(ca, tmp_path):
    for number, key in enumerate((rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP192R1()))):
        csr = pki.request(tmp_path / f"{number}.csr", SITE, key=key)
        said = refused(tmp_path, "sign", csr, "--ca", ca, "--out", tmp_path / "x.crt", "--yes")
        assert "has a key that deerfield does not sign" in said
    for number, key in enumerate((rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1()))):
        csr = pki.request(tmp_path / f"{number}.csr", SITE, key=key)
        assert deerfield("sign", csr, "--ca", ca, "--out", tmp_path / f"{number}.crt", "--yes")[0] == 0


def test_what_a_request_asks_for_beside_its_names_is_not_given(ca, tmp_path):
    wishes = (
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]),
    )
    csr = pki.request(tmp_path / "x.csr", SITE, extensions=wishes)
    assert deerfield("sign", csr, "--ca", ca, "--out", tmp_path / "x.crt", "--yes")[0] == 0
    made = read(tmp_path / "x.crt")
    assert extension(made, x509.BasicConstraints).value.ca is False
    assert list(extension(made, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("days", [0, -1, 4000, 10**9])
def test_a_certificate_ends_before_its_ca(ca, tmp_path, days):
    csr = request(tmp_path / "north", "--site", "north")
    said = refused(tmp_path, "sign", csr, "--ca", ca, "--out", tmp_path / "x.crt", "--yes", "--days", days)
    assert re.match(rf"--days {days} is outside 1 to 36(49|50);", said)


def test_a_folder_that_cannot_sign_says_why(ca, tmp_path):
    csr, out = request(tmp_path / "north", "--site", "north"), tmp_path / "x.crt"
    assert "holds no CA" in refused(tmp_path, "sign", csr, "--ca", tmp_path, "--out", out, "--yes")
    (ca / "ca.key").write_bytes((tmp_path / "north" / "tls.key").read_bytes())
    assert "is not the key of" in refused(tmp_path, "sign", csr, "--ca", ca, "--out", out, "--yes")
    (ca / "ca.key").unlink()
    assert "ca.key cannot be read" in refused(tmp_path, "sign", csr, "--ca", ca, "--out", out, "--yes")


def test_a_certificate_goes_to_a_new_file_in_a_folder_that_is_there(ca, tmp_path):
    csr = request(tmp_path / "north", "--site", "north")
    (tmp_path / "old.crt").write_text("old")
    for out, sentence in ((tmp_path / "old.crt", "never overwritten"), (tmp_path / "no" / "x.crt", "is no folder")):
        assert sentence in refused(tmp_path, "sign", csr, "--ca", ca, "--out", out, "--yes")
