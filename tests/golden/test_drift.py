"""What is committed is what its generator makes, and examples and pins hold together."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from deerfield.errors import REFUSALS
from deerfield.gate import judge, load_rules
from deerfield.runfile import load, load_spec
from deerfield.strategies import make
from services.client.custody.survey import survey
from services.client.policy import load as load_policy
from tests.gating import evidence

ROOT = Path(__file__).resolve().parents[2]
PROTO = "deerfield/wire/federation.proto"


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_generated_protobuf_is_what_the_contract_makes(tmp_path):
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", *outputs, PROTO]
    subprocess.run(command, check=True)
    made = sorted(path for path in tmp_path.rglob("*.py*"))
    assert len(made) == 3
    for path in made:
        committed = ROOT / path.relative_to(tmp_path)
        assert committed.read_text() == path.read_text(), f"{committed.name} has drifted; run make proto"


def test_the_wire_and_the_error_tree_name_the_same_reasons():
    text = (ROOT / "protos" / PROTO).read_text()
    block = re.search(r"enum Reason \{(.*?)\}", text, re.DOTALL)
    names = set(re.findall(r"^\s+([A-Z_]+) = \d+;", block[1], re.MULTILINE)) - {"REASON_UNSPECIFIED"}
    assert names == set(REFUSALS) | {"INVALID_INPUT", "NO_ROOM"}  # these two refuse no update


def test_the_run_file_page_is_what_the_models_say():
    page = module(ROOT / "docs/run_file.py").markdown()
    assert (ROOT / "docs/run-file.md").read_text() == page, "run python docs/run_file.py > docs/run-file.md"


def test_the_policy_page_is_what_the_models_say():
    page = module(ROOT / "docs/run_file.py").policy_markdown()
    assert (ROOT / "docs/policy.md").read_text() == page, "run python docs/run_file.py policy > docs/policy.md"


def test_the_page_on_compile_options_is_what_the_models_say():
    page = module(ROOT / "docs/run_file.py").compile_markdown()
    assert (ROOT / "docs/compile-options.md").read_text() == page, "run python docs/run_file.py compile > that page"


def test_the_page_on_the_gate_is_what_the_models_say():
    page = module(ROOT / "docs/run_file.py").gate_markdown()
    assert (ROOT / "docs/gate.md").read_text() == page, "run python docs/run_file.py gate > docs/gate.md"


def test_the_example_of_the_gates_rules_keeps_a_margin_and_judges_sites():
    rules = load_rules(ROOT / "examples/gate.yaml")
    assert rules.privacy == "required"
    assert rules.worst_site.minimum is not None


def test_the_page_on_the_gate_names_every_rule():
    asked = load_rules(ROOT / "examples/gate.yaml")
    page = (ROOT / "docs/gate.md").read_text()
    for row in judge(asked, evidence()).rules:
        assert f"| `{row.rule}` |" in page


def test_the_example_of_a_policy_is_one():
    policy = load_policy(ROOT / "examples/site-policy.yaml")
    assert all(population.registration == "required" for population in policy.populations.values())
    assert {population.unit for population in policy.populations.values()} == {"patient", "record"}


def test_the_page_on_strategies_quotes_a_real_one():
    assert (ROOT / "deerfield/strategies/ffa.py").read_text().strip() in (
        ROOT / "docs/adding-a-strategy.md"
    ).read_text()


def test_the_triage_notes_are_what_their_generator_makes(tmp_path):
    out = tmp_path / "notes.csv"
    subprocess.run([sys.executable, ROOT / "examples/triage_notes.py", "--out", out], check=True)
    assert out.read_bytes() == (ROOT / "examples/triage-notes.csv").read_bytes()


def test_the_trial_files_are_what_their_generator_makes(tmp_path):
    subprocess.run([sys.executable, ROOT / "examples/trial_files.py", "--out", tmp_path], check=True)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(made) == 5
    for path in made:
        assert (tmp_path / path).read_bytes() == (ROOT / "examples/trial" / path).read_bytes(), path


def test_the_trial_run_describes_its_base_model_and_fits_the_policy_beside_it():
    from services.client.describe import describe  # torch
    from services.client.training.backbones import digest

    folder = ROOT / "examples/trial"
    spec, policy = load_spec(folder / "run.yaml"), load_policy(folder / "policy.yaml")
    found = describe(spec, folder / "model")
    assert (spec.model.digest, dict(spec.adapter)) == (digest(folder / "model"), found["adapter"])
    assert policy.base(spec) == "/opt/deerfield/share/trial/model"
    population = policy.population(spec)
    here = population.source.model_copy(update={"path": str(folder / "notes.csv")})
    report = survey("trial", population.model_copy(update={"source": here}))
    assert (report.error, report.units) == (None, 240)
    assert set(report.labels) == set(spec.labels)
    assert population.cap.epsilon / spec.privacy.epsilon == 1000 <= population.delta / spec.privacy.delta


RUNS = [
    path for path in sorted((ROOT / "examples").glob("*.yaml")) if path.name not in ("site-policy.yaml", "gate.yaml")
]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_example_is_a_run_that_would_start(path):
    run = load(path)
    assert make(run.spec).declares.rounds >= 1


def test_every_exact_pin_is_the_one_of_the_constraints_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    needs = [need.partition(";")[0].strip() for group in (project["dependencies"], *extras) for need in group]
    wanted = [need for need in needs if "==" in need]
    pins = {line.partition("==")[0].lower().replace("_", "-"): line.partition("==")[2].strip()
            for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}  # fmt: skip
    assert len(wanted) > 10
    for need in wanted:
        name, _, version = need.partition("==")
        assert pins[name.lower()] == version, f"{need} is {pins[name.lower()]} in constraints.txt"
