"""Files of a TLS end: used if they fit each other and the time, refused in one sentence if not."""

import json
import os
from dataclasses import replace
from datetime import timedelta

import pytest

from deerfield import certificates
from deerfield.certificates import load
from deerfield.errors import InvalidInput
from deerfield.revocation import parse_serial, read_revoked, serial_text
from tests import pki
from tests.pki import NOW


@pytest.fixture
def ca(tmp_path):
    return pki.authority(tmp_path / "ca")


@pytest.fixture
def files(ca, tmp_path):
    return pki.files(ca, tmp_path / "north")


def test_files_that_fit_say_who_and_until_when(files):
    found = load(files, NOW)
    assert found.peer == pki.NORTH
    assert found.ends == NOW + timedelta(days=365)
    assert found.serial == certificates.parse_certificates(found.certificate, files.certificate)[0].serial_number
    assert found.warnings == ()
    assert (found.key, found.authority) == (files.key.read_bytes(), files.authority.read_bytes())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to somebody else")
@pytest.mark.parametrize(("mode", "warned"), [(0o440, False), (0o444, True)])
def test_a_mounted_key_is_of_its_pod_s_group(files, mode, warned):
    os.chown(files.key, 65534, os.getegid())
    files.key.chmod(mode)
    assert any("is open to others" in each for each in load(files, NOW).warnings) is warned


def test_a_key_stands_in_no_log(files):
    assert "PRIVATE" not in repr(load(files, NOW))


def test_the_key_of_another_certificate_is_refused(ca, files, tmp_path):
    other = pki.files(ca, tmp_path / "other")
    with pytest.raises(InvalidInput, match=r"other/tls\.key is not the key of .*north/tls\.crt"):
        load(replace(files, key=other.key), NOW)


@pytest.mark.parametrize(
    ("days", "sentence"),
    [
        (366, r"has expired, on \d{4}-\d\d-\d\d .*; request another"),
        (-1, r"is valid from .*check this machine's clock"),
    ],
)
def test_a_certificate_that_is_not_valid_now_is_refused(files, days, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        load(files, NOW + timedelta(days=days))


def test_a_clock_that_is_a_little_behind_is_no_reason_to_refuse(files):
    assert load(files, NOW - timedelta(minutes=9)).peer == pki.NORTH


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((), "has no subject alternative name, so it names nobody"),
        ((pki.uri("https://example.org"),), "holds 0 deerfield identities"),
        ((pki.uri("deerfield://lungs/site/a"), pki.uri("deerfield://lungs/site/b")), "holds 2 deerfield identities"),
        ((pki.uri("DEERFIELD://lungs/site/a"),), "is no deerfield identity"),
        ((pki.uri("deerfield://lungs/site/"),), "is no deerfield identity"),
    ],
)
def test_a_certificate_without_exactly_one_identity_is_refused(tmp_path, names, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        load(pki.foreign(tmp_path / "foreign", *names), NOW)


def test_a_certificate_of_another_pki_serves_whatever_else_it_names(tmp_path):
    names = (pki.uri("spiffe://example.org/pod"), pki.uri("deerfield://lungs/site/north"))
    assert load(pki.foreign(tmp_path / "foreign", *names), NOW).peer == pki.NORTH


def test_only_a_ca_is_taken_as_one(files):
    with pytest.raises(InvalidInput, match=r"tls\.crt holds no CA certificate"):
        load(replace(files, authority=files.certificate), NOW)


def test_a_ca_that_has_expired_is_refused(files, tmp_path):
    old = pki.authority(tmp_path / "old", now=NOW - timedelta(days=20 * 365)).folder / "ca.crt"
    with pytest.raises(InvalidInput, match=r"old/ca\.crt has expired"):
        load(replace(files, authority=old), NOW)
    both = tmp_path / "both.crt"
    both.write_bytes(old.read_bytes() + files.authority.read_bytes())  # while one takes over from the other
    assert load(replace(files, authority=both), NOW).peer == pki.NORTH


@pytest.mark.parametrize("which", ["certificate", "key", "authority"])
@pytest.mark.parametrize(
    "content", [None, b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_is_missing_or_something_else_is_named(files, tmp_path, which, content):
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"wrong\.pem (cannot be read \(No such file|holds no)"):
        load(replace(files, **{which: path}), NOW)


def test_a_key_that_others_may_read_is_warned_of(files):
    for mode, warned in ((0o600, False), (0o400, False), (0o640, True), (0o604, True)):
        os.chmod(files.key, mode)
        warnings = load(files, NOW).warnings
        assert [f"mode {mode:04o}" in each for each in warnings] == [True] * warned


def test_the_end_is_warned_of_thirty_days_before_it(files):
    for days, warned in ((334, False), (335, False), (336, True), (365, True)):
        warnings = load(files, NOW + timedelta(days=days)).warnings
        assert [f"ends in {365 - days} days" in each for each in warnings] == [True] * warned


def test_a_revoked_serial_is_on_the_list_that_people_can_read(tmp_path):
    path = tmp_path / "revoked.json"
    path.write_text(json.dumps([{"serial": "0a1b", "reason": "lost", "time": "2026-01-01T00:00:00+00:00"}]))
    assert read_revoked(path) == {0x0A1B: {"reason": "lost", "time": "2026-01-01T00:00:00+00:00"}}


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "{}1",
        "[1]",
        '[{"serial": "0a"}]',
        '[{"serial": "x", "reason": "", "time": ""}]',
        "7",
        '{"a": 1}',
        "{}",
    ],
)
def test_a_list_that_cannot_be_read_lets_nobody_in(tmp_path, content):
    path = tmp_path / "revoked.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInput):
        read_revoked(path)


def test_a_serial_is_read_as_openssl_and_deerfield_write_it():
    assert parse_serial("0A:1b:ff") == parse_serial("a1bff") == 0x0A1BFF
    assert serial_text(0x0A1BFF) == "0a1bff"
    for text in ("", "0x12", "zz", "-1", "1" * 41, "१"):
        with pytest.raises(InvalidInput, match="no serial"):
            parse_serial(text)
