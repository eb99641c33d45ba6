"""A site that is killed at every point at which a crash can be told apart, and the site that comes after it."""

import json
import signal
import subprocess
import sys
from math import isclose
from pathlib import Path

import pytest

from deerfield.filters import Charge, spent
from deerfield.ledger.audit import verify
from deerfield.ledger.chain import first_damage
from services.client.custody.ledger_file import read
from tests.integration.crash_site import work
from tests.ledgers import RENYI, plan, stored_in

AGAIN = ["task:after_fsync#2", "vault:after_folder_fsync#2", "commit:before_fsync#2", "commit:after_fsync#2"]
POINTS = [
    *(f"{kind}:{when}" for kind in ("open", "run", "task", "commit") for when in ("before_fsync", "after_fsync")),
    *(f"vault:{when}" for when in ("before_fsync", "after_fsync", "after_link", "after_folder_fsync")),
    *("key:before_fsync", "key:after_link"),
    "never",
]


@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(each, marks=pytest.mark.e2e) for each in AGAIN)])
def test_a_killed_site_understates_nothing_and_answers_no_task_twice(tmp_path: Path, point: str) -> None:
    filter = ("sum", "renyi")[[*POINTS, *AGAIN].index(point) % 2]
    told = killed(tmp_path, point, filter)
    charged = max((value for what, value in told if what == "reserved"), default=0.0)

    again: list[tuple[str, object]] = []
    for _ in range(2):  # the second time, everything is answered and only sent again
        work(tmp_path, filter, lambda reached: None, lambda what, value: again.append((what, value)))

    lines = read(tmp_path)
    report = verify(lines, stored_in(tmp_path / "vault"))
    assert report.findings == ()
    assert report.epsilon >= charged
    sent: dict[int, set[tuple[str, str]]] = {0: set(), 1: set()}
    for what, value in (*told, *again):
        if what == "sent":
            sent[value[0]].add((value[1], value[2]))
    assert [len(bytes_) for bytes_ in sent.values()] == [1, 1]
    commits = [entry.detail["reservation"] for entry in first_damage(lines)[0] if entry.kind == "commit"]
    assert len(commits) == len(set(commits)) == 2


def test_a_crash_counts_what_was_reserved_as_spent(tmp_path: Path) -> None:
    killed(tmp_path, "task:after_fsync", "renyi")
    once = verify(read(tmp_path)).epsilon
    work(tmp_path, "renyi", lambda reached: None, lambda what, value: None)
    entries, _ = first_damage(read(tmp_path))
    assert once > 0
    assert sorted(entry.detail["attempt"] for entry in entries if entry.kind == "task") == [0, 0, 1]
    three_tasks = Charge(epsilon=0, delta=0, spends=(plan().spend(30),))
    assert isclose(verify(read(tmp_path)).epsilon, spent(RENYI.cap, [three_tasks]))


def killed(folder: Path, point: str, filter: str) -> list[list]:
    """What a site told the world before it killed itself at `point`."""
    command = [sys.executable, "-m", "tests.integration.crash_site", str(folder), point, filter]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (0 if point == "never" else -signal.SIGKILL), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
