"""An embedded run's data: nobody is in two places, and what cannot work is refused before anything starts."""

import numpy as np
import pytest

from deerfield.errors import InvalidInput, NotMapped
from deerfield.runfile import RunFile, load
from services.client import data, policy, prepare
from tests.integration.federation import SITES, write


def file(folder, **changes) -> RunFile:
    return load(write(folder, **changes))


def table(run: RunFile) -> data.Table:
    return data.read(run.embedded.source, run.labels, run.model.input)


def partitioned(kind: str, **more) -> dict:
    return {"embedded": {"partition": {"kind": kind, **more}}}


@pytest.mark.parametrize("kind", ["column", "iid", "dirichlet"])
def test_every_row_is_in_one_place_and_no_patient_in_two(tmp_path, kind):
    run = file(tmp_path, **partitioned(kind, minimum=2))
    rows = table(run)
    parts = prepare.split(run, rows, pooled=False)
    places = [*parts.sites.values(), parts.validation]
    assert sorted(np.concatenate(places)) == list(range(len(rows.examples)))
    units = [set(rows.examples.units[place]) for place in places]
    assert sum(len(each) for each in units) == len(set().union(*units))
    assert len(parts.validation) > 0


def test_natural_sites_are_those_of_the_column(tmp_path):
    run = file(tmp_path)
    rows = table(run)
    parts = prepare.split(run, rows, pooled=False)
    assert tuple(parts.sites) == SITES
    assert all(set(rows.sites[place]) == {site} for site, place in parts.sites.items())


def test_a_pooled_run_has_one_site_with_everything(tmp_path):
    run = file(tmp_path)
    parts = prepare.split(run, table(run), pooled=True)
    assert list(parts.sites) == ["central"]
    assert len(parts.sites["central"]) + len(parts.validation) == 120


def test_a_site_keeps_at_most_what_it_may(tmp_path):
    run = file(tmp_path, **partitioned("column", minimum=2, at_most=10))
    parts = prepare.split(run, table(run), pooled=False)
    assert {len(rows) for rows in parts.sites.values()} == {10}


def test_a_site_with_too_few_patients_is_refused_by_name(tmp_path):
    run = file(tmp_path, **partitioned("column", minimum=39))
    with pytest.raises(InvalidInput, match=r"(east|north|west) would have \d+ units, the minimum is 39"):
        prepare.split(run, table(run), pooled=False)


def test_bounds_are_public_and_hold_for_every_site():
    parts = prepare.Split({"a": np.arange(123), "b": np.arange(987)}, np.arange(3))
    assert prepare.bounds(parts, None) == (120, 990)
    assert prepare.bounds(parts, 100) == (100, 990)


def test_what_is_prepared_describes_the_adapter(tmp_path):
    run = file(tmp_path)
    found = prepare.prepare(run, tmp_path, pooled=False)
    assert found["adapter"]["base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"] == (2, 12)
    assert found["adapter"]["head.weight"] == (3, 12)
    assert len(found["digest"]) == 64
    assert set(np.load(found["sites"]["north"])) <= set(range(120))


def test_row_numbers_are_those_of_the_source_where_only_some_rows_are_used(tmp_path):
    np.save(tmp_path / "some.npy", np.arange(60, 120))
    run = file(tmp_path, **partitioned("iid", sites=2, minimum=2))
    source = run.embedded.source.model_copy(update={"rows": str(tmp_path / "some.npy")})
    run = run.model_copy(update={"embedded": run.embedded.model_copy(update={"source": source})})
    found = prepare.prepare(run, tmp_path, pooled=False)
    rows = np.concatenate([np.load(path) for path in (*found["sites"].values(), found["validation"])])
    assert sorted(rows) == list(range(60, 120))


def mapped(**changes) -> policy.Policy:
    source = {"path": "notes.csv"}
    population = {"source": source, "units_low": 100, "units_high": 200} | changes
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
    with pytest.raises(NotMapped, match="delta 1e-05 is above"):
        mapped(units_high=100_000).population(spec)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("populations: {}\nmodels: {}\nmetric: none", "did you mean 'metrics'"),
        ("populations: {p: {source: {path: x}, units_low: 5, units_high: 2}}\nmodels: {}", "above units_high"),
    ],
)
def test_a_policy_that_cannot_be_used_is_named(tmp_path, text, says):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=says):
        policy.load(tmp_path / "policy.yaml")
    with pytest.raises(InvalidInput, match="cannot be read"):
        policy.load(tmp_path / "absent.yaml")
