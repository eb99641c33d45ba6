"""Validation counts: bounded by one for each unit, whatever it holds, and useful once there are enough units."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deerfield.randomness import SeededRandomness
from deerfield.strategy import Scores
from services.client.training import dp_metrics

EXAMPLES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)), max_size=30)


def _scores(examples):
    predicted = [row[2] for row in examples]
    return Scores(
        probabilities=np.eye(3)[predicted].reshape(-1, 3), labels=np.array([row[1] for row in examples], dtype=np.int64)
    )


def _table(examples):
    return dp_metrics.counts(_scores(examples), np.array([row[0] for row in examples], dtype=np.int64))


@given(EXAMPLES, st.integers(0, 4))
def test_removing_a_unit_moves_the_counts_by_at_most_one(examples, unit):
    without = [row for row in examples if row[0] != unit]
    assert np.linalg.norm(_table(examples) - _table(without)) <= 1 + 1e-12


def test_a_unit_counts_as_one_however_many_examples_it_has():
    table = _table([(7, 0, 0), (7, 0, 0), (7, 0, 1), (7, 1, 1), (8, 2, 2)])
    assert table[0, 0] == pytest.approx(0.5)
    assert table[0, 1] == table[1, 1] == pytest.approx(0.25)
    assert table[2, 2] == 1
    assert table.sum() == pytest.approx(2)


def test_metrics_are_those_of_the_counts_without_noise_and_near_them_with_it():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 3000)
    predicted = np.where(rng.uniform(size=3000) < 0.8, labels, (labels + 1) % 3)
    table = _table(list(zip(range(3000), labels.tolist(), predicted.tolist(), strict=True)))
    clear = dp_metrics.release(table, 0.0, SeededRandomness("unused"))
    noised = dp_metrics.release(table, 10.0, SeededRandomness("noise"))
    assert clear["accuracy"] == pytest.approx(np.mean(labels == predicted))
    assert clear["accuracy"] != noised["accuracy"]
    assert noised["accuracy"] == pytest.approx(clear["accuracy"], abs=0.03)
    assert noised["f1"] == pytest.approx(clear["f1"], abs=0.03)


def test_every_cell_is_noised_with_the_multiplier_also_without_examples():
    draws = []

    class Recording:
        def uniform(self, n):
            raise AssertionError("an evaluation samples nothing")

        def normal(self, n):
            draws.append(n)
            return np.zeros(n)

    assert dp_metrics.release(_table([]), 4.0, Recording()) == {"accuracy": 0.0, "f1": 0.0}
    assert draws == [9]
    spend = dp_metrics.spend("patient", 4.0)
    assert (spend.noise_multiplier, spend.sample_rate, spend.steps) == (4.0, 1.0, 1)
