"""A whole federation on one machine: real processes, real gRPC, the same run file as on a cluster.

Prepares the sites (partition, base model), writes the policy that each hospital would own, starts the aggregator, the
sites and the evaluator, and follows the run to its end. Nothing of it is left running, however it ends.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deerfield.errors import InvalidInput, RunFailed
from deerfield.peft_folder import write as write_adapter
from deerfield.runfile import RunFile
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.wire.client import RunsClient
from pipelines.processes import Preloader, aggregator, failure, preloader
from pipelines.report import Live
from pipelines.result import Result

PREPARE_S = 600.0  # reading the data and hashing the base model
EVALUATE_S = 120.0  # to score the last phase after the run has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The places of an embedded run."""

    folder: Path
    listen: str
    tracking: str | None  # MLflow URI; default: a file in the folder


def execute(file: RunFile, where: Where, live: Callable[[int, int], Live]) -> Result:
    """Runs `file` to its end and writes everything to `where.folder`.

    Raises:
        InvalidInput: the run file, data or model cannot be used.
        RunFailed: the run ended before its last round; `result.json` says how far it came.
    """
    strategy = make(file.spec)  # refuses a bad strategy or unit before anything starts
    _claim(where.folder)
    tracking = where.tracking or f"sqlite:///{where.folder / 'mlflow.db'}"
    with (
        preloader(where.folder) as processes,
        aggregator(where.folder, tracking, where.listen, file.embedded.lost_after_s) as address,
        RunsClient.connect(address) as runs,
    ):
        spec, prepared = _prepare(file, where.folder, processes, pooled=strategy.declares.topology == "pooled")
        run = runs.start(spec, uuid.uuid4().hex)
        result = Result(runs.get(run).spec, run)  # complete, as the sites will read it
        phases = strategy.declares.rounds * len(strategy.declares.phases)
        with live(phases, len(spec.federation.sites)) as screen:
            _Federation(result, where.folder, address, processes, runs, screen, prepared).follow()
        return _keep(result, where.folder, runs)


def _claim(folder: Path) -> None:
    if (folder / "result.json").exists():
        raise InvalidInput(f"{folder} already holds a run; choose another --out, or move it away")
    folder.mkdir(parents=True, exist_ok=True)


def _prepare(file: RunFile, folder: Path, processes: Preloader, *, pooled: bool) -> tuple[RunSpec, dict[str, Any]]:
    """Lets a site process split the data and describe the adapter; completes the run with what it found."""
    request, answer, log = folder / "run.json", folder / "prepared.json", folder / "prepare.log"
    request.write_text(file.model_dump_json(indent=2))
    argv = ["prepare", "--run", str(request), "--out", str(folder)]
    pid = processes.start([*argv, "--pooled"] if pooled else argv, log)
    if code := processes.wait(pid, PREPARE_S):
        raise failure(code, log)
    prepared: dict[str, Any] = json.loads(answer.read_text())
    spec = resolved(file, prepared)
    for site, rows in prepared["sites"].items():
        place = folder / "sites" / site
        place.mkdir(parents=True, exist_ok=True)
        policy = site_policy(file, spec, rows, prepared)
        (place / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    return spec, prepared


def resolved(file: RunFile, prepared: Mapping[str, Any]) -> RunSpec:
    """The run, complete: with its sites, its adapter's shapes and its base model's digest."""
    found = {**file.spec.model_dump(), "adapter": prepared["adapter"], "convolutions": prepared["convolutions"]}
    found["model"]["digest"] = prepared["digest"]
    found["federation"]["sites"] = tuple(prepared["sites"])
    return RunSpec.model_validate(found)


def site_policy(file: RunFile, spec: RunSpec, rows: str, prepared: Mapping[str, Any]) -> dict[str, Any]:
    """What the hospital would have written: where the run's population and base model are."""
    embedded = file.embedded
    source = embedded.source.model_copy(update={"rows": rows}).model_dump()
    bounds = {"units_low": prepared["units_low"], "units_high": prepared["units_high"]}
    return {
        "populations": {spec.population: {"source": source, **bounds}},
        "models": {spec.model.digest: embedded.base or spec.model.base},
        "metrics": embedded.metrics,
        "device": embedded.device,
        "precision": embedded.precision,
        "threads": embedded.threads,
    }


@dataclass
class _Federation:
    """The sites and the evaluator of a run, and what they tell."""

    result: Result
    folder: Path
    address: str
    processes: Preloader
    runs: RunsClient
    screen: Live
    prepared: dict[str, Any]
    _names: dict[int, str] = field(default_factory=dict)  # of the processes that are still running

    def follow(self) -> None:
        """Starts everybody, then follows the run's events to its end and its last evaluation."""
        try:
            for site in self.prepared["sites"]:
                self._start(site, self._site(site))
            evaluator = self._start("evaluator", self._evaluator())
            self.screen.note("sites load the model")
            self._watch()
            if self.result.state == "finished" and evaluator in self._names:
                self.screen.note("scoring the last phase")
                self.processes.wait(evaluator, EVALUATE_S)
                self._watch()
        except KeyboardInterrupt:
            self.runs.abort(self.result.run, "interrupted by the user")
            raise

    def _watch(self) -> None:
        """Takes in every event since the last one, until the run has ended."""
        for event in self.runs.watch(self.result.run, after=self.result.events):
            self.result.seen(event)
            self.screen.seen(event)
            self._reap()

    def _site(self, site: str) -> list[str]:
        policy = self.folder / "sites" / site / "policy.yaml"
        return ["site", "--site", site, "--aggregator", self.address, "--policy", str(policy), "--run", self.result.run]

    def _evaluator(self) -> list[str]:
        data = ["--file", str(self.folder / "run.json"), "--rows", self.prepared["validation"]]
        return ["follow", "--aggregator", self.address, "--run", self.result.run, *data]

    def _start(self, name: str, argv: list[str]) -> int:
        pid = self.processes.start(argv, self.folder / f"{name}.log")
        self._names[pid] = name
        return pid

    def _reap(self) -> None:
        """Reports a process that ended with an error; the aggregator decides what its loss means."""
        for pid, code in self.processes.ended().items():
            name = self._names.pop(pid, "a process")
            if code:
                self.screen.warn(f"{name} ended with code {code}: {failure(code, self.folder / f'{name}.log')}")


def _keep(result: Result, folder: Path, runs: RunsClient) -> Result:
    """Writes the adapter and the result.

    Raises:
        RunFailed: the run did not finish; the message says why and where the result is.
    """
    if result.digest and result.state == "finished":
        write_adapter(folder / "adapter", result.spec, runs.model(result.run))
    path = result.write(folder)
    if result.state != "finished":
        raise RunFailed(f"run {result.run} {result.state}: {result.reason}; what was published is in {path}")
    return result


def default_folder(name: str) -> Path:
    """`runs/NAME-TIME` under the current folder."""
    return Path("runs") / f"{name.replace(' ', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
