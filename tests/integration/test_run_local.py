"""`deerfield pipelines run-local`: the compiled pipeline from partition to promotion, over real services.

The registry is an MLflow server on PostgreSQL, with its artifacts in S3, and has a champion already.
"""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deerfield.runfile import load
from deerfield.runspec import RunSpec
from pipelines.registry_reader import open_registry
from services.client.describe import describe
from tests import mlflow_server, postgres, s3
from tests.integration.federation import SITES, assert_none_left, command, environment, write
from tests.unit.client import tiny

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
LIMIT_S = 540.0  # of a command, on a machine that does other things too
PATIENTS = 60  # of each site
RULES = {"minimum": 0.3, "bound": "value", "regression": {"margin": 0.0}, "epsilon": {"run": 400, "lifetime": 400}}


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
    here = environment()
    argv = command("pipelines", "run-local", path, "--rules", rules, "--out", out, "--tracking", tracking)
    done = subprocess.run(argv, env=here, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert_none_left(here)
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
    assert "small" in (out / "report.html").read_text()


KEPT = ("manifest", "evaluation", "verdict")


def test_a_command_that_is_killed_leaves_nothing_behind(tmp_path):
    """Its tasks, the sites and the aggregator end with it, as nobody is told to end them."""
    here = environment()
    argv = command("pipelines", "run-local", run_file(tmp_path), "--out", tmp_path / "out")
    with subprocess.Popen(argv, env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = iter(process.stdout)
        assert any("phase published" in line for line in said)  # every process is at work
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert_none_left(here)


def test_an_interrupt_ends_everything_and_says_so(tmp_path):
    here = environment()
    argv = command("pipelines", "run-local", run_file(tmp_path), "--out", tmp_path / "out")
    with subprocess.Popen(argv, env=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert any(line == "partition\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert_none_left(here)
    assert process.returncode == 130
    assert errors == "interrupted: everything that was started has been stopped\n"


def test_what_a_task_refuses_is_one_sentence_and_exit_code_2(tmp_path):
    here = environment()
    path = run_file(tmp_path, labels=[*tiny.LABELS, "gout"])
    argv = command("pipelines", "run-local", path, "--out", tmp_path / "out")
    done = subprocess.run(argv, env=here, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert_none_left(here)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: partition: labels: 'gout' occurs in none of the 180 rows")
    assert (tmp_path / "out/report.html").exists()  # whatever has become of the pipeline
