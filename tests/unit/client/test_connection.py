"""A site connects as itself, by its own certificate, or in plaintext."""

import argparse
from dataclasses import replace

import pytest
import structlog

from deerfield.errors import HandshakeFailed, InvalidInput, Unreachable
from deerfield.identity import Peer
from deerfield.wire.handshake import Way
from services.client.connection import Waiting, given, open_channel, way
from tests import pki
from tests.fakes import Clock


@pytest.fixture
def files(tmp_path):
    return pki.files(pki.authority(tmp_path / "ca"), tmp_path / "north")


def flags(certificate=None, key=None, authority=None, proxy="", aggregator="127.0.0.1:1"):
    paths = {"tls_certificate": certificate, "tls_key": key, "tls_ca": authority}
    return argparse.Namespace(**paths, aggregator=aggregator, proxy=proxy)


def opened(site, files):
    return open_channel(Way(address="127.0.0.1:1", files=files), site)


def test_three_files_or_none(files):
    assert given(flags()) is None
    assert given(flags(files.certificate, files.key, files.authority)) == files
    for some in (flags(files.certificate), flags(files.certificate, files.key), flags(authority=files.authority)):
        with pytest.raises(InvalidInput, match="belong together; give all three"):
            given(some)


def test_the_certificate_of_another_is_not_used(tmp_path, files):
    with opened("north", files):
        pass
    with pytest.raises(InvalidInput, match="is of deerfield://lungs/site/north, not of site south"):
        opened("south", files)
    ca = pki.authority(tmp_path / "other")
    operator = pki.files(ca, tmp_path / "operator", Peer(federation="lungs", role="operator", name="north"))
    with pytest.raises(InvalidInput, match="not of site north"):
        opened("north", operator)
    with pytest.raises(InvalidInput, match="is not the key of"):
        opened("north", replace(files, key=operator.key))


@pytest.mark.parametrize("address", ["localhost", "https://localhost:8600"])
def test_an_address_that_is_none_is_refused_before_anybody_is_called(files, address):
    for paths in ((), (files.certificate, files.key, files.authority)):
        with pytest.raises(InvalidInput, match=r"^--aggregator: .* is no host:port"):
            way(flags(*paths, aggregator=address))


def test_a_proxy_is_for_tls_and_is_a_url(files):
    paths = (files.certificate, files.key, files.authority)
    assert way(flags(*paths, proxy="http://proxy.example:3128")).proxy.port == 3128
    with pytest.raises(InvalidInput, match="--proxy is for a connection over TLS"):
        way(flags(proxy="http://proxy.example:3128"))
    with pytest.raises(InvalidInput, match=r"'proxy\.example:3128' is no proxy; write http"):
        way(flags(*paths, proxy="proxy.example:3128"))


def test_what_keeps_a_site_waiting_is_a_line_at_first_once_a_minute_and_when_a_person_must_mend_it():
    clock, away = Clock(), Unreachable("nobody answers")
    waiting = Waiting(clock)
    with structlog.testing.capture_logs() as lines:
        for wait_s in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0):  # 63 s
            waiting.tell(away, wait_s)
            clock.advance(wait_s)
        waiting.tell(Unreachable("nobody, still"), 60.0)
        clock.advance(60.0)
        waiting.tell(HandshakeFailed("another CA"), 60.0)
        clock.advance(60.0)
        waiting.answered()
        waiting.answered()
        waiting.tell(away, 1.0)
    assert [(line["event"], line.get("sentence"), line.get("tried_s")) for line in lines] == [
        ("no connection", "nobody answers", 0),
        ("no connection", "nobody, still", 63),
        ("no connection", "another CA", 123),
        ("connected again", None, None),
        ("no connection", "nobody answers", 0),
    ]
    assert lines[3]["after_s"] == 183
