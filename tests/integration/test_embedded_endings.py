"""How `deerfield run` ends before its time: by Ctrl-C, by a process that dies, by a launcher that is killed."""

import re

import psutil
import pytest

from deerfield.certificates import Files
from deerfield.errors import DeerfieldError
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient
from deerfield.wire.handshake import Way, cause
from tests.integration.federation import result, started_in
from tests.integration.running import Running, training


def test_ctrl_c_ends_everything(tmp_path):
    with training(tmp_path, rounds=500) as run:
        assert len(started_in(run.environment)) == 7  # launcher, aggregator, preloader, three sites, evaluator
        assert_only_certificates_open_the_data_port(run)
        run.interrupted()
        assert not (run.out / "pki").exists()


def assert_only_certificates_open_the_data_port(running: Running) -> None:
    """The run under way uses mTLS, with keys that its owner alone may read."""
    keys = sorted((running.out / "pki").rglob("*.key"))
    assert len(keys) == 7  # the CA, the aggregator, three sites, launcher and evaluator
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    place = running.out / "pki/operator/launcher"
    files = Files(certificate=place / "tls.crt", key=place / "tls.key", authority=running.out / "pki/ca/ca.crt")
    server = next(p for p in psutil.Process(running.process.pid).children() if "services.aggregator" in p.cmdline())
    listening = [f"127.0.0.1:{each.laddr.port}" for each in server.net_connections() if each.status == "LISTEN"]
    secure = [address for address in listening if cause(Way(address=address, files=files)) is None]
    assert len(secure) == 1
    for address in listening:  # the other one is for probes
        with connect(address, role="operator") as channel, pytest.raises(DeerfieldError):
            RunsClient(channel, backoff=Backoff(patience_s=0)).list()


@pytest.mark.e2e
def test_nothing_outlives_a_launcher_that_is_killed(tmp_path):
    with training(tmp_path, rounds=500) as run:
        run.process.kill()
        run.end()


@pytest.mark.e2e
def test_an_aggregator_that_dies_ends_the_run_and_names_its_log(tmp_path):
    with training(tmp_path, rounds=500) as run:
        server = next(p for p in psutil.Process(run.process.pid).children() if "services.aggregator" in p.cmdline())
        server.kill()
        assert run.end() == 1
        assert re.search(r"error: the aggregator ended with code -9: .*aggregator\.log", run.said())


@pytest.mark.e2e
def test_a_site_that_dies_is_left_behind_where_the_quorum_holds(tmp_path):
    with training(tmp_path, rounds=12, federation={"quorum": 2}, embedded={"lost_after_s": 15}) as run:
        run.kill("north")
        assert run.end(120) == 0, run.said()
        found = result(run.out)
        assert found["state"] == "finished"
        assert len(found["rounds"]) == 24
        assert "north" in run.said()
