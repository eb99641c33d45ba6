import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deerfield.errors import InvalidInput
from deerfield.partition import by_column, dirichlet, held_out, iid, site_names

PATIENTS = np.array([f"patient-{i // 3}" for i in range(300)])  # 100 patients of three rows
LABELS = np.array([i // 3 % 4 for i in range(300)])


def places(split, units):
    """Unit to the sites where it has rows."""
    found = {}
    for site, rows in split.items():
        for unit in np.asarray(units)[rows]:
            found.setdefault(unit, set()).add(site)
    return found


def splits(seed=0):
    return {
        "iid": iid(PATIENTS, 4, seed=seed, minimum=5),
        "dirichlet": dirichlet(LABELS, PATIENTS, 4, alpha=0.3, seed=seed, minimum=5),
    }


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_each_row_is_at_one_site_and_each_unit_too(kind):
    split = splits()[kind]
    assert sorted(row for rows in split.values() for row in rows) == list(range(300))
    assert all(len(sites) == 1 for sites in places(split, PATIENTS).values())
    assert tuple(split) == ("site-1", "site-2", "site-3", "site-4")
    assert all(rows.dtype == np.int64 for rows in split.values())


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_the_seed_decides(kind):
    one, same, other = (splits(seed)[kind] for seed in (0, 0, 1))
    assert all(np.array_equal(one[site], same[site]) for site in one)
    assert not all(np.array_equal(one[site], other[site]) for site in one)


def test_order_of_the_rows_does_not_matter():
    order = np.random.default_rng(0).permutation(300)
    for make in (
        lambda rows: iid(PATIENTS[rows], 4, seed=0),
        lambda rows: dirichlet(LABELS[rows], PATIENTS[rows], 4, alpha=0.3, seed=0),
    ):
        assert places(make(np.arange(300)), PATIENTS) == places(make(order), PATIENTS[order])


def test_iid_sites_have_equally_many_units():
    split = iid(PATIENTS, 3, seed=0)
    assert sorted(len(np.unique(PATIENTS[rows])) for rows in split.values()) == [33, 33, 34]


def test_small_alpha_skews_labels_and_large_alpha_does_not():
    def spread(alpha):
        split = dirichlet(LABELS, PATIENTS, 4, alpha=alpha, seed=3)
        shares = [np.bincount(LABELS[rows], minlength=4) / len(rows) for rows in split.values()]
        return np.std(shares)

    assert spread(0.2) > 2 * spread(1000)


def test_a_unit_has_the_label_of_most_of_its_rows():
    """Unit u has labels 1, 1, 0, so with one label left all of it goes where label 1 goes."""
    labels, units = [1, 1, 0, 1, 1], ["u", "u", "u", "v", "w"]
    assert places(dirichlet(labels, units, 1, alpha=1.0, seed=0), units) == {
        "u": {"site-1"},
        "v": {"site-1"},
        "w": {"site-1"},
    }
    assert places(dirichlet([1, 1, 1], ["u", "v", "w"], 2, alpha=50, seed=0), ["u", "v", "w"]).keys() == {"u", "v", "w"}


def test_by_column_takes_the_hospital_at_its_word():
    split = by_column(["b", "a", "b"], ["p1", "p2", "p1"])
    assert {site: rows.tolist() for site, rows in split.items()} == {"a": [1], "b": [0, 2]}
    assert all(type(site) is str for site in by_column(np.array(["b", "a"])))


def test_by_column_refuses_a_unit_at_two_sites():
    with pytest.raises(InvalidInput, match=r"'p1' is at the sites 'b' and 'a'"):
        by_column(["b", "a"], ["p1", "p1"])


@pytest.mark.parametrize(
    "split",
    [
        lambda: iid(PATIENTS, 4, seed=0, minimum=26),
        lambda: dirichlet(LABELS, PATIENTS, 4, alpha=0.01, seed=0, minimum=26),
        lambda: by_column(["a"] * 299 + ["b"], [str(i) for i in range(300)], minimum=2),
        lambda: iid(["p"], 2, seed=0),
    ],
)
def test_too_small_a_site_is_refused_with_its_count_and_what_to_do(split):
    with pytest.raises(InvalidInput, match=r"(site-\d|b) would have \d+ units, the minimum is \d+; .* minimum"):
        split()


@pytest.mark.parametrize("kind", ["column", "iid", "dirichlet"])
def test_a_minimum_counts_units_or_rows_and_splits_no_unit_either_way(kind):
    """100 patients of three rows at two sites: about 50 and 150."""

    def split(minimum, per):
        if kind == "column":
            return by_column(["a", "b"] * 150, minimum=minimum, per=per)
        if kind == "iid":
            return iid(PATIENTS, 2, seed=0, minimum=minimum, per=per)
        return dirichlet(LABELS, PATIENTS, 2, alpha=100, seed=0, minimum=minimum, per=per)

    found = split(120, "row")
    assert all(len(rows) >= 120 for rows in found.values())
    if kind != "column":
        assert all(len(sites) == 1 for sites in places(found, PATIENTS).values())
        with pytest.raises(InvalidInput, match=r"would have \d+ units, the minimum is 120"):
            split(120, "unit")
    with pytest.raises(InvalidInput, match=r"would have \d+ rows, the minimum is 170"):
        split(170, "row")


@given(st.sets(st.text(min_size=1), min_size=1), st.floats(0, 1), st.binary(min_size=1))
def test_held_out_reads_one_unit_at_a_time(units, fraction, key):
    names = sorted(units)
    whole = held_out(names, fraction, key)
    assert held_out(names[1:], fraction, key).tolist() == whole[1:].tolist()
    assert all(held_out([name], fraction, key)[0] == chosen for name, chosen in zip(names, whole, strict=True))


def test_held_out_keeps_the_fraction_and_depends_on_the_key():
    units = [f"patient-{i}" for i in range(10_000)]
    chosen = held_out(units, 0.2, b"key")
    assert chosen.dtype == np.bool_
    assert chosen.mean() == pytest.approx(0.2, abs=0.02)
    assert held_out(units, 0.2, b"other").tolist() != chosen.tolist()
    assert not held_out(units, 0.0, b"key").any()
    assert held_out(units, 1.0, b"key").all()


def test_site_names_sort_by_number():
    assert site_names(2) == ("site-1", "site-2")
    assert sorted(site_names(12)) == list(site_names(12))
