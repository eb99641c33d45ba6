"""How the rows of an embedded run are split: nobody is in two places, and every site has enough."""

import numpy as np
import pytest

from deerfield.errors import InvalidInput
from services.client.sources import data, splitting
from tests.integration.federation import SITES
from tests.unit.client.run_files import PATIENT, file, partitioned, table


@pytest.mark.parametrize("kind", ["column", "iid", "dirichlet"])
def test_every_row_is_in_one_place_and_no_patient_in_two(tmp_path, kind):
    run = file(tmp_path, **partitioned(kind, minimum=2))
    rows = table(run)
    parts = splitting.split(run, rows, pooled=False)
    places = [*parts.sites.values(), parts.validation]
    assert sorted(np.concatenate(places)) == list(range(len(rows.examples)))
    units = [set(rows.examples.units[place]) for place in places]
    assert sum(len(each) for each in units) == len(set().union(*units))
    assert len(parts.validation) > 0


def test_natural_sites_are_those_of_the_column(tmp_path):
    run = file(tmp_path)
    rows = table(run)
    parts = splitting.split(run, rows, pooled=False)
    assert tuple(parts.sites) == SITES
    assert all(set(rows.sites[place]) == {site} for site, place in parts.sites.items())


def test_a_pooled_run_has_one_site_with_everything(tmp_path):
    run = file(tmp_path)
    parts = splitting.split(run, table(run), pooled=True)
    assert list(parts.sites) == ["central"]
    assert len(parts.sites["central"]) + len(parts.validation) == 120


def test_a_site_keeps_at_most_what_it_may(tmp_path):
    run = file(tmp_path, **partitioned("column", minimum=2, at_most=10))
    parts = splitting.split(run, table(run), pooled=False)
    assert {len(rows) for rows in parts.sites.values()} == {10}


@pytest.mark.parametrize(("privacy", "noun"), [({"unit": "none"}, "row"), (PATIENT, "unit")])
def test_a_site_with_too_few_patients_is_refused_by_name(tmp_path, privacy, noun):
    run = file(tmp_path, **partitioned("column", minimum=39), privacy=privacy)
    with pytest.raises(InvalidInput, match=rf"(east|north|west) would have \d+ {noun}s, the minimum is 39"):
        splitting.split(run, table(run), pooled=False)


@pytest.mark.parametrize("name", ["Saint-Étienne", "../x", "a/b", ".hidden", "x" * 64, "two\nlines", "Validation"])
def test_a_name_that_cannot_name_a_site_is_refused_with_the_place_to_mend_it(name):
    with pytest.raises(InvalidInput, match=r"column 'hospital' names a site .*: rename it in that column"):
        splitting.check_names(["north", name], "notes.csv: column 'hospital'")


def grouped(folder, at_most, minimum=2):
    """Patients of five notes each."""
    run = file(folder, **partitioned("column", minimum=minimum, at_most=at_most), privacy=PATIENT)
    rows = table(run)
    units = np.array([f"{site}-{number // 5}" for number, site in enumerate(rows.sites)])
    return run, data.Table(data.Examples(rows.examples.inputs, rows.examples.labels, units), rows.sites)


def test_a_site_keeps_whole_patients_whoever_else_is_there(tmp_path):
    run, rows = grouped(tmp_path, at_most=12)
    kept = splitting.split(run, rows, pooled=False).sites
    units = {name: sorted(set(rows.examples.units[place])) for name, place in kept.items()}
    assert [len(place) for place in kept.values()] == [10] * 3
    assert all(len(names) == 2 for names in units.values())
    gone = np.flatnonzero(rows.examples.units != units["north"][0])
    rest = data.Table(rows.examples.take(gone), rows.sites[gone])
    after = splitting.split(run, rest, pooled=False).sites
    assert units["north"][1] in rest.examples.units[after["north"]]
    assert np.array_equal(gone[after["east"]], kept["east"])


def test_a_cap_that_leaves_too_few_patients_is_refused_by_name(tmp_path):
    run, rows = grouped(tmp_path, at_most=12, minimum=3)
    with pytest.raises(InvalidInput, match=r"(east|north|west) would keep 2 patients at at_most: 12 examples, the min"):
        splitting.split(run, rows, pooled=False)
