import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support, roc_auc_score

from deerfield.errors import InvalidInput
from deerfield.metrics import auc, metrics


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(2, 5), st.integers(1, 3), st.integers(0, 10_000))
def test_agrees_with_scikit_learn_with_ties_and_absent_labels(examples, labels, digits, seed):
    rng = np.random.default_rng(seed)
    probabilities = np.round(rng.dirichlet(np.ones(labels), size=examples), digits)  # rounding makes ties
    y = rng.choice(rng.permutation(labels)[: rng.integers(1, labels + 1)], size=examples)
    present = np.unique(y)
    assume(len(present) > 1)
    ours, predicted = metrics(probabilities, y), probabilities.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        y, predicted, labels=present, average="macro", zero_division=0
    )
    areas = [roc_auc_score(y == k, probabilities[:, k]) for k in present]
    theirs = [accuracy_score(y, predicted), precision, recall, f1, np.mean(areas)]
    assert list(ours) == ["accuracy", "precision", "recall", "f1", "auc"]
    np.testing.assert_allclose(list(ours.values()), theirs, atol=1e-12)


def test_worked_by_hand():
    """Labels 0 0 1, predictions 0 1 1; label 2 does not occur and is left out."""
    scores = metrics(np.array([[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.2, 0.8, 0.0]]), np.array([0, 0, 1]))
    assert scores == pytest.approx({"accuracy": 2 / 3, "precision": 3 / 4, "recall": 3 / 4, "f1": 2 / 3, "auc": 1.0})


def test_one_label_alone_ranks_nothing_and_is_no_nan():
    assert metrics(np.array([[0.2, 0.8], [0.7, 0.3]]), np.array([1, 1]))["auc"] == 0.5


def test_a_tie_counts_half():
    assert auc(np.array([0.3, 0.3]), np.array([True, False])) == 0.5
    assert auc(np.array([0.3, 0.3, 0.1]), np.array([True, False, False])) == 0.75


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        (np.ones((0, 2)), [], "empty"),
        (np.array([[np.nan, 1.0]]), [0], "NaN"),
        (np.array([[0.5, 0.5]]), [2], "columns"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(probabilities, labels, words):
    with pytest.raises(InvalidInput, match=words):
        metrics(probabilities, np.array(labels, dtype=np.int64))
