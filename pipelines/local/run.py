"""`federated-training` on one machine: the pipeline that KFP would run, compiled, under kfp.local, with real services.

The aggregator and the sites are processes of this command, and the tasks too, or containers; MLflow is a file, or the
server that is named. Nothing of it is left running, however it ends.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from deerfield.errors import DeerfieldError, InvalidInput, RunFailed
from deerfield.gate.rules import load_rules
from deerfield.runfile import RunFile, parse
from deerfield.runspec import RunSpec
from pipelines.compiled import compile_options, compiling
from pipelines.embedded import running
from pipelines.embedded.run_pki import RunPki, run_pki
from pipelines.local import containers
from pipelines.local.containers import SQLITE
from pipelines.local.log import Told
from pipelines.local.sites import LocalSites
from pipelines.processes.children import aggregator, preloader, worker
from pipelines.registry.reader import open_registry
from pipelines.runs.run_start import described
from pipelines.steps.running import EXIT_CODE

PIPELINE = "federated-training"
OPTIONS = compile_options.CompileOptions(retries=0)  # all services are here: what fails once fails again
LISTEN = "127.0.0.1:0"
KEPT = {  # by task and artifact: what is copied to the folder under a name that people know
    "partition/manifest": "manifest.json",
    "partition/picture": "partition.html",
    "evaluate/evaluation": "evaluation.json",
    "evaluate/page": "evaluation.html",
    "gate/verdict": "verdict.json",
    "report/page": "report.html",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to run, and where."""

    file: RunFile
    source: Path  # of the file, for errors
    rules: Path | None  # of the gate; None: its defaults
    folder: Path
    tracking: str  # MLflow URI; empty: a file in the folder
    image: str  # of a container for each task; empty: a process for each
    at_sites: float = 0.0  # epsilon that each site may spend on scoring the models; 0: they are not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the pipeline ended that did not fail."""

    promoted: bool
    verdict: Mapping[str, Any]
    tracking: str


def execute(request: Request, say: Callable[[str], object]) -> Outcome:
    """Runs the pipeline to its end, and says a line for whatever happens.

    Raises:
        InvalidInput: the run file, its data, its model or the rules cannot be used.
        Unreachable: the MLflow server or the container engine does not answer.
        RunFailed: a task failed otherwise; the message is its own.
    """
    running.training(request.file.spec)  # refuses a bad strategy or unit before anything starts
    rules, tracking = _rules(request.rules), _tracking(request)
    if not (on_file := tracking.startswith(SQLITE)):
        open_registry(tracking).models()  # before anything is trained that nobody could keep
    image = containers.image_id(request.image) if request.image else ""
    running.claim(request.folder)
    say("describing the base model")
    file = _complete(request)
    (request.folder / "run.json").write_text(file.model_dump_json(indent=2))
    artifacts = None if on_file else ""  # the server knows where it keeps them
    where = running.Where(folder=request.folder, listen=LISTEN, tracking=tracking, artifacts=artifacts)
    logs = request.folder / "logs"
    with (
        run_pki(request.folder) as pki,
        preloader(request.folder) as processes,
        aggregator(running.served(file, where, pki), logs / "aggregator.log") as server,
    ):
        asked = _asked(replace(request, file=file, image=image), rules, where, server.address)
        sites = LocalSites(
            file, request.folder, server, processes, pki, lambda: _made(request.folder, "partition/manifest"), say
        )
        told = Told(say)
        try:
            with worker(asked, logs / "pipeline.log", _environment(pki, request.folder)) as child:
                sites.follow(child.answers, told.line)
                code = child.process.wait()
        finally:
            _keep(request.folder)
    if code or told.failed:
        raise sites.error or _failure(told, request.folder)
    return _outcome(request.folder, tracking)


def _rules(path: Path | None) -> str:
    """The rules as a pipeline is given them; empty for the gate's own defaults."""
    return "" if path is None else yaml.safe_dump(load_rules(path).model_dump(mode="json", exclude_none=True))


def _tracking(request: Request) -> str:
    """MLflow's URI, the same wherever it is read: a file is named by its whole path."""
    if request.tracking and not request.tracking.startswith(SQLITE):
        return request.tracking
    return f"{SQLITE}{Path(request.tracking.removeprefix(SQLITE) or request.folder / 'mlflow.db').resolve()}"


def _complete(request: Request) -> RunFile:
    """The run file as a pipeline is given it: with what its base model says."""
    file = request.file
    spec: RunSpec = described(request.source, file.spec, file.embedded.base or file.model.base)
    return parse(RunFile, {**spec.model_dump(), "embedded": file.embedded.model_dump()}, str(request.source))


def _asked(request: Request, rules: str, where: running.Where, address: str) -> Path:
    """Compiles the pipeline, and writes down what the worker is to do with it."""
    folder = where.folder / "kfp"
    pipeline, asked, file = folder / f"{PIPELINE}.yaml", folder / "request.json", request.file
    compiling.write(compiling.compiled(PIPELINE, OPTIONS), pipeline)
    arguments = {
        "run": yaml.safe_dump(file.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "test_set": "",  # the partition's
        "evaluate_at_sites": request.at_sites,
        "base": file.embedded.base or file.model.base,
        "aggregator": address,
        "tracking": where.tracking,
        "rules": rules,
        "destination": str(where.folder / "parts"),
    }
    seen = asdict(containers.shown(request.image, file, where.folder, where.tracking)) if request.image else None
    document = {"pipeline": str(pipeline), "folder": str(folder), "arguments": arguments, "containers": seen}
    asked.write_text(json.dumps(document, indent=1))
    return asked


def _environment(pki: RunPki, folder: Path) -> dict[str, str]:
    """What each task finds its services by, as it does in a pod."""
    files = pki.operator("pipeline")
    return {
        "DEERFIELD_TLS_CERTIFICATE": str(files.certificate),
        "DEERFIELD_TLS_KEY": str(files.key),
        "DEERFIELD_TLS_CA": str(files.authority),
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),  # one task at a time computes, and then no site does
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        EXIT_CODE: str(folder / "kfp" / "exit-code"),
    }


def _made(folder: Path, artifact: str) -> Path | None:
    """A task's artifact, once it is written."""
    return next(iter(folder.glob(f"kfp/{PIPELINE}-*/{artifact}")), None)


def _keep(folder: Path) -> None:
    for artifact, name in KEPT.items():
        if (found := _made(folder, artifact)) is not None:
            shutil.copyfile(found, folder / name)


def _failure(told: Told, folder: Path) -> DeerfieldError:
    named = folder / "kfp" / "exit-code"
    code = named.read_text() if named.exists() else ""
    kind = InvalidInput if code == str(InvalidInput.exit_code) else RunFailed
    error = told.error or f"it said nothing; see {folder / 'logs' / 'pipeline.log'}"
    return kind(f"{told.failed}: {error}" if told.failed else f"the pipeline failed: {error}")


def _outcome(folder: Path, tracking: str) -> Outcome:
    verdict = json.loads((folder / "verdict.json").read_text())
    return Outcome(promoted=verdict["passed"], verdict=verdict, tracking=tracking)
