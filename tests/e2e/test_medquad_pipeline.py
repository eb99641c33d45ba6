"""MedQuAD through run-local, three times over one registry: promoted, refused because it is worse and over budget,
promoted again over the champion that stayed. Skipped where the data is not.

One seed, and so one test set: that of another seed holds what the champion was trained on. The noise has no seed.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.real_data import SHARED, Cell
from pipelines.registry.reader import open_registry
from tests.integration.local_pipeline import run_local

pytestmark = [
    pytest.mark.skipif(not SHARED.exists(), reason=f"the measurement data is not here ({SHARED})"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # SQLAlchemy 2.1
]
REFUSED = 3
RULES = {"minimum": 0.3, "regression": {"margin": 0.1}, "epsilon": {"run": 10, "lifetime": 10}}


def trained(folder: Path, tracking: str, cell: Cell, rules: dict[str, Any], **changes: Any) -> tuple[int, str, Path]:
    """Runs a cell of the grid; answers the exit code, what was said, and the folder."""
    folder.mkdir()
    document = cell.run(folder).model_dump(mode="json") | changes
    (folder / "run.yaml").write_text(yaml.safe_dump(document))
    (folder / "gate.yaml").write_text(yaml.safe_dump(rules))
    options = ["--rules", folder / "gate.yaml", "--out", folder / "out", "--tracking", tracking]
    done = run_local(folder / "run.yaml", *options)
    print(done.stdout, done.stderr)
    return done.returncode, done.stdout, folder / "out"


def verdict(out: Path) -> dict[str, Any]:
    found = json.loads((out / "verdict.json").read_text())
    return found | {"rules": {row["rule"]: row for row in found["rules"]}}


def test_the_champion_is_whoever_is_no_worse_within_budget(tmp_path):
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    good = Cell("medquad", "column", "head", 8.0, 0)
    code, said, first = trained(tmp_path / "first", tracking, good, RULES)
    assert code == 0, said
    assert "medquad version 1 is champion" in said
    manifest = json.loads((first / "manifest.json").read_text())
    assert len(manifest["sites"]) == 7

    poor = Cell("medquad", "column", "head", 0.2, 0)
    tight = RULES | {"epsilon": {"run": 0.1}}
    code, said, second = trained(tmp_path / "second", tracking, poor, tight, rounds=1)
    assert code == REFUSED, said
    assert "medquad version 2 was refused" in said
    judged = verdict(second)
    assert judged["expected_champion"] == "1"
    assert not judged["rules"]["regression"]["passed"]
    assert judged["rules"]["regression"]["value"] < -RULES["regression"]["margin"]
    assert not judged["rules"]["epsilon"]["passed"]
    assert judged["rules"]["epsilon"]["limit"] == 0.1
    registry = open_registry(tracking)
    assert registry.champion("medquad").version == "1"
    assert registry.version("medquad", "2").tags["deerfield.verdict"] == "refused"

    code, said, third = trained(tmp_path / "third", tracking, good, RULES)
    assert code == 0, said
    evaluation = json.loads((third / "evaluation.json").read_text())
    assert evaluation["models"]["champion"]["version"] == "1"
    champion = open_registry(tracking).champion("medquad")
    assert (champion.version, champion.tags["deerfield.previous_champion"]) == ("3", "1")
