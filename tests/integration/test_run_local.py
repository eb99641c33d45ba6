"""`deerfield pipelines run-local`: the compiled pipeline from partition to promotion, over real services.

The registry is an MLflow server on PostgreSQL, with its artifacts in S3, and has a champion already.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from deerfield.runfile import load
from deerfield.runspec import RunSpec
from pipelines.registry.reader import open_registry
from services.client.describe import describe
from tests import mlflow_server, postgres, s3
from tests.integration.federation import SITES
from tests.integration.local_pipeline import run_file, run_local

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
KEPT = ("manifest", "evaluation", "verdict")
RULES = {
    "minimum": 0.3,
    "bound": "value",
    "test_set": {"minimum": 20},
    "regression": {"margin": 0.0},
    "epsilon": {"run": 400, "lifetime": 400},
}


@pytest.fixture(scope="module")
def bucket(s3_server: s3.Server) -> str:
    return s3_server.bucket()


@pytest.fixture(scope="module")
def tracking(tmp_path_factory, s3_server: s3.Server, bucket: str) -> Iterator[str]:
    """An MLflow server on PostgreSQL, with artifacts in S3 behind it."""
    folder = tmp_path_factory.mktemp("mlflow")
    where = {"MLFLOW_S3_ENDPOINT_URL": f"http://{s3_server.endpoint}", **s3.ENVIRONMENT}
    with postgres.serving() as server:
        flags = ("--artifacts-destination", f"s3://{bucket}/mlflow")
        with mlflow_server.serving(folder, server.url(server.create()), *flags, **where) as port:
            yield f"http://localhost:{port}"


def seed(tracking: str, path: Path) -> None:
    """Makes a version of the run's model the champion, which knows nothing."""
    file = load(path)
    asked = file.spec.model_dump()
    found = describe(file.spec, str(file.embedded.base))
    asked |= {"adapter": found["adapter"], "convolutions": found["convolutions"]}
    asked["model"]["digest"], asked["federation"]["sites"] = found["digest"], SITES
    spec, rng = RunSpec.model_validate(asked), np.random.default_rng(0)
    drawn = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.adapter.items()}
    version = mlflow_server.add(tracking, spec, drawn, "seeded")
    mlflow_server.client(tracking).set_registered_model_alias(spec.name, "champion", version)


def test_a_run_becomes_champion_from_partition_to_promotion(tmp_path, tracking, s3_server, bucket):
    path, rules, out = run_file(tmp_path), tmp_path / "gate.yaml", tmp_path / "out"
    seed(tracking, path)
    rules.write_text(yaml.safe_dump(RULES))
    done = run_local(path, "--rules", rules, "--out", out, "--tracking", tracking)
    assert done.returncode == 0, done.stdout + done.stderr

    tasks = [line for line in done.stdout.splitlines() if line.isalpha()]
    assert tasks == ["partition", "rounds", "register", "evaluate", "gate", "promote", "report"]
    assert "small version 2 is champion" in done.stdout
    assert "KFP" not in done.stdout
    assert not (out / "pki").exists()

    registry = open_registry(tracking)
    champion = registry.champion("small")
    assert champion is not None
    assert (champion.version, champion.tags["deerfield.verdict"]) == ("2", "passed")
    assert champion.tags["deerfield.previous_champion"] == "1"
    client = mlflow_server.client(tracking)
    mlflow_run = client.get_model_version("small", "2").run_id
    kept = {each.path for each in client.list_artifacts(mlflow_run)}
    assert {"manifest.json", "evaluation.json", "verdict.json", "report.html", "lineage.json", "ledger"} <= kept
    names = {each.object_name for each in s3_server.client.list_objects(bucket, "mlflow/", recursive=True)}
    assert any(name.endswith("verdict.json") for name in names)

    manifest, evaluation, verdict = (json.loads((out / f"{name}.json").read_text()) for name in KEPT)
    assert set(manifest["sites"]) == set(SITES)
    assert evaluation["models"]["champion"]["version"] == "1"
    assert evaluation["differences"]["champion"]["macro_f1"]["low"] >= 0
    assert evaluation["leakage"]["checked"] == sum(part["examples"] for part in manifest["sites"].values())
    assert evaluation["test_set"]["sha256"] == manifest["test"]["sha256"]
    assert all(row["passed"] for row in verdict["rules"])
    report = (out / "report.html").read_text()
    assert "small" in report
    scored = client.get_metric_history(mlflow_run, "evaluation/accuracy")  # of each published phase, by the evaluator
    assert 0 < len(scored) <= 4
    assert "No scores of published phases are known" not in report
