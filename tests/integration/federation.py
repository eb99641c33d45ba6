"""A small federation for `deerfield run`: a random text model, a table of words, three hospitals."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.unit.client import tiny

WORDS = ("fever", "cough", "rash", "pain", "photo")
SITES = ("east", "north", "west")


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
    """A new user's: mlflow leaves the tracking URI of earlier tests in this process's own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}


def deerfield(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=180, check=False
    )
