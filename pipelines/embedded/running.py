"""A whole federation on one machine: real processes, real gRPC, the same run file as on a cluster.

Prepares the sites (partition, base model), writes the policy that each hospital would own, starts the aggregator, the
sites and the evaluator, and follows the run to its end. Nothing of it is left running, however it ends.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deerfield import __version__, keyfile
from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.errors import InvalidInput, RunFailed
from deerfield.peft_folder import write as write_adapter
from deerfield.plan import drowned
from deerfield.runfile import RunFile, parse
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.strategy import Strategy
from deerfield.wire.client import RunsClient
from pipelines.embedded.federation import Federation
from pipelines.embedded.run_pki import RunPki, channel, run_pki
from pipelines.embedded.run_pki import flags as tls_flags
from pipelines.embedded.simulated_policy import simulated_policy
from pipelines.processes.children import Preloader, aggregator, failure, preloader
from pipelines.runs.report import Live
from pipelines.runs.result import Result

PREPARE_S = 600.0  # reading the data and hashing the base model
TRACKING_PATIENCE_S = 7.0  # its MLflow is a file, or a server that whoever sits before it has named


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The places of an embedded run."""

    folder: Path
    listen: str
    tracking: str  # MLflow URI
    artifacts: str | None = None  # where MLflow keeps models; empty: its server's own place; default: in `folder`


def execute(file: RunFile, where: Where, live: Callable[[int, int], Live]) -> Result:
    """Runs `file` to its end and writes everything to `where.folder`.

    Raises:
        InvalidInput: the run file, data or model cannot be used.
        RunFailed: the run ended before its last round; `result.json` says how far it came.
    """
    started = time.monotonic()
    strategy = training(file.spec)  # refuses a bad strategy or unit before anything starts
    claim(where.folder)
    with (
        run_pki(where.folder) as pki,
        preloader(where.folder) as processes,
        aggregator(served(file, where, pki), where.folder / "logs" / "aggregator.log") as server,
        channel(server.address, pki.operator("launcher")) as line,
    ):
        runs = RunsClient(line)
        spec, prepared = prepare(file, where.folder, processes, pooled=strategy.declares.topology == "pooled")
        run = runs.start(spec, uuid.uuid4().hex)
        runs.attach(run, MANIFEST, (where.folder / MANIFEST).read_bytes())  # whose data they are, before a site begins
        result = Result(runs.get(run).spec, run, version=__version__)  # complete, as the sites will read it
        phases = strategy.declares.rounds * len(strategy.declares.phases)
        try:
            with live(phases, len(spec.federation.sites)) as screen:
                screen.say(_told(prepared, file))
                if (warning := drowned(spec, strategy.declares)) is not None:
                    screen.warn(warning)
                states = {site: site_state(file, where.folder, site) for site in prepared["sites"]}
                Federation(result, where.folder, server, processes, runs, screen, prepared, states, pki).follow()
            _keep(result, where.folder, runs)
        finally:
            result.seconds = time.monotonic() - started
            path = result.write(where.folder)
            _report(where.folder)
    if result.state != "finished":
        raise RunFailed(f"run {run} {result.state}: {result.reason}; what was published is in {path}")
    return result


def training(spec: RunSpec) -> Strategy:
    """The strategy of a run that begins with no model; raises InvalidInput for a bad one, or one that scores models."""
    strategy = make(spec)
    if strategy.declares.models:
        raise InvalidInput(
            f"strategy: {spec.strategy['name']} scores models of finished runs, and an aggregator that is started for "
            "this run alone has none; start it at the one that trained them, with deerfield runs evaluate"
        )
    return strategy


def _told(prepared: Mapping[str, Any], file: RunFile) -> str:
    """What a person should know before they read the figures."""
    budget, declared = file.embedded.budget, file.embedded.units_low is not None
    low, high = prepared["units_low"], prepared["units_high"]
    bounds = "as declared" if declared else "taken from the data"
    noun = "patients" if file.privacy.unit == "patient" else "examples"
    size = "one unit each" if file.privacy.unit == "site" else f"{low} to {high} {noun} each ({bounds})"
    return f"{len(prepared['sites'])} sites on {prepared['device']}, {size}; " + (
        "budgets in " + budget.ledgers if budget else "a simulation: its budget is thrown away"
    )


