"""NVIDIA FLARE: its proof-of-concept system of a server and two clients, and a FedAvg recipe."""

import json
import re
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.peers.trial import ROUNDS, TRAIN_S, Outcome, Processes, fingerprint, last_round, mid_round, until

REQUIREMENT = "nvflare==2.9.0"
JOB = Path(__file__).with_name("nvflare_job") / "job.py"
ENDED = ("FINISHED", "ABORTED", "FAILED", "ABANDONED")


def run(bin: Path, folder: Path, *, kill: bool, patience_s: float) -> Outcome:
    """One job; the server is killed with its job process in the middle of a round.

    The start script of FLARE's server starts it again by itself.
    """
    home, poc = folder / "home", folder / "poc"
    home.mkdir()
    started = Processes(folder, {"HOME": str(home), "NVFLARE_POC_WORKSPACE": str(poc), "PATH": f"{bin}:/usr/bin:/bin"})
    flare, before = bin / "nvflare", _ours(poc)
    started.ask([bin / "python", JOB, folder / "jobs", str(ROUNDS), str(TRAIN_S), folder])
    started.ask([flare, "poc", "prepare", "-n", "2"])
    try:
        started.ask([flare, "poc", "start"], 120)
        began_at = time.monotonic()
        told = started.ask([flare, "job", "submit", "-j", folder / "jobs" / "adding"])
        job = re.search(r"job_id: (\S+)", told)
        if job is None:
            raise RuntimeError(f"no job: {told}")
        if kill:
            mid_round(folder, patience_s)
            for process in _ours(poc):
                if "private.fed.app.server" in " ".join(process.cmdline()):
                    process.kill()
        until(lambda: _state(started, flare, job[1]).startswith(ENDED), patience_s)
        state = _state(started, flare, job[1])
        return Outcome(
            state=state,
            model=_model(poc) if state.startswith("FINISHED") else "",  # it keeps one of every round
            rounds=last_round(folder),
            seconds=time.monotonic() - began_at,
        )
    finally:
        started.ask([flare, "poc", "stop", "--no-wait"], 30)
        for process in _ours(poc):
            if process not in before:
                process.kill()


def _ours(poc: Path) -> list[psutil.Process]:
    """The processes that run in this trial's workspace; FLARE's scripts detach them."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(poc) in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _state(started: Processes, flare: Path, job: str) -> str:
    told = started.ask([flare, "--format", "json", "job", "list"])
    for line in told.splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        jobs = answer.get("data") or []
        for each in jobs if isinstance(jobs, list) else jobs.get("jobs", []):
            if each.get("job_id") == job:
                return str(each["status"])
    found = re.search(rf"{job}\s+\S+\s+(\S+)", told)
    return found[1] if found else "no answer"


def _model(poc: Path) -> str:
    """The newest model of the server's job folder or of its job store."""
    found = sorted(poc.rglob("server.npy"), key=lambda path: path.stat().st_mtime)
    return fingerprint(np.load(found[-1])) if found else ""
