import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from deerfield.calibration import reliability
from deerfield.errors import InvalidInput


def two(confidence, right):
    """Two labels: label 0 has this confidence, and is right or not."""
    confidence = np.asarray(confidence, dtype=np.float64)
    return np.stack([confidence, 1 - confidence], axis=1), np.where(right, 0, 1)


def test_worked_by_hand():
    """Bin (0.6, 0.8]: 0.7 and 0.8, one right: |0.5 - 0.75|; bin (0.8, 1]: 0.9, 1.0, 1.0, all right: |1 - 0.9667|."""
    found = reliability(*two([0.7, 0.8, 0.9, 1.0, 1.0], [True, False, True, True, True]), bins=5)
    assert found.ece == pytest.approx((2 * 0.25 + 3 * (1 - 2.9 / 3)) / 5)
    assert [each.examples for each in found.bins] == [0, 0, 0, 2, 3]
    assert (found.bins[0].confidence, found.bins[0].accuracy) == (None, None)
    assert (found.bins[3].confidence, found.bins[3].accuracy) == (pytest.approx(0.75), 0.5)
    assert (found.bins[3].low, found.bins[3].high) == (pytest.approx(0.6), pytest.approx(0.8))


@settings(deadline=None)
@given(st.integers(1, 80), st.integers(0, 10_000))
def test_agrees_with_scikit_learn(examples, seed):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, examples)
    right = rng.random(examples) < confidence
    theirs, stated = calibration_curve(right, confidence, n_bins=15)
    bins = [each for each in reliability(*two(confidence, right)).bins if each.examples]
    np.testing.assert_allclose([each.accuracy for each in bins], theirs)
    np.testing.assert_allclose([each.confidence for each in bins], stated)


def test_a_calibrated_model_is_near_zero_and_one_that_boasts_is_off_by_how_much():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 50_000)
    right = rng.random(50_000) < confidence
    for by in ("width", "mass"):
        assert reliability(*two(confidence, right), by=by).ece < 0.01
        boasting = reliability(*two(np.full(50_000, 0.99), right), by=by)
        assert boasting.ece == pytest.approx(0.99 - right.mean())


def test_bins_of_equal_mass_hold_equally_many_and_keep_ties_together():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 300)
    even = reliability(*two(confidence, confidence > 0.7), by="mass")
    assert [each.examples for each in even.bins] == [20] * 15
    tied = reliability(*two([0.6] * 50 + [0.9] * 10, [True] * 60), by="mass")
    assert [each.examples for each in tied.bins] == [50, 10]


def test_a_confidence_of_exactly_zero_or_one_is_in_a_bin():
    found = reliability(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([0, 0]))
    assert (found.bins[0].examples, found.bins[-1].examples) == (1, 1)


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(InvalidInput, match="bins: 0"):
        reliability(np.eye(2), np.array([0, 1]), bins=0)
    with pytest.raises(InvalidInput, match="empty"):
        reliability(np.ones((0, 2)), np.array([], np.int64))