def served(file: RunFile, where: Where, pki: RunPki) -> list[str]:
    """The aggregator's flags: SQLite and a folder, a free port of this machine, certificates of this run."""
    folder = where.folder
    arguments = {
        "--listen": where.listen,
        "--health": "127.0.0.1:0",
        "--database": f"sqlite:///{folder / 'aggregator.db'}",
        "--blobs": str(folder / "blobs"),
        "--key": str(aggregator_key(file, folder)),
        "--tracking": where.tracking,
        "--artifacts": str(folder / "artifacts") if where.artifacts is None else where.artifacts,
        "--tracking-patience": str(TRACKING_PATIENCE_S),
        "--lost-after": str(file.embedded.lost_after_s),
        "--revoked": str(pki.revoked),
    }
    return [part for pair in arguments.items() for part in pair] + tls_flags(pki.aggregator(where.listen))


def aggregator_key(file: RunFile, folder: Path) -> Path:
    """The aggregator's key: sites whose ledgers outlive the run know it from run to run."""
    budget = file.embedded.budget
    return (Path(budget.ledgers) if budget else folder) / keyfile.AGGREGATOR


def site_state(file: RunFile, folder: Path, site: str) -> Path:
    """Where a site keeps its ledgers, key and stored updates: beside the run, unless they are to outlive it."""
    budget = file.embedded.budget
    return Path(budget.ledgers) / site if budget else folder / "sites" / site / "state"


def claim(folder: Path) -> None:
    """Makes the folder, and refuses one that holds a run, finished or not: nothing is overwritten."""
    try:
        if (folder / "result.json").exists() or (folder / "run.json").exists():
            raise InvalidInput(f"{folder} already holds a run; choose another --out, or move it away")
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"--out {folder} cannot be used: {error.strerror}; choose another folder") from error


def prepare(file: RunFile, folder: Path, processes: Preloader, *, pooled: bool) -> tuple[RunSpec, dict[str, Any]]:
    """Lets a site process split the data and describe the adapter; completes the run with what it found."""
    request, answer, log = folder / "run.json", folder / "prepared.json", folder / "logs" / "prepare.log"
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
    """The run, complete: with its sites, its adapter's shapes and its base model's digest.

    Raises:
        InvalidInput: the file names another base model or other sites, or the sites do not fit quorum and weights.
    """
    sites, digest = tuple(prepared["sites"]), file.model.digest or prepared["digest"]
    if digest != prepared["digest"]:
        raise InvalidInput(
            f"model: digest is {digest}, the base model here has {prepared['digest']}; correct one of them"
        )
    if file.federation.sites and set(file.federation.sites) != set(sites):
        raise InvalidInput(
            f"federation: sites names {', '.join(file.federation.sites)}; the data gives {', '.join(sites)}"
        )
    found = {**file.spec.model_dump(), "adapter": prepared["adapter"], "convolutions": prepared["convolutions"]}
    found["model"]["digest"] = digest
    found["federation"]["sites"] = sites
    return parse(RunSpec, found, file.name)


def site_policy(file: RunFile, spec: RunSpec, rows: str, prepared: Mapping[str, Any]) -> dict[str, Any]:
    """What the hospital would have written: where the run's population and base model are."""
    source = file.embedded.source.model_copy(update={"rows": rows})
    models = {str(spec.model.digest): file.embedded.base or spec.model.base}
    return {"models": models, **simulated_policy(file, source, prepared["units_low"], prepared["units_high"])}


def _report(folder: Path) -> None:
    """Writes the run's page beside its figures, however it ended; drawing takes a second."""
    from pipelines.report_page.reporting import NAME, in_folder, write

    write(in_folder(folder), folder / NAME)


def _keep(result: Result, folder: Path, runs: RunsClient) -> None:
    """Writes the adapter of a run that finished; a strategy that personalises has one for each site."""
    if result.state != "finished":
        return
    view = runs.get(result.run)
    models = {site: folder / "adapter" / site for site in view.personal}
    for site, place in models.items():
        write_adapter(place, result.spec, runs.fetch(view.personal[site]))
    if not models:
        write_adapter(folder / "adapter", result.spec, runs.fetch(view.model))


def default_folder(name: str) -> Path:
    """`runs/NAME-TIME` under the current folder."""
    return Path("runs") / f"{name.replace(' ', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
