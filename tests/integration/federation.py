"""A small federation for `deerfield run`: a random text model, a table of words, three hospitals."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from tests.unit.client import tiny

WORDS = ("fever", "cough", "rash", "pain", "photo")
SITES = ("east", "north", "west")
MARK = "STARTED_BY_TEST"  # an environment variable that whatever a command starts inherits, forked or orphaned


def write(folder: Path, **changes: Any) -> Path:
    """A run file with its model and data beside it; `changes` replace whole sections of the run."""
    tiny.save("bert", folder / "model")
    rng = np.random.default_rng(0)
    lines = ["hospital,patient,label,text"]
    for site in SITES:
        for patient in range(40):
            label = str(rng.choice(tiny.LABELS))
            lines.append(f"{site},{site}{patient},{label},{label} {' '.join(rng.choice(WORDS, 3))}")
    (folder / "notes.csv").write_text("\n".join(lines) + "\n")
    run: dict[str, Any] = {
        "name": "small",
        "seed": 3,
        "strategy": "deer",
        "rounds": 1,
        "population": "notes",
        "labels": list(tiny.LABELS),
        "model": {"base": "tiny/bert", "input": "text", "lora": {"rank": 2, "targets": ["query", "value"]}},
        "privacy": {"unit": "none"},
        "embedded": {
            "base": "model",
            "source": {"path": "notes.csv", "patient": "patient", "site": "hospital"},
            "partition": {"kind": "column"},
        },
    }
    for section, value in changes.items():
        run[section] = {**run[section], **value} if isinstance(run.get(section), dict) else value
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def command(*arguments: str | Path) -> list[str]:
    return [str(Path(sys.executable).with_name("deerfield")), *map(str, arguments)]


def environment() -> dict[str, str]:
    """A new user's, marked: mlflow leaves the tracking URI of earlier tests in this process's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return kept | {MARK: uuid.uuid4().hex}


def started_in(environment: dict[str, str]) -> list[psutil.Process]:
    """The processes alive that were started in `environment`, by whomever."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended meanwhile, or is not ours to look at
            if process.environ().get(MARK) == environment[MARK]:
                found.append(process)
    return found


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def wait_for(holds: Callable[[], object], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        os.sched_yield()
        signal.sigtimedwait([], 0.1)


def assert_none_left(environment: dict[str, str]) -> None:
    """Nothing that was started in `environment` is alive, or will be in a moment."""
    try:
        wait_for(lambda: not started_in(environment), 20)
    except AssertionError:
        left = started_in(environment)
        for process in left:
            process.kill()
        raise AssertionError(f"left behind: {left}") from None


def deerfield(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end, and sees that no process of it is left."""
    here = environment()
    done = subprocess.run(command(*arguments), env=here, capture_output=True, text=True, timeout=180, check=False)
    assert_none_left(here)
    return done
