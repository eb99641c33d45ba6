"""A site reaches its aggregator through what hospitals have between them and the world: TCP and CONNECT proxies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deerfield.errors import HandshakeFailed, Unreachable
from deerfield.wire import proxy
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import SiteClient
from deerfield.wire.handshake import Way, cause
from services.client.connection import open_channel
from tests import pki
from tests.connect_proxy import connecting, passing_on
from tests.fakes import Clock, TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import open_aggregator, served

NAME = "agg.example.org:8600"  # known to the proxy alone


@pytest.fixture
def address(tmp_path, clock, consortium):
    hosts = ("127.0.0.1", "agg.example.org")
    consortium.server = pki.files(consortium.ca, consortium.folder / "named", pki.AGGREGATOR, hosts=hosts)
    aggregator = open_aggregator(tmp_path / "aggregator", clock)
    with served(aggregator, gate=consortium.gate()) as found:
        yield found.ports.listening
    aggregator.desk.store.close()


@pytest.fixture
def north(consortium):
    return consortium.files("site", "north")


def finishes(runs, way):
    """A site does a whole run on its way to the aggregator."""
    run = runs.start(run_spec("north", rounds=1), "once")
    with open_channel(way, "north") as channel:
        site = TeachingSite("north", SiteClient(channel, run=run, backoff=Backoff(patience_s=10)), adapter(1))
        assert site.step()
        assert site.step()
    return list(runs.watch(run))[-1].kind == "run_finished"


def test_a_run_through_a_proxy_that_passes_tls_on(address, runs, north):
    with passing_on(address) as between:
        way = Way(address=between.address, files=north)
        assert cause(way) is None
        assert finishes(runs, way)
    assert len(between.opened) == 2  # the handshake and the site
    assert between.bytes_up > 1000


@pytest.mark.parametrize("by", ["flag", "grpc_proxy", "https_proxy", "http_proxy"])
def test_a_run_through_an_http_proxy(address, runs, north, by):
    with connecting({NAME: address}) as between:
        said, environment = (between.url, {}) if by == "flag" else ("", {by: between.url})
        way = Way(address=NAME, files=north, proxy=proxy.choose(NAME, said, environment))
        assert cause(way) is None
        assert finishes(runs, way)
    assert set(between.opened) == {NAME}
    assert between.bytes_up > 1000


def test_a_run_through_an_http_proxy_that_asks_for_a_password(address, runs, north):
    with connecting({NAME: address}, user="me:s@cret") as between:
        url = between.url.replace("//", "//me:s%40cret@")
        way = Way(address=NAME, files=north, proxy=proxy.parse(url))
        assert cause(way) is None
        assert finishes(runs, way)
        found = cause(Way(address=NAME, files=north, proxy=proxy.parse(between.url)))
    assert isinstance(found, Unreachable)
    assert f"the proxy {between.address} opens no way to {NAME} (407 Proxy Authentication Required)" in str(found)


def test_what_a_proxy_refuses_or_is_not_there_for_is_named(address, north):
    with connecting({NAME: address}) as between:
        found = cause(Way(address="elsewhere.example.org:8600", files=north, proxy=proxy.parse(between.url)))
        assert "opens no way to elsewhere.example.org:8600 (403 Forbidden); ask who runs it" in str(found)
    found = cause(Way(address=NAME, files=north, proxy=proxy.parse(between.url)))
    assert isinstance(found, Unreachable)
    assert f"the proxy {between.address} cannot be reached (connection refused)" in str(found)
    found = cause(Way(address=NAME, files=north, proxy=proxy.parse(f"http://{address}")))
    assert isinstance(found, Unreachable)
    assert "the proxy" in str(found)


def test_a_proxy_that_ends_tls_itself_is_found_out(address, consortium, north):
    """Some do; its certificate is not the aggregator's, and nothing is said to it."""
    ca = pki.authority(consortium.folder / "inspecting")
    theirs = pki.files(ca, consortium.folder / "inspector", pki.AGGREGATOR, hosts=("agg.example.org",))
    consortium.server = theirs
    aggregator = open_aggregator(consortium.folder / "inspecting-aggregator", Clock())
    with served(aggregator, gate=consortium.gate()) as found, connecting({NAME: found.ports.listening}) as between:
        named = cause(Way(address=NAME, files=north, proxy=proxy.parse(between.url)))
    aggregator.desk.store.close()
    assert isinstance(named, HandshakeFailed)
    assert "by no CA in" in str(named)


def follow(folder: Path, files, environment=None, *flags):
    command = [sys.executable, "-m", "services.client", "follow", "--aggregator", NAME, "--run", "nonesuch"]
    command += ["--file", str(folder / "run.json"), "--rows", str(folder / "rows.npy")]
    command += ["--tls-certificate", str(files.certificate), "--tls-key", str(files.key)]
    command += ["--tls-ca", str(files.authority), *flags]
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("proxy")}
    return subprocess.run(
        command, env=kept | (environment or {}), capture_output=True, text=True, timeout=60, check=False
    )


def test_a_command_takes_the_proxy_of_its_flag_or_environment_and_ends_with_one_sentence(address, consortium, tmp_path):
    ada = consortium.files("operator", "ada")
    with connecting({NAME: address}) as between:
        for done in (
            follow(tmp_path, ada, {"https_proxy": between.url}),
            follow(tmp_path, ada, None, "--proxy", between.url),
        ):
            assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
            assert "error: no run is called" in done.stderr
        done = follow(tmp_path, consortium.other(ada), {"https_proxy": between.url})
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"error: the aggregator at {NAME} refuses ")
    assert len(between.opened) >= 3
