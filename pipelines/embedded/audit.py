"""`deerfield audit`: prepares a run as `deerfield run` does, lets a site train with canaries, says what came of it.

Everything is thrown away, and no ledger is touched: it tests the implementation, and spends nobody's budget. So nothing
of it may be published where the data are real.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from deerfield.errors import InvalidInput
from deerfield.runfile import RunFile, load
from deerfield.strategies import make
from pipelines.embedded import running
from pipelines.processes.children import failure, preloader
from pipelines.processes.site_process import scratch

VIOLATION = 1  # exit code
TRAIN_S = 24 * 3600.0  # a round of a large model on a small machine
BROKEN = "VIOLATION: the training gives away more than it claims; the implementation is broken"
SILENT = "no audit with so few canaries can contradict this claim: lower privacy: epsilon, or train more coordinates"
KEPT = "no violation found: the bound is below the claim, as a right implementation's is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to audit."""

    file: Path
    site: str | None  # None: the first
    canaries: int | None  # None: as many as show clearly that noise is missing
    rounds: int
    noiseless: bool  # a fault to be found


def audit(request: Request, *, as_json: bool) -> int:
    """Prints what the audit found; the exit code, 1 where the claim is refuted.

    Raises:
        InvalidInput: the run file, data or model cannot be used, or there is nothing to audit.
    """
    file = load(request.file)
    waiting = Console(stderr=True).status(f"training {file.name} with canaries at one site")
    with scratch("audit") as folder, waiting:
        site, found = _train(request, file, folder)
    found = {"run": file.name, "site": site, "noise": "off" if request.noiseless else "on", **found}
    if as_json:
        print(json.dumps(found, indent=2, sort_keys=True))
    else:
        _show(found)
    return VIOLATION if found["violation"] else 0


def _train(request: Request, file: RunFile, folder: Path) -> tuple[str, dict[str, Any]]:
    pooled = make(file.spec).declares.topology == "pooled"  # refuses a bad strategy or unit before anything starts
    (folder / "logs").mkdir()
    with preloader(folder) as processes:
        spec, prepared = running.prepare(file, folder, processes, pooled=pooled)
        site = request.site or min(prepared["sites"])
        if site not in prepared["sites"]:
            raise InvalidInput(f"--site {site}: the run's sites are {', '.join(sorted(prepared['sites']))}")
        asked, answer, log = folder / "spec.json", folder / "audit.json", folder / "logs" / "audit.log"
        asked.write_text(spec.model_dump_json())
        policy = folder / "sites" / site / "policy.yaml"
        argv = ["audit", "--site", site, "--spec", str(asked), "--policy", str(policy), "--out", str(answer)]
        argv += ["--rounds", str(request.rounds)]
        argv += [] if request.canaries is None else ["--canaries", str(request.canaries)]
        argv += ["--noise-off"] if request.noiseless else []
        if code := processes.wait(processes.start(argv, log), TRAIN_S):
            raise failure(code, log)
        return site, json.loads(answer.read_text())


def verdict(found: Mapping[str, Any]) -> str:
    """One sentence."""
    if found["violation"]:
        return BROKEN + (", as it must be found with --noise-off" if found["noise"] == "off" else "")
    return KEPT if found["ceiling"] > found["claimed"] else SILENT


def _show(found: Mapping[str, Any]) -> None:
    where = f"{found['run']}, site {found['site']}, noise {found['noise']}"
    lines = (
        f"{where}: {found['steps']} steps with {found['canaries']} canaries, each in by a coin",
        f"guesses                 {found['correct']} right of {found['guesses']}",
        f"claimed epsilon         {found['claimed']:.2f} of these steps, at delta {found['delta']:g}, unit "
        f"{found['unit']}",
        f"empirical lower bound   {found['bound']:.2f} at {found['confidence']:.0%} confidence "
        f"(at most {found['ceiling']:.2f} with so many canaries)",
        verdict(found),
        "a simulation: no ledger was touched, nothing was kept; it is a test of the implementation and no proof",
    )
    Console().print(*lines, sep="\n", highlight=False, markup=False, soft_wrap=True)
