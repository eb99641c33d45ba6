"""`make chaos`: three real sites that train a small model, and the aggregator killed once at every named edge."""

import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

import pytest

from deerfield import runfile
from pipelines.embedded.running import prepare
from pipelines.processes.children import Preloader, preloader
from tests.chaos.edges import undisturbed
from tests.integration.federation import write


@dataclass
class Forked:
    """A process that the preloader forked, as `multiprocessing` would show it."""

    processes: Preloader
    pid: int
    codes: dict[int, int]

    @property
    def exitcode(self):
        self.codes.update(self.processes.ended(0))
        return self.codes.get(self.pid)

    def kill(self):
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def join(self, timeout_s):
        end = time.monotonic() + timeout_s
        while self.exitcode is None:
            assert time.monotonic() < end
            self.codes.update(self.processes.ended(0.1))


@pytest.fixture
def hospitals(tmp_path):
    """(the run, a way to start its sites for a place)."""
    folder, codes = tmp_path / "hospitals", {}
    (folder / "logs").mkdir(parents=True)
    with preloader(folder) as processes:
        asked, _ = prepare(runfile.load(write(folder)), folder, processes, pooled=False)

        def start(consortium):
            def site(name, address, run):
                policy = folder / "sites" / name / "policy.yaml"
                where = ["--state", str(consortium.folder / name), "--aggregator", address, "--run", run]
                argv = ["site", "--site", name, "--policy", str(policy), *where]
                return Forked(processes, processes.start(argv, consortium.folder / f"{name}.log"), codes)

            return site

        yield asked, start


def test_a_kill_at_every_named_edge_of_three_torch_sites_changes_no_bit(hospitals, database, tmp_path, note, subtests):
    asked, start = hospitals
    calm = undisturbed(tmp_path, database, asked, starts=start)
    assert len(calm.left.digests) == 2
    for point in calm.points:
        with subtests.test(point=point):
            course = calm.killed(re.sub(r"\W", "-", point), point)
            assert (course.kills, course.restarts) == (1, 1)
            note("every edge, sqlite, 3 torch sites", course)
