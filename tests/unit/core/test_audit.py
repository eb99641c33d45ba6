from math import comb, exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deerfield.audit import (
    FEWEST,
    Guesses,
    canaries_for,
    ceiling,
    check_count,
    find,
    lower_bound,
    p_value,
    plans,
    scores,
)
from deerfield.errors import InvalidInput
from deerfield.types import Spend


def spend(z=1.0, q=0.125, steps=16):
    return Spend(unit="record", noise_multiplier=z, sample_rate=q, steps=steps, clip=1.0)


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.6758)],  # appendix D and section 7 of the paper
)
def test_the_bound_is_that_of_the_paper(canaries, guesses, correct, delta, published):
    assert lower_bound(canaries, guesses, correct, delta) == pytest.approx(published, abs=1e-3)


def test_all_right_without_delta_is_a_power_of_the_accuracy_of_randomised_response():
    accuracy = 0.05 ** (1 / 100)  # accuracy^100 = 5 %
    assert lower_bound(100, 100, 100, 0.0) == pytest.approx(log(accuracy / (1 - accuracy)), abs=1e-5)  # 3.493


def test_the_delta_term_worked_by_hand():
    right = exp(1.0) / (1 + exp(1.0))
    mass = [comb(3, k) * right**k * (1 - right) ** (3 - k) for k in range(4)]
    steepest = max(mass[1], (mass[1] + mass[0]) / 2)  # v = 2: i = 1 and i = 2
    assert p_value(5, 3, 2, 1.0, 0.01) == pytest.approx(mass[2] + mass[3] + 2 * 5 * 0.01 * steepest)


@given(st.integers(1, 400), st.floats(0, 1e-4))
def test_half_right_refutes_nothing(guesses, delta):
    assert lower_bound(guesses, guesses, guesses // 2, delta) == 0.0


@given(st.integers(1, 200), st.data())
def test_more_right_guesses_refute_more_and_a_larger_delta_less(guesses, data):
    correct = data.draw(st.integers(1, guesses))
    bound = lower_bound(300, guesses, correct, 1e-5)
    assert lower_bound(300, guesses, correct - 1, 1e-5) <= bound
    assert lower_bound(300, guesses, correct, 1e-3) <= bound + 1e-5
    assert lower_bound(300, guesses, correct, 1e-5, 0.99) <= bound + 1e-5


def test_a_mechanism_of_known_epsilon_is_never_exceeded_too_often_and_almost_reached():
    """Randomised response of epsilon 2 on each canary's coin: the mechanism for which the theorem is tight."""
    rng, trials, canaries, known = np.random.default_rng(0), 300, 1000, 2.0
    tried = (Guesses(200, 200), Guesses(100, 0), Guesses(0, 300))
    bounds = []
    for _ in range(trials):
        coins = rng.random(canaries) < 0.5
        told = np.where(rng.random(canaries) < exp(known) / (1 + exp(known)), coins, ~coins)
        bounds.append(find(told + 0.5 * rng.random(canaries), coins, 0.0, tried).epsilon)
    assert np.mean(np.array(bounds) > known) <= 0.05
    assert np.median(bounds) > 0.8 * known


def test_an_answer_that_says_nothing_gives_no_bound():
    rng = np.random.default_rng(1)
    found = [find(rng.random(1000), rng.random(1000) < 0.5, 1e-6, plans(1000, spend())).epsilon for _ in range(200)]
    assert np.mean(np.array(found) > 0) <= 0.05


def test_scores_put_a_canary_that_was_seen_above_one_that_was_not():
    seen = np.array([[1.0, 0.0, 0.1], [0.0, 0.0, -0.1]])  # (steps, canaries)
    for q in (0.125, 1.0):
        first, *others = scores(seen, np.full(seen.shape, 0.3), q)
        assert first > max(others)
    with pytest.raises(InvalidInput, match="diverged"):
        scores(seen, np.full(seen.shape, np.nan), 0.5)


def test_no_audit_says_more_than_its_ceiling_and_the_number_of_canaries_is_chosen_for_it():
    for claimed, delta in ((1.0, 1e-6), (4.0, 1e-5)):
        count = canaries_for(claimed, delta, spend(), 20_000)
        tried = plans(count, spend())
        assert ceiling(count, delta, tried) >= 1.25 * claimed
        perfect = find(np.arange(count) / count, np.arange(count) >= count // 2, delta, tried)
        assert perfect.epsilon == pytest.approx(ceiling(count, delta, tried))
    assert canaries_for(8.0, 1e-5, spend(), 3000) == 3000  # as many as there may be


@pytest.mark.parametrize(("canaries", "at_most", "advice"), [(99, 500, "--canaries"), (501, 500, "--canaries")])
def test_canaries_that_say_nothing_or_overlap_are_refused(canaries, at_most, advice):
    with pytest.raises(InvalidInput, match=advice):
        check_count(canaries, at_most)
    with pytest.raises(InvalidInput, match="rank"):
        canaries_for(1.0, 1e-6, spend(), FEWEST - 1)
    with pytest.raises(InvalidInput, match="cannot be"):
        p_value(10, 5, 6, 1.0, 0.0)
