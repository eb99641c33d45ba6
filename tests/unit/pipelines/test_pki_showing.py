"""`deerfield pki revoke` and `show`."""

import os
from datetime import timedelta

from deerfield.certificates import utc_now
from deerfield.revocation import read_revoked
from tests import pki
from tests.pki_command import deerfield, read, refused, request, show, signed


def test_a_certificate_is_revoked_by_file_or_serial_once_with_its_reason(ca, tmp_path):
    one, two = (signed(ca, tmp_path / name, "--site", name) for name in ("a", "b"))
    assert read_revoked(ca / "revoked.json") == {}
    assert deerfield("revoke", one, "--ca", ca, "--reason", "laptop lost")[0] == 0
    serial = f"{read(two).serial_number:040X}"
    colons = ":".join(serial[at : at + 2] for at in range(0, 40, 2))
    assert deerfield("revoke", colons, "--ca", ca, "--reason", "left")[0] == 0
    code, said = deerfield("revoke", one, "--ca", ca, "--reason", "again")
    assert (code, "was revoked already" in said) == (0, True)
    revoked = read_revoked(ca / "revoked.json")
    assert {each: why["reason"] for each, why in revoked.items()} == {
        read(one).serial_number: "laptop lost",
        read(two).serial_number: "left",
    }


def test_only_what_this_ca_issued_is_revoked(ca, tmp_path):
    other = pki.authority(tmp_path / "other")
    foreign = pki.files(other, tmp_path / "north").certificate
    for which, sentence in (
        (foreign, "was not issued by the CA"),
        (ca / "ca.crt", "is the CA itself"),
        ("0a", "serial 0a is not in"),
        ("north", "is no file and no serial"),
        (tmp_path / "north" / "tls.key", "holds no certificate"),
    ):
        assert sentence in refused(tmp_path, "revoke", which, "--ca", ca, "--reason", "lost")
    own = signed(ca, tmp_path / "own", "--site", "own")
    assert "--reason is empty" in refused(tmp_path, "revoke", own, "--ca", ca, "--reason", " ")
    (ca / "revoked.json").write_text("damaged")
    assert "is no list of revoked serials" in refused(tmp_path, "revoke", own, "--ca", ca, "--reason", "lost")


def test_a_serial_whose_note_was_lost_is_revoked_by_its_file(ca, tmp_path):
    own = signed(ca, tmp_path / "own", "--site", "own")
    (ca / "issued.jsonl").write_text('{"serial": "to')
    assert deerfield("revoke", own, "--ca", ca, "--reason", "lost")[0] == 0
    assert list(read_revoked(ca / "revoked.json")) == [read(own).serial_number]


def test_show_says_what_each_file_is_and_that_they_belong_together(ca, tmp_path):
    certificate = signed(ca, tmp_path / "agg", "--aggregator", "--host", "agg.example.org")
    one, csr, key = (show(certificate.with_name(name)) for name in ("tls.crt", "tls.csr", "tls.key"))
    assert [each["kind"] for each in (one, csr, key)] == ["certificate", "certificate signing request", "private key"]
    assert one["public_key"] == csr["public_key"] == key["public_key"]
    assert one["identity"] == csr["identity"] == "deerfield://lungs/aggregator"
    assert one["hosts"] == csr["hosts"] == "agg.example.org"
    assert one["issuer"] == "CN=deerfield CA,O=lungs"
    assert one["days_left"] in {364, 365}
    assert int(one["serial"], 16) == read(certificate).serial_number
    deerfield("revoke", certificate, "--ca", ca, "--reason", "lost")
    folder = show(ca)
    assert (folder["kind"], folder["federation"], folder["issued"], folder["revoked"]) == ("CA folder", "lungs", 1, 1)
    assert show(ca / "ca.crt")["kind"] == "CA certificate"
    assert all(each["warnings"] == [] for each in (one, csr, key, folder))


def test_show_warns_of_an_end_that_is_near_and_of_an_open_key(ca, tmp_path):
    csr = request(tmp_path / "north", "--site", "north")
    for days, warned in ((29, True), (32, False)):
        out = tmp_path / f"{days}.crt"
        assert deerfield("sign", csr, "--ca", ca, "--out", out, "--days", days, "--yes")[0] == 0
        assert ("request another now" in deerfield("show", out)[1]) is warned
    old = pki.authority(tmp_path / "old", now=utc_now() - timedelta(days=400))
    ended = pki.files(old, tmp_path / "ended", now=utc_now() - timedelta(days=400)).certificate
    assert "has expired" in deerfield("show", ended)[1]
    os.chmod(tmp_path / "north" / "tls.key", 0o644)
    assert "is open to others (mode 0644)" in deerfield("show", tmp_path / "north" / "tls.key")[1]
    os.chmod(ca / "ca.key", 0o640)
    assert "is open to others (mode 0640)" in deerfield("show", ca)[1]


def test_sign_warns_of_a_ca_key_that_is_open_to_others(ca, tmp_path):
    csr = request(tmp_path / "north", "--site", "north")
    for mode, warned in ((0o600, False), (0o640, True), (0o644, True)):
        os.chmod(ca / "ca.key", mode)
        code, said = deerfield("sign", csr, "--ca", ca, "--out", tmp_path / f"{mode:o}.crt", "--yes")
        assert (code, f"warning: {ca / 'ca.key'} is open to others (mode {mode:04o})" in said) == (0, warned)
        assert ("warning" in said) is warned


def test_show_prints_no_private_key(ca, tmp_path):
    request(tmp_path / "north", "--site", "north")
    lines = (tmp_path / "north" / "tls.key").read_text().splitlines()[1:-1]
    said = deerfield("show", tmp_path / "north" / "tls.key")[1]
    assert not any(line in said for line in lines)


def test_show_of_something_else_is_an_error(tmp_path):
    (tmp_path / "x").write_text("hello")
    assert "is no certificate, request or private key" in refused(tmp_path, "show", tmp_path / "x")
    assert "cannot be read" in refused(tmp_path, "show", tmp_path / "missing")
    assert "holds no CA" in refused(tmp_path, "show", tmp_path)
    foreign = pki.foreign(tmp_path / "foreign", pki.uri("https://example.org"))
    assert show(foreign.certificate)["kind"] == "CA certificate"


def test_show_says_of_a_request_for_nobody_that_it_is_one(tmp_path):
    found = show(pki.request(tmp_path / "x.csr"))
    assert (found["kind"], found["identity"]) == ("certificate signing request", "")
    assert "names nobody" in found["warnings"][0]
