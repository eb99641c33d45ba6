"""Schedules files and compiled pipelines that are wrong: what a person is told."""

import re
from pathlib import Path

import pytest
import yaml

from deerfield import __version__
from deerfield.errors import InvalidInput
from pipelines.compiled import compiling, package
from pipelines.kubeflow import schedules
from tests import compiled
from tests.compiled import RUN, UNDESCRIBED
from tests.golden.test_drift import module

ROOT = Path(__file__).resolve().parents[3]

GOOD = {"name": "weekly", "pipeline": "federated-training", "cron": "0 0 3 * * 1", "parameters": {"run": RUN}}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return compiled.write(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def packages(path):
    return package.read_all([path])


@pytest.fixture
def refused(packages, tmp_path):
    """The sentence about a schedules file, given as its text or its schedules."""

    def say(*asked, text=None):
        file = tmp_path / "schedules.yaml"
        file.write_text(text if text is not None else yaml.safe_dump({"schedules": list(asked)}))
        with pytest.raises(InvalidInput) as error:
            schedules.load(file, packages)
        assert "\n" not in str(error.value)
        assert error.value.exit_code == 2
        return str(error.value).replace(str(file), "FILE")

    return say


def test_a_schedule_has_the_defaults_that_the_page_names(packages, tmp_path):
    file = tmp_path / "schedules.yaml"
    file.write_text(yaml.safe_dump({"schedules": [GOOD]}))
    (found,) = schedules.load(file, packages)
    assert (found.experiment, found.max_concurrency, found.catchup, found.enabled) == ("Default", 1, False, True)
    assert found.service_account is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cron": "0 3 * * 1"}, "schedules.0.cron: '0 3 * * 1' has five fields; write six, seconds first"),
        ({"cron": "0 0 25 * * 1"}, "hours is '25'; it may be *, numbers from 0 to 23"),
        ({"chron": "0 0 3 * * 1"}, "unknown key 'schedules.0.chron'; did you mean 'cron'?"),
        ({"max_concurrency": 11}, "schedules.0.max_concurrency is 11: input should be less than or equal to 10"),
        ({"max_concurrency": "2"}, "schedules.0.max_concurrency is '2': input should be a valid integer"),
        ({"enabled": "yes"}, "schedules.0.enabled is 'yes': input should be a valid boolean"),
        ({"name": "../x"}, "schedules.0.name is '../x'"),
        ({"service_account": "Default Editor"}, "schedules.0.service_account is 'Default Editor'"),
        ({"pipeline": "training"}, "no compiled pipeline is called 'training'; given are federated-training"),
        ({"parameters": {"run": RUN, "round": 3}}, "has no parameter 'round'; did you mean 'rounds'?"),
        ({"parameters": {"run": RUN, "zzz": 3}}, "has no parameter 'zzz'; it takes fast, limits, rate, rounds, run"),
        ({"parameters": {}}, "needs parameter 'run', which has no default"),
        ({"parameters": {"run": 3}}, "parameter 'run' is 3; it must be text; put it in quotes"),
        ({"parameters": {"run": RUN, "rounds": 2.5}}, "parameter 'rounds' is 2.5; it must be a whole number"),
        ({"parameters": {"run": RUN, "rounds": True}}, "parameter 'rounds' is True; it must be a whole number"),
        ({"parameters": {"run": RUN, "rate": float("inf")}}, "parameter 'rate' is inf; it must be a number"),
        ({"parameters": {"run": RUN, "fast": 1}}, "parameter 'fast' is 1; it must be true or false"),
        ({"parameters": {"run": RUN, "sites": "north"}}, "parameter 'sites' is 'north'; it must be a list"),
        ({"parameters": {"run": RUN.replace("rank", "rang")}}, "parameter 'run': unknown key 'model.lora.rang'"),
        ({"parameters": {"run": UNDESCRIBED}}, "give the run file that deerfield runs describe writes"),
        ({"parameters": {"run": "notes.yaml"}}, "parameter 'run': a run file is a mapping of keys, such as name:"),
        ({"files": {"run": "x.yaml"}}, "parameter 'run' stands in parameters and in files; keep one of them"),
        ({"parameters": {}, "files": {"run": "none.yaml"}}, "none.yaml cannot be read (No such file or directory)"),
    ],
)
def test_a_wrong_schedule_is_refused_by_key_and_value(refused, change, sentence):
    assert sentence in refused(GOOD | change)


def test_two_schedules_of_one_name_are_refused(refused):
    assert "two schedules are called 'weekly'" in refused(GOOD, GOOD)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "FILE: a schedules file is a mapping of keys, such as schedules:, and this is empty"),
        ("- a\n", "FILE: a schedules file is a mapping of keys, such as schedules:, and this is a list"),
        ("schedules: [\n", "FILE, line 2, column 1: not YAML"),
        ("schedule: []\n", "FILE: schedules is missing"),
        ("schedules: weekly\n", "FILE: schedules is 'weekly': input should be a valid list"),
    ],
)
def test_a_file_of_another_kind_is_refused(refused, text, sentence):
    assert refused(text=text).startswith(sentence)


def test_a_file_that_is_not_there_is_refused(packages, tmp_path):
    with pytest.raises(
        InvalidInput, match="cannot be read: No such file or directory; it ought to be a schedules file"
    ):
        schedules.load(tmp_path / "none.yaml", packages)


