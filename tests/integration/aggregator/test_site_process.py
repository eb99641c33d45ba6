"""A site's process as a container: its settings from the environment, its probe, its faults, and what `check` says."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from deerfield.certificates import Files
from deerfield.wire.client import SiteClient
from deerfield.wire.handshake import Way
from services.client.__main__ import main
from services.client.commands.flags import variable
from services.client.connection import open_channel, patience
from tests import pki
from tests.connect_proxy import connecting
from tests.cut_link import CutLink
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.security import OLD
from tests.integration.aggregator.test_no_room import disk
from tests.integration.federation import wait_for

NOBODY = "127.0.0.1:1"


@dataclass
class Container:
    """What a site's container has: a folder of its own, and its settings in the environment."""

    folder: Path
    files: Files
    environment: dict[str, str]

    @property
    def ready(self) -> Path:
        return self.folder / "ready"

    @property
    def message(self) -> Path:
        return self.folder / "termination"

    def command(self, *arguments) -> dict:
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("proxy")}
        command = [sys.executable, "-m", "services.client", *map(str, arguments)]
        return {"args": command, "env": kept | self.environment, "text": True}

    def check(self, *arguments) -> subprocess.CompletedProcess:
        return subprocess.run(**self.command("check", *arguments), capture_output=True, check=False, timeout=60)

    def fault(self, capsys, *arguments) -> str:
        """The sentence that the site ends of, in this process: the only line of its log that is no news."""
        places = [f"--{name}={self.environment[variable(name)]}" for name in ("state", "ready")]
        code = self.main("site", *places, *arguments)
        *before, last = map(json.loads, capsys.readouterr().err.splitlines())
        assert (code, last["exit_code"], last["level"]) == (2, 2, "error")
        assert [line["event"] for line in before if line["level"] != "info"] == []
        assert not self.ready.exists()
        return last["event"].removeprefix("error: ")

    def main(self, command: str, *arguments) -> int:
        """The exit code of a command in this process, with the settings as arguments."""
        names = ("site", "aggregator", "policy", "tls-certificate", "tls-key", "tls-ca")
        settings = [f"--{name}={self.environment[variable(name)]}" for name in names]
        return main(["--log", "json", command, *settings, *map(str, arguments)])

    @contextmanager
    def site(self):
        """The site's process and its log; it is gone after the block."""
        log = self.folder / "site.log"
        with log.open("wb") as errors, subprocess.Popen(**self.command("site"), stderr=errors) as process:
            try:
                yield process, log
            finally:
                process.kill()


@pytest.fixture
def container(tmp_path, consortium):
    folder = tmp_path / "north"
    folder.mkdir()
    (folder / "policy.yaml").write_text("populations: {}\nmodels: {}\n")
    files = consortium.files("site", "north")
    environment = {
        "DEERFIELD_SITE": "north",
        "DEERFIELD_AGGREGATOR": NOBODY,
        "DEERFIELD_POLICY": str(folder / "policy.yaml"),
        "DEERFIELD_STATE": str(folder / "state"),
        "DEERFIELD_TLS_CERTIFICATE": str(files.certificate),
        "DEERFIELD_TLS_KEY": str(files.key),
        "DEERFIELD_TLS_CA": str(files.authority),
        "DEERFIELD_READY": str(folder / "ready"),
        "DEERFIELD_TERMINATION_LOG": str(folder / "termination"),
        "DEERFIELD_LOG": "json",
    }
    return Container(folder, files, environment)


def events(log: Path) -> list[str]:
    return [json.loads(line)["event"] for line in log.read_text().splitlines()]


def test_it_is_ready_waits_for_its_aggregator_and_finds_it_when_it_comes(container, address):
    with CutLink(address) as link:
        link.cut()
        container.environment["DEERFIELD_AGGREGATOR"] = link.address
        with container.site() as (process, log):
            wait_for(lambda: "no connection" in events(log), 60)
            assert container.ready.is_file()
            link.restore()
            wait_for(lambda: "connected again" in events(log), 60)
            process.terminate()
            assert process.wait(20) == 143
    assert events(log) == ["site starts", "no connection", "connected again"]
    waited = json.loads(log.read_text().splitlines()[1])
    assert (waited["tried_s"], waited["site"]) == (0, "north")
    assert "cannot be reached (connection refused)" in waited["sentence"]
    assert not container.ready.exists()
    assert not container.message.exists()


def test_each_fault_of_its_settings_is_one_sentence(container, consortium, capsys):
    old, south = consortium.files("site", "old", now=OLD, days=30), consortium.files("site", "south")
    policy = container.folder / "policy.yaml"
    assert container.fault(capsys, "--site", "") == "--site is missing; give it, or set DEERFIELD_SITE"
    assert container.fault(capsys, "--aggregator", "https://agg").startswith(
        "--aggregator: 'https://agg' is no host:port"
    )
    missing = container.folder / "tls.key"
    absent = container.fault(capsys, "--tls-key", missing)
    assert absent.startswith(f"{missing} cannot be read (No such file or directory); see that it is there")
    expired = container.fault(capsys, "--tls-certificate", old.certificate, "--tls-key", old.key)
    assert expired.startswith(f"{old.certificate} has expired, on ")
    theirs = container.fault(capsys, "--tls-certificate", south.certificate, "--tls-key", south.key)
    assert theirs.endswith("is of deerfield://lungs/site/south, not of site north; give the site's own")
    policy.write_text("populations: {}\nmodel: {}\n")
    assert str(policy) in container.fault(capsys)


