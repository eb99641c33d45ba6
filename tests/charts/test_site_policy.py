"""A hospital's policy in values: the chart's schema knows the policy's own keys, and what is rendered can be loaded."""

import helm_python as h
import pytest
import yaml

from deerfield.runfile import Source
from services.client import policy
from tests.charts.rendering import HELM, chart, read

CI = HELM / "deerfield-site" / "ci"


def schema(*path: str) -> dict:
    found = chart("deerfield-site").schema["properties"]["policy"]["properties"]["inline"]
    for key in path:
        found = found["properties"][key]
    return found


POPULATION = chart("deerfield-site").schema["definitions"]["population"]


@pytest.mark.parametrize(
    ("model", "known", "elsewhere"),
    [
        (policy.Policy, schema(), {"federation"}),  # a value of its own, which the certificate needs too
        (policy.Metrics, schema("dp_metrics"), set()),
        (policy.Population, POPULATION, set()),
        (Source, POPULATION["properties"]["source"], set()),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_the_schema_has_the_keys_of_the_policy(model, known, elsewhere):
    assert known["properties"].keys() | elsewhere == model.model_fields.keys()
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    assert set(known.get("required", [])) == required - {"populations", "models"}  # the chart writes what is missing


def loaded(values: dict, tmp_path) -> policy.Policy:
    texts = chart("deerfield-site").render(values, name="north", namespace="north")
    objects = yaml.safe_load_all(texts["deerfield-site/templates/policy.yaml"])
    (text,) = (each["data"]["policy.yaml"] for each in objects if each)
    (tmp_path / "policy.yaml").write_text(text)
    return policy.load(tmp_path / "policy.yaml")


def test_a_policy_in_values_arrives_as_it_is(tmp_path):
    values = read(CI / "s3-values.yaml")
    inline = values["policy"]["inline"]
    assert loaded(values, tmp_path) == policy.Policy.model_validate({"federation": values["federation"], **inline})


def test_a_trial_is_added_to_a_policy_in_values(tmp_path):
    values = read(CI / "s3-values.yaml")
    both = loaded({**values, "trial": {"enabled": True}}, tmp_path)
    trial = policy.load(HELM.parent / "examples" / "trial" / "policy.yaml")
    assert both.populations == {**loaded(values, tmp_path).populations, **trial.populations}
    assert both.models == {**loaded(values, tmp_path).models, **trial.models}


@pytest.mark.parametrize(("said", "device"), [({}, "cuda"), ({"device": "auto"}, "auto")])
def test_a_gpu_that_is_asked_for_must_be_there_unless_the_policy_says_otherwise(said, device, tmp_path):
    values = read(CI / "s3-values.yaml")
    values["policy"]["inline"] |= said
    assert loaded(values, tmp_path).device == "auto"
    assert loaded({**values, "trainer": {"gpu": {"count": 1}}}, tmp_path).device == device


def test_a_policy_that_deerfield_refuses_is_refused_before_anything_is_installed():
    values = read(CI / "s3-values.yaml")
    values["policy"]["inline"]["populations"]["triage-notes"]["epsilon"] = 0
    with pytest.raises(h.HelmError, match="/policy/inline/populations/triage-notes/epsilon"):
        chart("deerfield-site").render(values, name="north", namespace="north")
