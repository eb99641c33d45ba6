"""`deerfield pipelines compile`: what it writes, says and refuses; and that the command alone loads nothing heavy."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from typer.testing import CliRunner

from deerfield.errors import InvalidInput
from deerfield.runfile import RunFile, parse, read_mapping
from pipelines import cli
from pipelines.runs import run_start
from tests.fakes import run_spec


def compile_(*arguments):
    with ThreadPoolExecutor(1) as thread:  # with a stack of its own: KFP reads it at every call, and pytest's is deep
        done = thread.submit(CliRunner().invoke, cli.app, ["pipelines", "compile", *map(str, arguments)]).result()
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output.splitlines()


def test_a_pipeline_is_written_once_and_is_the_same_the_next_time(tmp_path):
    path = tmp_path / "federated-training.yaml"
    assert compile_("federated-training", "--out", tmp_path) == [f"wrote {path}"]
    assert compile_("federated-training", "--out", tmp_path) == [f"unchanged: {path}"]
    assert len(list(yaml.safe_load_all(path.read_text()))) == 2


def test_manifests_do_not_take_the_pipelines_place(tmp_path):
    (said,) = compile_("federated-training", "--out", tmp_path, "--as-manifests", "--namespace", "kubeflow")
    assert said == f"wrote {tmp_path / 'federated-training-manifests.yaml'}"


def test_what_cannot_be_compiled_or_written_is_one_sentence(tmp_path):
    with pytest.raises(InvalidInput, match="there is no pipeline 'training'"):
        compile_("training", "--out", tmp_path)
    with pytest.raises(InvalidInput, match="--namespace is for --as-manifests"):
        compile_("--namespace", "kubeflow", "--out", tmp_path)
    with pytest.raises(InvalidInput, match=r"missing.yaml cannot be read"):
        compile_("--options", tmp_path / "missing.yaml", "--out", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match=r"cannot be written .*; name another --out"):
        compile_("federated-training", "--out", tmp_path / "file")


def test_the_command_loads_no_kfp_and_nothing_else_that_takes_seconds():
    script = "import sys, pipelines.cli; print({'kfp', 'mlflow', 'matplotlib', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_described_run_keeps_its_embedded_section(tmp_path):
    section = {"source": {"path": "notes.csv", "label": "diagnosis"}, "partition": {"kind": "iid", "sites": 4}}
    given, out = tmp_path / "run.yaml", tmp_path / "described.yaml"
    given.write_text(yaml.safe_dump({"name": "x", "embedded": section}))
    run_start.write(run_spec("a", "b"), out, run_start.embedded(given))
    found = parse(RunFile, read_mapping(out.read_text(), "run", "a run file", "name"), "run")
    assert found.spec == run_spec("a", "b")
    assert (found.embedded.source.label, found.embedded.partition.sites) == ("diagnosis", 4)
    run_start.write(run_spec("a", "b"), tmp_path / "plain.yaml")
    assert "embedded" not in (tmp_path / "plain.yaml").read_text()