def test_a_state_folder_that_cannot_be_written_or_is_full_is_named_before_anybody_waits(container, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file' / 'state'} cannot be used (Not a directory)" in container.fault(
        capsys, "--state", tmp_path / "file" / "state"
    )
    with disk(tmp_path / "small") as small:
        container.environment["DEERFIELD_STATE"] = str(small.folder)
        small.fill()
        assert container.fault(capsys).startswith(
            f"{small.folder} cannot be used (No space left on device); give the site"
        )
        small.clear()
        small.remount("ro")
        assert container.fault(capsys).startswith(f"{small.folder} cannot be used (Read-only file system)")


def test_a_policy_that_asks_for_a_gpu_is_held_against_the_machine_before_anybody_waits(container, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (container.folder / "policy.yaml").write_text("populations: {}\nmodels: {}\ndevice: cuda\n")
    assert container.fault(capsys).startswith("device: cuda, but torch sees no GPU on this machine; give it one")


def test_it_does_not_start_where_it_reaches_what_it_should_not(container, address, capsys):
    container.environment["DEERFIELD_POLICY"] = "is read later"
    assert f"{address} can be reached from here" in container.fault(capsys, "--egress-proof", f"{address},127.0.0.1:2")
    assert f"{NOBODY} is the aggregator" in container.fault(capsys, "--egress-proof", NOBODY)


def test_check_says_each_point_and_leaves_nothing_behind(container, secured, runs, address):
    container.environment["DEERFIELD_AGGREGATOR"] = address
    done = container.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        [name, "ok"] for name in ("settings", "policy", "certificate", "aggregator")
    ]
    assert list(runs.sites()) == []
    assert list(secured.aggregator.desk.presence.heard()) == []
    assert sorted(path.name for path in container.folder.iterdir()) == ["policy.yaml"]


def test_check_goes_on_behind_a_fault_and_ends_with_the_code_of_the_first(container, consortium, address, capsys):
    other = consortium.files("site", "north2")
    container.environment |= {"DEERFIELD_AGGREGATOR": address, "DEERFIELD_POLICY": "none.yaml"}
    for arguments, words in (
        ((), ["ok", "wrong", "ok", "ok"]),
        (("--tls-certificate", other.certificate, "--tls-key", other.key), ["ok", "wrong", "wrong"]),
    ):
        assert container.main("check", *arguments) == 2
        said, fault = capsys.readouterr()
        assert [line.split()[1] for line in said.splitlines()] == words
        assert json.loads(fault)["event"].startswith("error: none.yaml cannot be read")


def test_check_takes_the_way_of_the_site_through_a_proxy(container, address, capsys):
    container.environment["DEERFIELD_AGGREGATOR"] = address
    with connecting({address: address}) as between:
        assert container.main("check", "--proxy", between.url) == 0
        assert f"aggregator {address}, through the proxy {between.address}" in capsys.readouterr().out
    assert between.opened == [address]


def test_check_says_that_the_aggregator_does_not_take_this_site(container, consortium, address):
    container.environment["DEERFIELD_AGGREGATOR"] = address
    consortium.revoke(container.files)
    done = container.check()
    assert (done.returncode, done.stdout.splitlines()[-1].split()[:2]) == (1, ["aggregator", "wrong"])
    assert "is revoked" in container.message.read_text()


@pytest.mark.parametrize("why", ["is revoked", "has expired"])
def test_a_site_that_is_refused_waits_a_minute_at_a_time_until_it_has_another_certificate(
    address, runs, consortium, why
):
    north, waits = consortium.files("site", "north", days=30), []
    new = pki.files(consortium.ca, consortium.folder / "new")
    run = runs.start(run_spec("north", rounds=1), "once")
    way = Way(address=address, files=north)

    def renewed_at_last(wait_s):
        waits.append(wait_s)
        if len(waits) == 3:
            for mine, theirs in ((north.key, new.key), (north.certificate, new.certificate)):
                os.replace(theirs, mine)

    with open_channel(way, "north") as channel, structlog.testing.capture_logs() as lines:
        link = SiteClient(channel, run=run, backoff=replace(patience(way), sleep=renewed_at_last))
        site = TeachingSite("north", link, adapter(1))
        assert site.step()
        if why == "is revoked":
            consortium.revoke(north)
        else:
            consortium.clock.now += timedelta(days=31)
        assert site.step()
        consortium.clock.now = pki.NOW
    assert list(runs.watch(run))[-1].kind == "run_finished"
    assert waits[:3] == [60.0, 60.0, 60.0]
    assert why in next(line["sentence"] for line in lines if line["event"] == "no connection")
