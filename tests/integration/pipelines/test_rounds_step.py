"""The rounds step as KFP runs it, killed in the middle and run again: the aggregator goes on with the same run."""

import inspect
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import yaml

from deerfield import __version__
from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient
from pipelines import components
from tests.chaos.checks import found
from tests.chaos.consortium import PATIENT, Consortium
from tests.chaos.edges import undisturbed
from tests.chaos.site import spec
from tests.integration.federation import wait_for

HEADER = "from kfp.dsl import *\nfrom typing import *\n"  # as KFP writes it before a component's source
LOCAL = Path(__file__).with_name("local_rounds.py")


class Task:
    """A process of KFP's, and the lines that it says."""

    def __init__(self, command: list[str]) -> None:
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


def executor(folder: Path, given: dict[str, object]) -> Task:
    """The rounds component under KFP's executor, as a pod runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest, code = folder / "manifest.json", folder / "component.py"
    manifest.write_text(json.dumps({"schema": 1, "kind": "consortium", "sites": {}}))
    code.write_text(HEADER + inspect.getsource(components.rounds))
    artifact = {"name": "manifest", "uri": str(manifest), "type": {"schemaTitle": "system.Dataset"}}
    inputs = {"parameterValues": given, "artifacts": {"manifest": {"artifacts": [artifact]}}}
    outputs = {"parameters": {"Output": {"outputFile": str(folder / "Output")}}, "outputFile": str(folder / "out.json")}
    asked = ["--executor_input", json.dumps({"inputs": inputs, "outputs": outputs}), "--function_to_execute", "rounds"]
    return Task([sys.executable, "-m", "kfp.dsl.executor_main", "--component_module_path", str(code), *asked])


class Stepped(Consortium):
    """Its operator is the rounds step; the first one is killed when it has told of two phases."""

    def _operate(self) -> None:
        try:
            first = self._begun(0)
            wait_for(lambda: first.says("phase published", 2))
            first.process.kill()
            assert first.ended() == -signal.SIGKILL
            assert not first.says("run finished")
            second = self._begun(1)
            assert second.ended() == 0, second.lines
            answers = json.loads((self.folder / "task-1" / "out.json").read_text())["parameterValues"]
            assert answers == {"Output": self.course.run}
            assert second.says("phase published", 2 * self.spec.rounds)
            self._seen()
        except BaseException as error:
            self.course.trouble = error

    def _begun(self, number: int) -> Task:
        given = {"run": yaml.safe_dump(self.spec.model_dump(mode="json")), "request_id": "job-1", "join_timeout_s": 300}
        where = {"aggregator": self.aggregator.address, "compiled_by": __version__}
        task = executor(self.folder / f"task-{number}", given | where)
        self.course.run = task.run
        return task

    def _seen(self) -> None:
        with connect(self.aggregator.address, role="operator") as channel:
            runs = RunsClient(channel, backoff=PATIENT)
            assert [view.run for view in runs.list()] == [self.course.run]
            self.course.events = [event for event in runs.watch(self.course.run) if event.number]


class Retried(Stepped):
    """Its operator is kfp.local, which retries the task that is killed."""

    def _operate(self) -> None:
        try:
            run = self.folder / "run.json"
            run.write_text(self.spec.canonical())
            task = Task([sys.executable, str(LOCAL), str(run), self.aggregator.address, str(self.folder / "kfp")])
            self.course.run = task.run
            wait_for(lambda: task.says("phase published", 2))
            children = psutil.Process(task.process.pid).children(recursive=True)
            (step,) = [each for each in children if each.cmdline()[1:3] == ["-m", "kfp.dsl.executor_main"]]
            step.kill()
            assert task.ended() == 0, task.lines
            assert task.says("rounds done", 2)
            self._seen()
        except BaseException as error:
            self.course.trouble = error


def described():
    """Three rounds of two phases, with noise."""
    asked = spec("north", "south", noise=True, rounds=3)
    return asked.model_copy(update={"model": asked.model.model_copy(update={"digest": "d" * 64})})


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The run when nothing happens to it."""
    return undisturbed(tmp_path_factory.mktemp("calm"), lambda place: f"sqlite:///{place / 'a.db'}", described())


@pytest.mark.parametrize(
    ("operator", "points"),
    [(Stepped, []), (Stepped, ["phase_published:after_commit#3"]), (Retried, [])],
    ids=["step", "step-and-aggregator", "kfp-local"],
)
def test_a_killed_step_finds_its_run_again_and_nothing_is_trained_or_published_twice(tmp_path, calm, operator, points):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    course = operator(tmp_path, url, described(), job={"slow_s": 0.4}).complete(*points)
    left = found(tmp_path, url, course.run)
    assert course.kills == len(points)
    assert (left.state, left.events, left.entries) == (calm.left.state, calm.left.events, calm.left.entries)
    assert sum(kind == "commit" for kinds in left.entries.values() for kind in kinds) == 2 * 2 * described().rounds