def test_the_version_is_the_bytes_and_equal_bytes_are_one_version(path, packages, tmp_path):
    copy = tmp_path / "copy.yaml"
    copy.write_bytes(path.read_bytes())
    found = packages["federated-training"]
    assert package.read(copy).version == found.version
    assert found.version.startswith(f"{__version__}-")
    copy.write_text(path.read_text() + "# a comment\n")
    assert package.read(copy).version != found.version


def test_a_pipeline_that_another_version_compiled_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=f"was compiled by deerfield 0.0.9, and this is {__version__}; compile it"):
        package.read(compiled.write(tmp_path, by="0.0.9"))
    with pytest.raises(InvalidInput, match="does not say which version of deerfield compiled it"):
        package.read(compiled.write(tmp_path / "unstamped", by=None))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.yaml", "name: notes\n"),
        ("run.yaml", "a: [\n"),
        ("run.yaml", ""),
        ("pipeline.tar.gz", "pipelineInfo: {name: x}\nroot: {}\n"),
        ("pipeline.yaml", "apiVersion: pipelines.kubeflow.org/v2beta1\nkind: Pipeline\n"),
    ],
)
def test_a_file_that_is_no_compiled_pipeline_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=r"is no compiled pipeline .* deerfield pipelines compile"):
        package.read(tmp_path / name)


def test_two_pipelines_of_one_name_are_refused(path, tmp_path):
    with pytest.raises(InvalidInput, match="are both called 'federated-training'; give one of them"):
        package.read_all([path, compiled.write(tmp_path, rounds=9)])


def test_parameters_of_a_command_are_read_as_what_they_are(packages, tmp_path):
    (tmp_path / "run.yaml").write_text(RUN)
    values = ["rounds=7", "rate=0.5", "fast=true", 'sites=["north"]', 'limits={"epsilon": 3}']
    found = package.given(packages["federated-training"], values, [f"run={tmp_path / 'run.yaml'}"])
    assert found == {
        "rounds": 7,
        "rate": 0.5,
        "fast": True,
        "sites": ["north"],
        "limits": {"epsilon": 3},
        "run": RUN,
    }


@pytest.mark.parametrize(
    ("values", "files", "sentence"),
    [
        (["rounds"], [], "--parameter 'rounds' is no NAME=VALUE"),
        (["run=a", "run=b"], [], "--parameter 'run=b' comes twice"),
        (["run=a"], ["run=b"], "--file 'run=b' comes twice"),
        (["rounds=many"], [], "--parameter 'rounds=many': it must be a whole number, as JSON has it"),
        ([f"run={RUN}", "rounds=2.5"], [], "parameter 'rounds' is 2.5; it must be a whole number"),
        (["round=3"], [], "has no parameter 'round'; did you mean 'rounds'?"),
        ([], ["run=none.yaml"], "none.yaml cannot be read"),
        ([], [], "needs parameter 'run', which has no default"),
    ],
)
def test_wrong_parameters_of_a_command_are_refused(packages, values, files, sentence):
    with pytest.raises(InvalidInput) as refused:
        package.given(packages["federated-training"], values, files)
    assert sentence in str(refused.value)


WHOLE = {"run": RUN, "base": "b", "rules": "minimum: 0.7", "aggregator": "a:8600", "tracking": "http://m:5000"}


@pytest.fixture(scope="module")
def training():
    return package.read(ROOT / "tests/golden/pipelines/federated-training.yaml")


def test_every_parameter_that_is_missing_is_named_at_once(training):
    package.check(training, WHOLE, "here")
    with pytest.raises(InvalidInput, match="needs parameters 'aggregator', 'rules', which have no default"):
        package.check(training, {name: WHOLE[name] for name in ("run", "base", "tracking")}, "here")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rules": "minimum: 2"}, "here: parameter 'rules': minimum is 2"),
        ({"rules": "minimum: 0.7\nmargin: 0.1"}, "here: parameter 'rules': unknown key 'margin'"),
        ({"evaluate_at_sites": -1.0}, "here: parameter 'evaluate_at_sites' is -1; it must be an epsilon, or 0"),
    ],
)
def test_what_would_end_a_run_is_refused_before_it_is_scheduled(training, change, sentence):
    with pytest.raises(InvalidInput) as refused:
        package.check(training, WHOLE | change, "here")
    assert str(refused.value).startswith(sentence)


def test_the_page_names_every_key_with_its_default_and_meaning():
    row = module(ROOT / "docs/run_file.py").row
    page = (ROOT / "docs/schedules.md").read_text()
    for name, field in schedules.Schedule.model_fields.items():
        assert row(name, field) in page


def test_the_example_of_the_page_fits_the_pipeline_that_deerfield_compiles(tmp_path):
    (example,) = re.findall(r"```yaml\n(schedules:.*?)```", (ROOT / "docs/schedules.md").read_text(), re.DOTALL)
    text = compiled.text("federated-training")
    assert compiling.write(text, tmp_path / "federated-training.yaml")
    (tmp_path / "schedules.yaml").write_text(example)
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "gate.yaml").write_text((ROOT / "examples/gate.yaml").read_text())
    packages = package.read_all([tmp_path / "federated-training.yaml"])
    (found,) = schedules.load(tmp_path / "schedules.yaml", packages)
    assert (found.name, found.parameters["run"]) == ("weekly", RUN)


def test_each_pipeline_that_deerfield_compiles_can_be_registered(tmp_path):
    for name in compiling.NAMES:
        compiling.write(compiled.text(name), tmp_path / f"{name}.yaml")
    assert sorted(package.read_all(tmp_path.iterdir())) == sorted(compiling.NAMES)
