"""How `deerfield run` ends before its time: by Ctrl-C, by a process that dies, by a launcher that is killed."""

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from deerfield.certificates import Files
from deerfield.errors import DeerfieldError
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient
from deerfield.wire.handshake import Way, cause
from tests.integration.federation import (
    assert_none_left,
    command,
    environment,
    result,
    started_in,
    wait_for,
    write,
)


class Running:
    """`deerfield run` under way, with everything it started."""

    def __init__(self, file: Path, out: Path) -> None:
        self.out, self.log, self.environment = out, out.with_suffix(".txt").open("w+"), environment()
        argv = command("run", file, "--out", out)
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=self.log, env=self.environment)

    def wait_for_a_phase(self) -> None:
        wait_for(lambda: re.search(r"^ +1/\d+ round", self.said(), re.MULTILINE))

    def hold(self, log: str) -> list[psutil.Process]:
        """Stops the processes that write to logs/`log` as soon as there is one, wherever they are in their work."""
        file = str(self.out / "logs" / log)
        wait_for(lambda: any(_holds(process, file) for process in started_in(self.environment)))
        held = [process for process in started_in(self.environment) if _holds(process, file)]
        for process in held:
            process.suspend()
        return held

    def said(self) -> str:
        return Path(self.log.name).read_text()

    def end(self, timeout_s: float = 60.0) -> int:
        code = self.process.wait(timeout_s)
        assert_none_left(self.environment)
        return code

    def interrupted(self) -> None:
        """Ctrl-C, and what it promises."""
        self.process.send_signal(signal.SIGINT)
        assert self.end() == 130, self.said()
        assert "interrupted" in self.said()
        assert "Traceback" not in self.said()


def _holds(process: psutil.Process, file: str) -> bool:
    """Whether the standard error of a process goes to `file`."""
    try:
        return os.readlink(f"/proc/{process.pid}/fd/2") == file
    except OSError:
        return False


@pytest.fixture
def begin(tmp_path):
    """Starts runs, and ends those that a failed test left behind."""
    started: list[Running] = []

    def begun(**changes) -> Running:
        started.append(Running(write(tmp_path, **changes), tmp_path / "out"))
        return started[-1]

    yield begun
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
        running.log.close()


@pytest.fixture
def start(begin):
    """Starts runs, and waits until their first phase is published."""

    def started(**changes) -> Running:
        running = begin(**changes)
        running.wait_for_a_phase()
        return running

    return started


def test_ctrl_c_ends_everything(start):
    running = start(rounds=500)
    assert len(started_in(running.environment)) == 7  # launcher, aggregator, preloader, three sites, evaluator
    assert_only_certificates_open_the_data_port(running)
    running.interrupted()
    assert not (running.out / "pki").exists()


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


def test_ctrl_c_while_the_data_are_prepared_ends_everything(begin):
    running = begin()
    running.hold("prepare.log")
    assert not (running.out / "prepared.json").exists()
    running.interrupted()


def test_ctrl_c_before_training_starts_ends_everything(begin):
    running = begin(rounds=500)
    running.hold("east.log")
    assert (running.out / "prepared.json").exists()
    running.interrupted()
    assert result(running.out)["rounds"] == []  # the quorum is everybody, and east was stopped


def test_ctrl_c_during_the_final_scoring_ends_everything(begin):
    running = begin()
    running.hold("evaluator.log")
    wait_for(lambda: "2/2 round" in running.said() and "FINISHED" in (running.out / "logs/east.log").read_text())
    running.interrupted()
    found = result(running.out)
    assert (found["state"], found["final"]) == ("finished", {})


def test_nothing_outlives_a_launcher_that_is_killed(start):
    running = start(rounds=500)
    running.process.kill()
    running.end()


def test_nothing_outlives_a_preloader_that_is_killed(start):
    running = start(rounds=500)
    preloader = next(
        p for p in psutil.Process(running.process.pid).children() if "services.client.preload" in p.cmdline()
    )
    preloader.kill()
    assert running.end() == 1
    assert "the preloader ended" in running.said()


def test_an_aggregator_that_dies_ends_the_run_and_names_its_log(start):
    running = start(rounds=500)
    server = next(p for p in psutil.Process(running.process.pid).children() if "services.aggregator" in p.cmdline())
    server.kill()
    assert running.end() == 1
    assert re.search(r"error: the aggregator ended with code -9: .*aggregator\.log", running.said())


def kill(running: Running, site: str) -> None:
    pid = re.search(r'"pid": (\d+)', (running.out / "logs" / f"{site}.log").read_text())
    assert pid
    os.kill(int(pid[1]), signal.SIGKILL)


def test_a_site_that_dies_is_left_behind_where_the_quorum_holds(start):
    running = start(rounds=12, federation={"quorum": 2}, embedded={"lost_after_s": 15})
    kill(running, "north")
    assert running.end(120) == 0, running.said()
    found = result(running.out)
    assert found["state"] == "finished"
    assert len(found["rounds"]) == 24
    assert "north" in running.said()


def test_a_site_that_dies_ends_a_run_that_needs_everybody(start):
    running = start(rounds=500, embedded={"lost_after_s": 15})
    kill(running, "north")
    assert running.end(120) == 1
    assert re.search(r"error: run .* failed: .*the quorum is 3.*north", running.said())
    assert "Traceback" not in running.said()
    assert result(running.out)["state"] == "failed"
