"""The pipeline's task of the rounds killed in the middle and run again: the aggregator goes on with the same run."""

import json
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from deerfield.roster import PopulationReport, SiteReport
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from tests import mlflow_server
from tests.chaos.checks import found
from tests.chaos.consortium import PATIENT, Consortium
from tests.chaos.edges import undisturbed
from tests.chaos.site import Job, spec
from tests.fakes import Clock
from tests.integration.aggregator.conftest import open_aggregator, served, sqlite_in
from tests.integration.federation import wait_for
from tests.registry import Tracked

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
REPORT = SiteReport(populations=(PopulationReport(name="p", on_start=True),), complete=True)
SCRIPT = Path(__file__).with_name("local_rounds.py")


class Task:
    """A process, and the lines that it says."""

    def __init__(self, *command: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def says(self, text: str, times: int = 1) -> bool:
        return sum(text in line for line in self.lines) >= times

    @property
    def run(self) -> str:
        """The run that it has found, once it has."""
        wait_for(lambda: self.says("rounds done") or self.process.poll() is not None)
        assert self.says("rounds done"), self.lines
        return next(line for line in self.lines if "rounds done" in line).split()[1].rstrip(":")

    def ended(self) -> int:
        code = self.process.wait(120)
        self._reader.join(10)
        self.process.stdout.close()
        return code


class Stepped(Consortium):
    """Its operator is the task of the rounds; the first one is killed when it has told of a phase: three are left."""

    def _operate(self) -> None:
        try:
            last = self._drive()
            assert last.ended() == 0, last.lines
            assert last.says(f"answer: {self.course.run}")
            with connect(self.aggregator.address, role="operator") as channel:
                runs = RunsClient(channel, backoff=PATIENT)
                assert [view.run for view in runs.list()] == [self.course.run]
                self.course.events = [event for event in runs.watch(self.course.run) if event.number]
        except BaseException as error:
            self.course.trouble = error

    def _drive(self) -> Task:
        first = self._begun()
        wait_for(lambda: first.says("phase published"))
        first.process.kill()
        assert first.ended() == -signal.SIGKILL
        assert not first.says("run finished")
        return self._begun()

    def _begun(self) -> Task:
        run, names = self.folder / "run.json", self.spec.federation.sites
        run.write_text(self.spec.canonical())
        manifest = {"schema": 1, "kind": "consortium", "sites": {name: {} for name in names}}
        (self.folder / "manifest.json").write_text(json.dumps(manifest))
        for name in names:  # before a run asks them, as hospitals' sites do
            with connect(self.aggregator.address, role="site", site=name) as channel:
                SiteClient(channel, backoff=PATIENT).hello(REPORT)
        task = Task(sys.executable, str(SCRIPT), "step", str(run), self.aggregator.address)
        self.course.run = task.run
        return task


def described():
    """Two rounds of two phases, with noise."""
    asked = spec("north", "south", noise=True, rounds=2)
    return asked.model_copy(update={"model": asked.model.model_copy(update={"digest": "d" * 64})})


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The run when nothing happens to it."""
    folder = tmp_path_factory.mktemp("calm")
    return undisturbed(folder, lambda place: f"sqlite:///{place / 'a.db'}", described(), flags=tracked(folder))


def tracked(folder):
    """The flags of an aggregator that keeps files about runs; a kill amid MLflow's own migrations would be MLflow's."""
    return ["--tracking", mlflow_server.database(folder), "--artifacts", str(folder / "artifacts")]


@pytest.mark.e2e
def test_a_task_and_its_aggregator_that_are_killed_go_on_with_the_run_and_nothing_is_done_twice(tmp_path, calm):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    killed = Stepped(tmp_path, url, described(), flags=tracked(tmp_path), job={"slow_s": 1.0})
    course = killed.complete("phase_published:after_commit#3")
    left = found(tmp_path, url, course.run)
    assert course.kills == 1
    kept = ("attached", "", "", "", "")  # the manifest, by the task's first try, and by no other
    assert left.events.count(kept) == 1
    events = tuple(event for event in left.events if event != kept)
    assert (left.state, events, left.entries) == (calm.left.state, calm.left.events, calm.left.entries)


def test_the_compiled_task_that_is_killed_in_the_middle_finds_its_run_by_kfps_own_retry(tmp_path):
    """The graph's tasks under kfp.local, over sites with real ledgers: the same run, and no release more."""
    aggregator, spec = open_aggregator(tmp_path, Clock()), described()
    names, tracking = spec.federation.sites, Tracked()
    with served(aggregator, tracking=tracking) as server, ExitStack() as stack:
        for name in names:
            server.site(name).hello(REPORT)
        (tmp_path / "run.json").write_text(spec.canonical())
        task = Task(sys.executable, str(SCRIPT), "kfp", str(tmp_path / "run.json"), server.ports.listening)
        stack.callback(task.process.kill)
        place = {"address": server.ports.listening, "run": task.run, "spec": spec, "slow_s": 1.0}
        sites = [Job(name=name, state=tmp_path / name, **place).start() for name in names]
        stack.callback(lambda: [site.kill() for site in sites])
        wait_for(lambda: task.says("phase published") or task.process.poll() is not None)
        _kill_rounds(task)
        assert task.ended() == 0, task.lines
        assert task.says("rounds done", 2)
        assert task.says(f"answer: {task.run}")
        assert [view.run for view in server.runs.list()] == [task.run]
        published = [event for event in server.runs.past(task.run) if event.kind == "phase_published"]
        assert len(published) == 2 * spec.rounds
        for site in sites:
            site.join(30)
            assert site.exitcode == 0
    assert {file.name for file in tracking.files} == {"manifest.json"}
    aggregator.desk.store.close()
    left = found(tmp_path, sqlite_in(tmp_path), task.run, (aggregator.desk.uploads, aggregator.desk.published))
    assert left.state == "FINISHED"
    assert sum(kind == "commit" for kinds in left.entries.values() for kind in kinds) == 2 * 2 * spec.rounds


def _kill_rounds(task: Task) -> None:
    """Ends the process of the task that is at work, as a node that dies does."""
    children = psutil.Process(task.process.pid).children(recursive=True)
    (step,) = [each for each in children if each.cmdline()[1:3] == ["-m", "kfp.dsl.executor_main"]]
    step.kill()
