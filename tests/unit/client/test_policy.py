"""A hospital's policy: which runs it lets in, and what of it cannot be used."""

import pytest

from deerfield.errors import InvalidInput, NotMapped, PolicyRefused
from services.client import policy
from tests.unit.client.run_files import file


def mapped(**changes) -> policy.Policy:
    source = {"path": "notes.csv"}
    terms = {"unit": "record", "epsilon": 5.0, "delta": 1e-8, "unprotected": True}
    population = {"source": source, "units_low": 100, "units_high": 200} | terms | changes
    return policy.Policy.model_validate({"populations": {"notes": population}, "models": {"0" * 64: "model"}})


def test_a_run_may_use_only_what_the_policy_maps(tmp_path):
    spec = file(tmp_path).spec
    with pytest.raises(NotMapped, match="is not in this site's policy"):
        mapped().base(spec)
    with pytest.raises(NotMapped, match="population 'notes2' is not in this site's policy"):
        mapped().population(spec.model_copy(update={"population": "notes2"}))


def test_delta_must_suit_the_size_of_the_population(tmp_path):
    spec = file(tmp_path, privacy={"unit": "record", "epsilon": 1.0}).spec
    assert mapped().population(spec).units_low == 100
    with pytest.raises(PolicyRefused, match="delta 1e-06 is above"):
        mapped(units_high=1_000_000).population(spec)


def test_a_policy_lets_no_counts_out_beside_unit_site(tmp_path):
    spec = file(tmp_path, privacy={"unit": "site", "epsilon": 1.0}).spec
    rules = mapped(unit="site", units_low=1, units_high=1)
    assert rules.population(spec).units_high == 1
    with pytest.raises(PolicyRefused, match="cannot; write `metrics: none`"):
        rules.model_copy(update={"metrics": "dp"}).population(spec)
    with pytest.raises(InvalidInput, match="unit site hides whole"):
        file(tmp_path, privacy={"unit": "site", "epsilon": 1.0}, embedded={"metrics": "dp", "site_validation": 0.2})


SIZED = "populations: {{p: {{source: {{path: x}}, {}}}}}\nmodels: {{}}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("populations: {}\nmodels: {}\nmetric: none", "did you mean 'metrics'"),
        (SIZED.format("unit: none, units_low: 5, units_high: 2"), "above units_high"),
        (SIZED.format("unit: record, units_low: 5, units_high: 9"), "epsilon is missing"),
        (SIZED.format("unit: record, epsilon: 1, units_low: 5, units_high: 99999"), "delta: 1e-05 is above"),
        (SIZED.format("unit: record, epsilon: 1, filter: renyi, units_low: 5, units_high: 9"), "renyi filter needs"),
        (SIZED.format("unit: site, epsilon: 1, units_low: 1, units_high: 9"), "a site is one unit; write 1 for both"),
        ("- populations", r"policy\.yaml: a policy is a mapping of keys, such as populations:, and this is a list$"),
        ("", r"policy\.yaml: a policy is a mapping of keys, such as populations:, and this is empty$"),
        ("models: {}\npopulations: [", r"policy\.yaml, line 2, column 15: not YAML: expected the node content, but"),
        ("populations: {p: [1]}\nmodels: {}", r"populations\.p is \[1\]: it must be a mapping of keys$"),
    ],
)
def test_a_policy_that_cannot_be_used_is_named(tmp_path, text, says):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=says):
        policy.load(tmp_path / "policy.yaml")
    with pytest.raises(InvalidInput, match="cannot be read"):
        policy.load(tmp_path / "absent.yaml")
