"""A site process that is killed anywhere, started again, and what the aggregator and the ledger then hold."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from deerfield.ledger.audit import verify
from deerfield.ledger.chain import first_damage
from services.client.custody.ledger_file import read
from tests.fakes import Clock
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.ledgers import stored_in
from tests.unit.client.sites import spec

POINTS = ["train", "vault:after_link", "commit:after_fsync", "sent"]
OTHERS = [  # test_ledger_crash has the like without an aggregator
    *(f"open:{when}" for when in ("before_fsync", "after_fsync")),
    *(f"{kind}:before_fsync" for kind in ("run", "task", "vault", "commit")),
    "run:after_fsync",
    *(f"vault:{when}" for when in ("after_fsync", "after_folder_fsync")),
    *("task:after_fsync", "send", "task:after_fsync#2", "commit:after_fsync#2", "sent#2", "never"),
]


def live(address, run, state, point="never"):
    command = [sys.executable, "-m", "tests.integration.killed_site", address, run, str(state), point]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def server(tmp_path):
    aggregator = open_aggregator(tmp_path / "aggregator", Clock())
    with served(aggregator) as found:
        yield found
    aggregator.desk.store.close()


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(each, marks=pytest.mark.e2e) for each in OTHERS)])
def test_a_site_killed_anywhere_sends_one_update_for_each_task_and_understates_nothing(server, tmp_path, point):
    asked = spec(privacy={"spare_phases": 1}, rounds=1, federation={"sites": ["north"]})
    run = server.runs.start(asked, "once")
    state = tmp_path / "state"
    died = live(server.ports.listening, run, state, point)
    assert died.returncode == (0 if point == "never" else -signal.SIGKILL), died.stderr
    before = _epsilon(state)
    again = live(server.ports.listening, run, state)
    assert again.returncode == 0, again.stderr
    assert server.runs.get(run).state == "FINISHED", server.runs.get(run).reason

    lines = read(state / "ledgers" / "p")
    report = verify(lines, stored_in(state / "vault"))
    assert report.findings == ()
    assert report.epsilon >= before
    entries, _ = first_damage(lines)
    committed = [entry.detail["update"] for entry in entries if entry.kind == "commit"]
    assert sorted(_sealed(server, run)) == sorted(committed)
    assert len(committed) == 2


def _epsilon(state):
    """What the ledger says at the moment of the crash; 0 where there is none yet, or no more than a torn line."""
    path = state / "ledgers" / "p" / "ledger.jsonl"
    if not path.exists() or not path.read_bytes().endswith(b"\n"):
        return 0.0
    return verify(read(path.parent)).epsilon


def _sealed(server, run):
    """The digests of every update of a run that the aggregator has sealed."""
    with server.aggregator.desk.store.edge() as edge:
        row = edge.run(run)
        last = edge.newest_phase(row).key
        keys = [replace(last, round=0, phase=phase) for phase in (0, 1)]
        return [each.announcement.manifest.digest for key in keys for each in edge.uploads.sealed(key)]
