"""A run for `deerfield pipelines run-local`, small enough for a test, and the command."""

import subprocess
from pathlib import Path
from typing import Any

from tests.integration.federation import SITES, assert_none_left, command, environment, write
from tests.unit.client import tiny

LIMIT_S = 1500.0  # of a command, on a machine that does other things too
PATIENTS = 60  # of each site


def run_file(folder: Path, **changes: Any) -> Path:
    """A run whose texts say their label, so that a model of a few thousand parameters learns it under little noise."""
    privacy = {"unit": "patient", "epsilon": 400.0}
    training = {"lr_adapter": 0.8, "lr_head": 0.8}
    path = write(folder, **{"rounds": 2, "privacy": privacy, "training": training, **changes})
    lines = ["hospital,patient,label,text"]
    for site in SITES:
        for patient in range(PATIENTS):
            label = tiny.LABELS[patient % 3]
            lines.append(f"{site},{site}{patient},{label},{label} {label} {site}{patient}")
    (folder / "notes.csv").write_text("\n".join(lines) + "\n")
    return path


def run_local(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end, and sees that no process of it is left."""
    here = environment()
    argv = command("pipelines", "run-local", *arguments)
    done = subprocess.run(argv, env=here, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert_none_left(here)
    return done
