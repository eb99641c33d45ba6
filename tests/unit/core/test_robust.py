"""Medians and trimmed means: what they owe to honest sites, whatever a bad one sends."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from deerfield.errors import InvalidInput
from deerfield.robust import SLICE, median, robustly_moved, trimmed_mean
from deerfield.runspec import Privacy, RunSpec
from deerfield.strategies import STRATEGIES, make
from deerfield.tensors import digest, trained
from deerfield.types import Update
from tests.adapters import adapter
from tests.fakes import run_spec

NAME, SHAPE = "head.weight", (2, 3)
START = {NAME: np.zeros(SHAPE, np.float32), "head.bias": np.ones(2, np.float32)}
numbers = st.floats(-1e3, 1e3, width=32)
tensors = arrays(np.float32, SHAPE, elements=numbers)
COMBINES = [median, trimmed_mean(0.2), trimmed_mean(0.0), trimmed_mean(0.49)]


def moved(deltas, combine):
    return robustly_moved(START, [{NAME: delta} for delta in deltas], combine)[NAME]


def test_by_hand():
    deltas = [np.full(SHAPE, value, np.float32) for value in (1, 2, 3, 4, 1000)]
    assert (moved(deltas, median) == 3).all()
    assert (moved(deltas[:4], median) == 2.5).all()
    assert (moved(deltas, trimmed_mean(0.2)) == 3).all()
    assert (moved(deltas, trimmed_mean(0.39)) == 3).all()
    assert (moved(deltas, trimmed_mean(0.4)) == 3).all()
    assert (moved(deltas, trimmed_mean(0.19)) == 202).all()


@pytest.mark.parametrize("combine", COMBINES)
@given(delta=tensors, count=st.integers(1, 7))
def test_equal_updates_are_what_comes_out(combine, delta, count):
    np.testing.assert_allclose(moved([delta] * count, combine), delta, rtol=1e-6)


@given(delta=tensors, count=st.integers(1, 7))
def test_the_median_of_equal_updates_is_the_update(delta, count):
    assert np.array_equal(moved([delta] * count, median), delta)


@pytest.mark.parametrize("combine", [median, trimmed_mean(0.2)])
@given(
    honest=st.lists(tensors, min_size=4, max_size=4),
    bad=arrays(np.float32, SHAPE, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
)
def test_one_bad_site_of_five_moves_nothing_beyond_the_honest_ones(combine, honest, bad):
    result = moved([*honest, bad], combine)
    rounding = 1e-6 * np.abs(honest).max()
    assert (result >= np.min(honest, axis=0) - rounding).all()
    assert (result <= np.max(honest, axis=0) + rounding).all()


@given(deltas=st.lists(tensors, min_size=1, max_size=6))
def test_nothing_trimmed_is_the_unweighted_mean(deltas):
    mean = np.mean(np.asarray(deltas, np.float64), axis=0)
    np.testing.assert_allclose(moved(deltas, trimmed_mean(0.0)), mean, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("combine", COMBINES)
@settings(max_examples=25)
@given(deltas=st.lists(tensors, min_size=4, max_size=4))
def test_the_order_of_sites_changes_no_bit(combine, deltas):
    assert len({moved(order, combine).tobytes() for order in permutations(deltas)}) == 1


def test_a_large_tensor_is_combined_in_slices_as_it_would_be_at_once():
    rng = np.random.default_rng(0)
    start = {"x": np.zeros((3, SLICE), np.float32)}
    deltas = [{"x": rng.normal(size=(3, SLICE)).astype(np.float32)} for _ in range(5)]
    whole = np.median(np.asarray([delta["x"] for delta in deltas], np.float64), axis=0).astype(np.float32)
    assert np.array_equal(robustly_moved(start, deltas, median)["x"], whole)


def test_what_nobody_trains_stays_the_very_same():
    assert robustly_moved(START, [{NAME: START[NAME]}], median)["head.bias"] is START["head.bias"]


# --- in a run ---


def spec(strategy, **federation) -> RunSpec:
    raw = run_spec("a", "b", "c", "d", "e", strategy=strategy).model_dump()
    return RunSpec.model_validate({**raw, "federation": {"sites": list("abcde"), **federation}})


@pytest.mark.parametrize("robust", ["median", "trimmed_mean"])
@pytest.mark.parametrize("name", ["deer", "ffa", "head"])
def test_one_bad_site_changes_little_where_the_mean_is_lost(name, robust):
    shared = adapter(0)

    def published(site_e, kind):
        strategy = make(spec(name, robust=kind))
        state = strategy.init(shared)
        task = strategy.plan(state, "a")
        honest = trained(adapter(1), task.factors)
        updates = [
            Update(
                site=site,
                round=0,
                phase=0,
                base=digest(task.start),
                delta={each: value * (site_e if site == "e" else 1) for each, value in honest.items()},
            )
            for site in "abcde"
        ]
        return strategy.aggregate(state, updates).shared

    def apart(one, other):
        return max(float(np.abs(one[each] - other[each]).max()) for each in one)

    for bad in (np.float32(-1e6), np.float32(1e6)):
        assert apart(published(bad, robust), published(1, robust)) < 1e-5
        assert apart(published(bad, "none"), published(1, "none")) > 1e3


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_only_strategies_that_freeze_a_factor_take_part_and_the_others_say_so(name):
    if name in ("deer", "ffa", "head"):
        assert not make(spec(name, robust="median")).declares.streams
        return
    with pytest.raises(InvalidInput, match=f"robust: {name} has no median, .*choose one of deer, ffa, head"):
        make(spec(name, robust="median"))


def test_a_median_is_refused_beside_noise_and_beside_weights():
    private = Privacy(unit="record", epsilon=3.0, clip=1.0)
    raw = spec("deer", robust="median").model_dump()
    with pytest.raises(ValidationError, match="median is for unit none, not 'record'"):
        RunSpec.model_validate({**raw, "privacy": private.model_dump()})
    with pytest.raises(ValidationError, match="median counts every site once; leave the weights out"):
        spec("deer", robust="median", weights={"a": 2.0})
    assert spec("deer", robust="median", weights=dict.fromkeys("abcde", 2.0))
    with pytest.raises(ValidationError, match=r"trim\n.*less than 0.5"):
        spec("deer", robust="trimmed_mean", trim=0.5)
