import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deerfield.bootstrap import Interval, resample
from deerfield.errors import InvalidInput
from deerfield.metrics import metrics, statistics


def scored(seed, examples, labels, skill=1.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, labels, examples)
    logits = rng.standard_normal((examples, labels)) + skill * np.eye(labels)[y]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), y


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(2, 5), st.integers(1, 3), st.integers(0, 10_000))
def test_a_weight_is_so_many_copies_of_the_example(examples, labels, digits, seed):
    rng = np.random.default_rng(seed)
    probabilities = np.round(rng.dirichlet(np.ones(labels), examples), digits)  # rounding makes ties
    y = rng.integers(0, labels, examples)
    weights = rng.integers(0, 4, (3, examples)).astype(np.float64)
    weights[:, 0] += 1
    found = statistics(probabilities, y)(weights)
    for row, times in enumerate(weights.astype(int)):
        copies = np.repeat(np.arange(examples), times)
        expected = metrics(probabilities[copies], y[copies])
        if len(np.unique(y[copies])) == 1:
            expected["auc"] = np.nan
        np.testing.assert_allclose([found[name][row] for name in expected], list(expected.values()), atol=1e-12)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """Accuracy of 120 examples that are right with probability 0.7: a 90% interval covers 0.7 in about 90% of 300."""
    covered = 0
    for seed in range(300):
        right = np.random.default_rng(seed).random(120) < 0.7
        probabilities = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
        judge = statistics(probabilities, np.zeros(120, np.int64))
        found = resample({"m": judge}, np.arange(120), resamples=400, seed=seed)["m"].interval("accuracy", 0.9)
        covered += found.low <= 0.7 <= found.high
    assert 0.85 <= covered / 300 <= 0.95


def test_agrees_with_scipy():
    probabilities, y = scored(0, 300, 3)
    ours = resample({"m": statistics(probabilities, y)}, np.arange(300), resamples=4000)["m"]
    for name, index in (("accuracy", 0), ("f1", 3)):

        def statistic(rows, at=index):
            return list(metrics(probabilities[rows], y[rows]).values())[at]

        theirs = stats.bootstrap(
            (np.arange(300),), statistic, vectorized=False, n_resamples=1000, method="percentile", rng=1
        ).confidence_interval
        found = ours.interval(name)
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_examples_of_one_unit_are_drawn_together():
    """40 patients with 25 examples each, all right or all wrong: as sure as 40 examples, not as 1000."""
    right = np.repeat(np.arange(40) % 4 > 0, 25)
    judge = statistics(np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]]), np.zeros(1000, np.int64))
    widths = {}
    for name, units in (("patients", np.repeat(np.arange(40), 25)), ("examples", np.arange(1000))):
        found = resample({"m": judge}, units)["m"].interval("accuracy")
        widths[name] = found.high - found.low
    assert widths["patients"] == pytest.approx(2 * 1.96 * np.sqrt(0.75 * 0.25 / 40), rel=0.15)
    assert widths["examples"] == pytest.approx(2 * 1.96 * np.sqrt(0.75 * 0.25 / 1000), rel=0.15)


def test_the_order_of_units_names_does_not_matter_but_which_belong_together_does():
    probabilities, y = scored(1, 60, 2)
    units = np.repeat(np.arange(20), 3)
    by_number = resample({"m": statistics(probabilities, y)}, units, resamples=50)["m"]
    by_name = resample({"m": statistics(probabilities, y)}, np.char.zfill(units.astype(str), 3), resamples=50)["m"]
    assert (by_number.values["f1"] == by_name.values["f1"]).all()


def test_models_are_compared_on_the_same_resamples():
    probabilities, y = scored(2, 400, 3)
    better = 0.95 * probabilities + 0.05 * np.eye(3)[y]  # right wherever the other is, and then some
    models = {"a": statistics(better, y), "b": statistics(probabilities, y)}
    found = resample(models, np.arange(400))
    difference = found["a"].minus(found["b"]).interval("accuracy")
    assert difference.value == pytest.approx(found["a"].observed["accuracy"] - found["b"].observed["accuracy"])
    apart = found["a"].interval("accuracy")
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < (apart.high - apart.low) / 2
    same = resample({"a": models["a"], "b": models["a"]}, np.arange(400), resamples=20)
    assert same["a"].minus(same["b"]).interval("f1") == Interval(0.0, 0.0, 0.0)


def test_resamples_depend_on_the_seed_and_their_number_and_on_nothing_else():
    probabilities, y = scored(3, 50, 3)
    judge = {"m": statistics(probabilities, y)}
    few = resample(judge, np.arange(50), resamples=40, seed=7)["m"].values["f1"]
    many = resample(judge, np.arange(50), resamples=90, seed=7)["m"].values["f1"]
    assert (few == many[:40]).all()
    assert (few != resample(judge, np.arange(50), resamples=40, seed=8)["m"].values["f1"]).any()


def test_one_label_alone_has_no_auc_and_rare_labels_have_one_where_they_occur():
    probabilities, y = scored(4, 30, 2)
    alone = resample({"m": statistics(probabilities, np.zeros(30, np.int64))}, np.arange(30), resamples=20)["m"]
    assert alone.interval("auc") == Interval(None, None, None)
    assert alone.interval("accuracy").value is not None
    y = np.r_[1, np.zeros(29, np.int64)]
    rare = resample({"m": statistics(probabilities, y)}, np.arange(30), resamples=200)["m"]
    missing = np.isnan(rare.values["auc"]).mean()
    assert missing == pytest.approx((29 / 30) ** 30, abs=0.1)  # a resample without the one positive
    assert rare.interval("auc").low is not None


def test_a_model_that_is_always_right_is_surely_right():
    found = resample({"m": statistics(np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0]))}, np.arange(4))["m"]
    assert found.interval("f1") == found.interval("accuracy") == Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"resamples": 0}, "resamples: 0 is not from 1"), ({"seed": -1}, "seed: -1 is not from 0")],
)
def test_what_cannot_be_resampled_is_refused(arguments, words):
    judge = {"m": statistics(np.eye(2), np.array([0, 1]))}
    with pytest.raises(InvalidInput, match=words):
        resample(judge, np.arange(2), **arguments)
    with pytest.raises(InvalidInput, match="empty"):
        resample({}, np.arange(0))
    with pytest.raises(InvalidInput, match=r"confidence: 95 is not between 0 and 1; write 0.95"):
        resample(judge, np.arange(2), resamples=3)["m"].interval("f1", 95)
