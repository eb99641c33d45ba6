"""A site connects as itself, by its own certificate, or in plaintext."""

import argparse
from dataclasses import replace

import pytest

from deerfield.errors import InvalidInput
from deerfield.identity import Peer
from services.client.connection import given, open_channel
from tests import pki


@pytest.fixture
def files(tmp_path):
    return pki.files(pki.authority(tmp_path / "ca"), tmp_path / "north")


def flags(certificate=None, key=None, authority=None):
    return argparse.Namespace(tls_certificate=certificate, tls_key=key, tls_ca=authority)


def test_three_files_or_none(files):
    assert given(flags()) is None
    assert given(flags(files.certificate, files.key, files.authority)) == files
    for some in (flags(files.certificate), flags(files.certificate, files.key), flags(authority=files.authority)):
        with pytest.raises(InvalidInput, match="belong together; give all three"):
            given(some)


def test_the_certificate_of_another_is_not_used(tmp_path, files):
    with open_channel("127.0.0.1:1", "north", files):
        pass
    with pytest.raises(InvalidInput, match="is of deerfield://lungs/site/north, not of site south"):
        open_channel("127.0.0.1:1", "south", files)
    ca = pki.authority(tmp_path / "other")
    operator = pki.files(ca, tmp_path / "operator", Peer(federation="lungs", role="operator", name="north"))
    with pytest.raises(InvalidInput, match="not of site north"):
        open_channel("127.0.0.1:1", "north", operator)
    with pytest.raises(InvalidInput, match="is not the key of"):
        open_channel("127.0.0.1:1", "north", replace(files, key=operator.key))
