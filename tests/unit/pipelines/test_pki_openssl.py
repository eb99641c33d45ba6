"""`deerfield pki` as openssl judges it."""

import shutil
import subprocess

import pytest

from deerfield.certificates import Files, load, utc_now
from tests import pki
from tests.pki_command import deerfield, signed

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def openssl(*arguments: object):
    return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False)


@needs_openssl
def test_openssl_takes_each_certificate_for_its_own_purpose_alone(ca, tmp_path):
    north = signed(ca, tmp_path / "north", "--site", "north")
    aggregator = signed(ca, tmp_path / "agg", "--aggregator", "--host", "agg.example.org", "--host", "::1")
    other = pki.authority(tmp_path / "other").folder

    def verified(certificate, purpose, authority=ca, *more):
        strict = ("verify", "-x509_strict", "-CAfile", authority / "ca.crt", "-purpose", purpose)
        return openssl(*strict, *more, certificate).returncode == 0

    assert verified(north, "sslclient")
    assert verified(aggregator, "sslserver", ca, "-verify_hostname", "agg.example.org")
    assert verified(aggregator, "sslserver", ca, "-verify_ip", "::1")
    assert not verified(aggregator, "sslserver", ca, "-verify_hostname", "example.org")
    assert not verified(north, "sslserver")
    assert not verified(aggregator, "sslclient")
    assert not verified(north, "sslclient", other)
    text = openssl("x509", "-noout", "-text", "-in", north).stdout
    assert "URI:deerfield://lungs/site/north" in text
    assert "TLS Web Client Authentication" in text
    assert "CA:FALSE" in text
    assert openssl("req", "-verify", "-noout", "-in", tmp_path / "north" / "tls.csr").returncode == 0
    assert openssl("ec", "-check", "-noout", "-in", tmp_path / "north" / "tls.key").returncode == 0


@needs_openssl
def test_a_request_that_openssl_made_is_signed(ca, tmp_path):
    made = openssl(
        "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x",
        "-keyout", tmp_path / "o.key", "-out", tmp_path / "o.csr",
        "-addext", "subjectAltName=URI:deerfield://lungs/site/north",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert deerfield("sign", tmp_path / "o.csr", "--ca", ca, "--out", tmp_path / "o.crt", "--yes")[0] == 0
    files = Files(certificate=tmp_path / "o.crt", key=tmp_path / "o.key", authority=ca / "ca.crt")
    assert load(files, utc_now()).peer == pki.NORTH
