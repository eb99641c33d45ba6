import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score, roc_curve

from deerfield.classes import ClassScores, confusion, per_class, roc
from deerfield.errors import InvalidInput


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 10_000))
def test_agrees_with_scikit_learn(examples, labels, seed):
    rng = np.random.default_rng(seed)
    probabilities, y = rng.dirichlet(np.ones(labels), examples), rng.integers(0, labels, examples)
    predicted = probabilities.argmax(axis=1)
    found = confusion(probabilities, y)
    assert (found == confusion_matrix(y, predicted, labels=range(labels))).all()
    theirs = np.array(precision_recall_fscore_support(y, predicted, labels=range(labels), zero_division=np.nan)).T
    ours = [
        [np.nan if each is None else each for each in (row.precision, row.recall, row.f1)] + [row.examples]
        for row in per_class(found)
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_worked_by_hand():
    """Actual 0 0 1, predicted 0 1 1; nobody has or gets label 2."""
    probabilities = np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.2, 0.8, 0.0]])
    found = confusion(probabilities, np.array([0, 0, 1]))
    assert found.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert per_class(found) == (
        ClassScores(1.0, 0.5, pytest.approx(2 / 3), 2),
        ClassScores(0.5, 1.0, pytest.approx(2 / 3), 1),
        ClassScores(None, None, None, 0),
    )


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(1, 3), st.integers(0, 10_000))
def test_a_short_curve_is_scikit_learns(examples, digits, seed):
    rng = np.random.default_rng(seed)
    scores, positive = np.round(rng.random(examples), digits), rng.random(examples) < 0.4
    assume(0 < positive.sum() < examples)
    fpr, tpr, _ = roc_curve(positive, scores)
    ours = roc(scores, positive)
    at = np.linspace(0, 1, 101)
    np.testing.assert_allclose(np.interp(at, ours.fpr, ours.tpr), np.interp(at, fpr, tpr), atol=1e-12)
    assert set(ours.thresholds[1:]) <= set(scores)
    assert ours.thresholds[0] > scores.max()
    assert ours.auc == pytest.approx(roc_auc_score(positive, scores))
    assert len(ours.fpr) <= len(fpr)


def test_a_long_curve_is_thinned_and_keeps_its_shape_and_its_area():
    rng = np.random.default_rng(0)
    positive = rng.random(20_000) < 0.3
    scores = rng.standard_normal(20_000) + positive
    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    ours = roc(scores, positive)
    assert 150 < len(ours.fpr) <= 200
    assert ours.auc == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    at = np.linspace(0, 1, 1001)
    assert np.abs(np.interp(at, ours.fpr, ours.tpr) - np.interp(at, fpr, tpr)).max() < 2 / 199
    assert np.trapezoid(ours.tpr, ours.fpr) == pytest.approx(ours.auc, abs=0.001)
    assert (ours.fpr[0], ours.tpr[0], ours.fpr[-1], ours.tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(ours.fpr) >= 0).all()
    assert (np.diff(ours.thresholds) < 0).all()


def test_a_perfect_and_a_constant_score_are_the_corner_and_the_diagonal():
    positive = np.arange(1000) < 400
    perfect, constant = roc(positive.astype(float), positive), roc(np.full(1000, 0.5), positive)
    assert (perfect.fpr, perfect.tpr, perfect.auc) == ((0, 0, 1), (0, 1, 1), 1)
    assert (constant.fpr, constant.tpr, constant.auc) == ((0, 1), (0, 1), 0.5)


def test_one_kind_alone_has_no_curve():
    assert roc(np.array([0.1, 0.2]), np.array([True, True])) is None
    assert roc(np.array([0.1, 0.2]), np.array([False, False])) is None


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(InvalidInput, match="empty"):
        confusion(np.ones((0, 2)), np.array([], np.int64))
