"""`deerfield run`: real processes, real gRPC, real MLflow, on a model small enough for a test."""

import json
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from pipelines.registry.reader import open_registry
from tests.command import deerfield as in_this_process
from tests.integration.federation import (
    SITES,
    command,
    deerfield,
    environment,
    result,
    write,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run to its end, without noise."""
    folder = tmp_path_factory.mktemp("finished")
    done = deerfield("run", write(folder), "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_leaves_its_adapter_its_figures_and_a_registered_model(finished):
    folder, done = finished
    found = result(folder / "out")
    assert (found["state"], found["strategy"], found["seed"]) == ("finished", {"name": "deer"}, 3)
    assert [(phase["round"], phase["phase"], phase["factors"]) for phase in found["rounds"]] == [
        (0, 0, "B"),
        (0, 1, "A"),
    ]
    assert all(phase["deviation"] < 1e-6 for phase in found["rounds"])
    assert all(phase["bytes_up"] > 0 < phase["bytes_down"] and phase["seconds"] > 0 for phase in found["rounds"])
    assert all(
        set(phase["evaluation"]) == {"accuracy", "precision", "recall", "f1", "auc"} for phase in found["rounds"]
    )
    assert set(found["sites"]) == set(SITES)
    assert all(site["epsilon"] == "infinity" and site["steps"] == 16 for site in found["sites"].values())
    assert found["registered"] == {"name": "small", "version": "1"}
    assert found["adapter_sha256"] == found["rounds"][-1]["digest"]
    assert not (folder / "out/pki").exists()  # the keys of a run end with it
    assert (folder / "out/adapter/adapter_config.json").exists()
    assert "models:/small/1" in done.stdout
    assert f"report:     {folder / 'out/report.html'}" in done.stdout
    assert f"<h1>Report of {found['run']}</h1>" in (folder / "out/report.html").read_text()
    assert all(set(phase["sites"]) == set(SITES) and not phase["missing"] for phase in found["rounds"])
    assert len(done.stdout.splitlines()) <= 40
    assert "infinite" in done.stdout


def test_each_site_has_told_the_aggregator_what_its_policy_lets_out(finished):
    folder, _ = finished
    with closing(sqlite3.connect(folder / "out/aggregator.db")) as database:
        said = dict(database.execute("SELECT site, report FROM sites"))
    assert set(said) == set(SITES)
    for text in said.values():
        (population,) = json.loads(text)["populations"]
        assert (population["name"], population["on_start"], population["unit"]) == ("notes", True, None)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
def test_a_run_over_data_of_one_machine_says_so_in_its_manifest_and_lineage(finished):
    folder = finished[0] / "out"
    registry = open_registry(f"sqlite:///{folder / 'mlflow.db'}")
    version = registry.version("small", "1")
    assert registry.content(version, "manifest.json") == (folder / "manifest.json").read_bytes()
    told = registry.document(version, "lineage.json")
    assert (told["kind"], set(told["hub"])) == ("simulation", {*SITES, "test"})
    evaluated = np.load(folder / "rows/test.npy")
    assert told["hub"]["test"] == registry.document(version, "manifest.json")["test"]["sha256"]
    assert set(evaluated) <= set(np.load(folder / "rows/validation.npy"))


@pytest.mark.e2e
def test_the_same_file_and_seed_give_the_same_adapter_without_noise(finished, tmp_path):
    folder, _ = finished
    assert deerfield("run", folder / "run.yaml", "--out", tmp_path / "again").returncode == 0
    assert result(tmp_path / "again")["adapter_sha256"] == result(folder / "out")["adapter_sha256"]


def test_one_process_gives_the_same_adapter_as_four(finished, tmp_path):
    import torch

    from benchmarks.real_data import in_process
    from deerfield.runfile import load

    torch.set_num_threads(1)
    simulated = in_process(load(finished[0] / "run.yaml"), tmp_path)
    assert simulated.digest == result(finished[0] / "out")["adapter_sha256"]


def keys(found: object, path: str = "") -> set[str]:
    """Where values stand in a document: `a.b`, `list[].b`, `by_site{}.b`; `list` and `by_site` where they are last."""
    if not isinstance(found, dict | list) or not found:
        return {ended(path)}
    if isinstance(found, list):
        return set().union(*(keys(each, f"{path}[]") for each in found))
    by_site = set(found) <= set(SITES)
    return set().union(*(keys(v, path + "{}" if by_site else f"{path}.{k}".lstrip(".")) for k, v in found.items()))


def ended(path: str) -> str:
    """The path of a leaf: an empty list or object does not show what would be in it."""
    return re.sub(r"(\[\]|\{\})+$", "", path)


def documented() -> set[str]:
    """The same of the table in docs/result.md, where `.b` after `list[].a` is `list[].b`."""
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/result.md").read_text(), re.MULTILINE)
    named: set[str] = set()
    for row in rows:
        first, *rest = re.findall(r"`([^`]+)`", row)
        parent = first.rpartition(".")[0]
        named |= {first, *(parent + key if key.startswith(".") else key for key in rest)}
    return {ended(key) for key in named if not any(other.startswith(f"{key}.") for other in named)}


def test_every_key_of_a_result_is_documented_and_every_documented_key_is_there(finished):
    assert keys(result(finished[0] / "out")) == documented()


@pytest.mark.e2e
def test_a_model_is_evaluated_by_folder_and_by_alias(finished):
    folder, _ = finished
    options = ("--base", folder / "model", "--rows", folder / "out/rows/validation.npy", "--json")
    by_folder = deerfield("evaluate", folder / "out/adapter", folder / "notes.csv", *options)
    registry = ("--tracking", f"sqlite:///{folder / 'out/mlflow.db'}")
    by_alias = deerfield("evaluate", "models:/small@candidate", folder / "notes.csv", *options, *registry)
    assert (by_folder.returncode, by_alias.returncode) == (0, 0), by_folder.stderr + by_alias.stderr
    assert json.loads(by_folder.stdout) == json.loads(by_alias.stdout)
    found = json.loads(by_folder.stdout)
    assert found["metrics"] == pytest.approx(result(folder / "out")["final"])
    assert all(
        found["intervals"][name]["low"] <= value <= found["intervals"][name]["high"]
        for name, value in found["metrics"].items()
    )
    code, said = in_this_process("evaluate", "models:/small@champion", folder / "notes.csv", *options, *registry)
    assert (code, "no version of small is its champion; with an alias are: 1 (candidate)" in said) == (2, True)


@pytest.mark.e2e
def test_central_trains_one_site_on_everybodys_examples(finished, tmp_path):
    done = deerfield("run", write(tmp_path, strategy="central"), "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = result(tmp_path / "out")
    assert (found["state"], found["registered"]) == ("finished", {"name": "small", "version": "1"})
    assert set(found["sites"]) == set(found["rounds"][0]["epsilon"]) == {"central"}
    assert [path.name for path in (tmp_path / "out/sites").iterdir()] == ["central"]
    each = (np.load(finished[0] / f"out/rows/{site}.npy") for site in SITES)
    np.testing.assert_array_equal(np.load(tmp_path / "out/rows/central.npy"), np.sort(np.concatenate([*each])))


@pytest.mark.e2e
def test_a_port_in_use_is_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = deerfield("run", write(tmp_path), "--out", tmp_path / "out", "--listen", f"127.0.0.1:{port}")
    refused(done, str(port))


def refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strategy": "dear"}, "did you mean 'deer'"),
        ({"strategy": {"name": "deer", "regulater": "off"}}, "did you mean 'regulator'"),
        ({"privacy": {"unit": "family", "epsilon": 1}}, "'record', 'patient', 'site' or 'none'"),
        (
            {"strategy": "local", "privacy": {"unit": "site", "epsilon": 1}},
            "local has no guarantee for unit 'site'; it has for none, patient",
        ),
        ({"privacy": {"unit": "record", "epsilon": -1}}, "greater than 0"),
        ({"rouns": 3}, "did you mean 'rounds'"),
    ],
)
def test_a_run_file_that_cannot_be_run_is_one_sentence(tmp_path, changes, says):
    refused(deerfield("run", write(tmp_path, **changes), "--out", tmp_path / "out"), says)


@pytest.mark.e2e
def test_a_seed_a_quorum_and_a_folder_that_cannot_be_used_are_one_sentence(tmp_path):
    file = write(tmp_path)
    for arguments, part in (
        (("--out", tmp_path / "out", "--seed", "-1"), "seed"),
        (("--out", file), "cannot be used"),
        (("--out", tmp_path / "x", "--listen", "0.0.0.0:0"), "with TLS for others to join"),
    ):
        code, said = in_this_process("run", file, *arguments)
        assert (code, part in said) == (2, True), said
    refused(
        deerfield("run", write(tmp_path, federation={"quorum": 9}), "--out", tmp_path / "nine"), "9 is more than the 3"
    )
    refused(deerfield("evaluate", tmp_path, file, "--rows", tmp_path / "none.npy"), "no such file")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"embedded": {"source": {"path": "notes.csv", "input": "note", "site": "hospital"}}}, "no column 'note'"),
        pytest.param({"embedded": {"base": "nowhere/at/all"}}, "local folder", marks=pytest.mark.e2e),
        pytest.param(
            {
                "privacy": {"unit": "patient", "epsilon": 1},
                "embedded": {"source": {"path": "notes.csv", "site": "hospital"}},
            },
            "unit 'patient' needs the column that names each example's patient",
            marks=pytest.mark.e2e,
        ),
    ],
)
def test_data_or_a_model_that_cannot_be_used_is_one_sentence(tmp_path, changes, says):
    refused(deerfield("run", write(tmp_path, **changes), "--out", tmp_path / "out"), says)


def test_a_folder_that_holds_a_run_is_not_overwritten(finished):
    folder, _ = finished
    before = (folder / "out/result.json").read_bytes()
    refused(deerfield("run", folder / "run.yaml", "--out", folder / "out"), "already holds a run")
    assert (folder / "out/result.json").read_bytes() == before


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["evaluate", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    argv = [sys.executable, "-X", "importtime", *command(*arguments)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=180, check=True)
    imported = set(re.findall(r"^import time:.*\| +(\w+)$", done.stderr, re.MULTILINE))
    assert "typer" in imported
    assert not imported & {"torch", "transformers", "peft", "opacus", "mlflow", "sqlalchemy", "grpc", "numpy", "scipy"}
    assert "Usage: deerfield" in done.stdout


def test_strategies_are_listed_with_what_they_send_and_guarantee():
    said = deerfield("strategies").stdout
    assert all(name in said for name in ("deer", "fedavg", "ffa", "head", "local", "central", "record"))
