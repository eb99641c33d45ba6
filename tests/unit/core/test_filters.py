from dataclasses import replace
from math import comb, exp, inf, log, log1p, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deerfield.errors import InvalidInput
from deerfield.filters import Cap, Charge, fits, refusal, remaining, spent
from deerfield.types import Spend

SUM = Cap(epsilon=8.0, delta=1e-5)
RENYI = Cap(epsilon=8.0, delta=1e-5, filter="renyi", order=8.0)
STEP = Spend(unit="record", noise_multiplier=2.0, sample_rate=1.0, steps=1, clip=1.0)
RUN = Charge(epsilon=3.0, delta=1e-6, spends=(replace(STEP, steps=128),))
CAPS = pytest.mark.parametrize("cap", [SUM, RENYI], ids=["sum", "renyi"])


def converted(order: float, divergence: float, delta: float) -> float:
    """Proposition 12 of Canonne, Kamath, Steinke 2020 (arXiv:2004.00010), written out."""
    return max(0.0, divergence + log1p(-1 / order) - log(delta * order) / (order - 1))


def subsampled(order: int, q: float, z: float) -> float:
    """Section 3.3 of Mironov, Talwar, Zhang 2019 (arXiv:1908.10530), for integer orders, written out."""
    terms = (comb(order, k) * (1 - q) ** (order - k) * q**k * exp(k * (k - 1) / (2 * z * z)) for k in range(order + 1))
    return log(sum(terms)) / (order - 1)


def task(z: float, q: float, steps: int) -> Charge:
    return Charge(epsilon=0.0, delta=0.0, spends=(replace(STEP, noise_multiplier=z, sample_rate=q, steps=steps),))


def test_sum_adds_epsilons_and_deltas_of_runs():
    charges = [RUN, replace(RUN, epsilon=2.5, delta=3e-6)]
    assert spent(SUM, charges) == 5.5
    assert remaining(SUM, charges) == (2.5, pytest.approx(6e-6))
    assert fits(SUM, charges, replace(RUN, epsilon=2.5))
    assert not fits(SUM, charges, replace(RUN, epsilon=2.6))


def test_ten_tenths_fit_and_an_eleventh_does_not():
    tenth = Charge(epsilon=0.1, delta=1e-6)
    cap = Cap(epsilon=1.0, delta=1e-5)
    assert fits(cap, [tenth] * 9, tenth)
    assert not fits(cap, [tenth] * 10, replace(tenth, epsilon=1e-6, delta=0.0))
    assert not fits(cap, [tenth] * 10, replace(tenth, epsilon=0.0, delta=1e-12))


def test_the_rounding_of_a_sum_refuses_nothing():
    """0.1 + 0.1 + 0.1 is above 0.3 in doubles."""
    tenth = Charge(epsilon=0.1, delta=1e-6)
    assert fits(Cap(epsilon=0.3, delta=3e-6), [tenth] * 2, tenth)


@pytest.mark.parametrize("order", [2.0, 8.0, 32.0])
def test_renyi_of_the_plain_gaussian_is_the_formula(order):
    """Of one order: steps * order / (2 z^2)."""
    cap = replace(RENYI, order=order)
    assert spent(cap, [task(3.0, 1.0, 5)]) == pytest.approx(converted(order, 5 * order / 18, 1e-5), rel=1e-12)


@pytest.mark.parametrize("order", [2, 8, 32])
@pytest.mark.parametrize(("z", "q", "steps"), [(2.0, 1 / 8, 128), (1.0, 0.01, 1000), (5.0, 0.5, 10)])
def test_renyi_of_the_sampled_gaussian_is_the_closed_formula(order, z, q, steps):
    cap = replace(RENYI, order=float(order))
    expected = converted(order, steps * subsampled(order, q, z), 1e-5)
    assert spent(cap, [task(z, q, steps)]) == pytest.approx(expected, rel=1e-9)


def test_a_renyi_lifetime_worked_by_hand():
    """Order 8, delta 1e-5: log(7/8) + log(12500) / 7 = 1.2141; a step of z = 2 at q = 1 has divergence 8 / 8 = 1."""
    step = task(2.0, 1.0, 1)
    assert [spent(RENYI, [step] * n) for n in (0, 1, 2, 6)] == pytest.approx([0, 2.2141, 3.2141, 7.2141], abs=1e-4)
    assert fits(RENYI, [step] * 5, step)
    assert not fits(RENYI, [step] * 6, step)
    assert remaining(RENYI, [step] * 6) == (pytest.approx(0.7859, abs=1e-4), 1e-5)


def test_renyi_adds_divergences_of_different_steps_in_any_order_and_split():
    mixed = [task(2.0, 1 / 8, 8), task(4.0, 1.0, 2), task(2.0, 1 / 8, 16)]
    total = 24 * subsampled(8, 1 / 8, 2.0) + 2 * 8 / 32
    assert spent(RENYI, mixed) == pytest.approx(converted(8, total, 1e-5), rel=1e-9)
    assert spent(RENYI, mixed[::-1]) == spent(RENYI, mixed)
    whole = Charge(epsilon=0.0, delta=0.0, spends=tuple(spend for each in mixed for spend in each.spends))
    assert spent(RENYI, [whole]) == spent(RENYI, mixed)


def test_renyi_counts_a_bare_epsilon_as_no_less_than_it_was():
    """What a reconciled ledger lost: the difference to the epsilon that others know."""
    step = task(2.0, 1.0, 1)
    known = spent(RENYI, [step] * 4)
    rest = Charge(epsilon=known - spent(RENYI, [step]), delta=0.0)
    assert spent(RENYI, [step, rest]) == pytest.approx(known, rel=1e-12)
    for cap in (RENYI, replace(RENYI, delta=0.2, order=64.0)):  # there a conversion lowers the divergence
        lost = [step] * 4
        assert spent(cap, [Charge(epsilon=spent(cap, lost), delta=0.0)]) >= spent(cap, lost)


@CAPS
@pytest.mark.parametrize(
    "unknown",
    [
        replace(RUN, epsilon=inf),
        replace(RUN, epsilon=nan),
        replace(RUN, epsilon=-1.0),
        replace(RUN, delta=nan),
        replace(RUN, delta=-1e-9),
        *(
            replace(RUN, spends=(STEP, replace(STEP, **change)))
            for change in (
                {"unit": "none"},
                {"noise_multiplier": 0.0},
                {"noise_multiplier": nan},
                {"sample_rate": 0.0},
                {"sample_rate": 1.5},
                {"steps": -1},
            )
        ),
    ],
)
def test_what_is_not_private_or_not_known_is_infinite_for_ever(cap, unknown):
    assert spent(cap, [unknown]) == inf
    assert spent(cap, [RUN, unknown, RUN]) == inf
    assert not fits(cap, [], unknown)
    assert not fits(cap, [unknown], replace(RUN, epsilon=0.0, delta=0.0, spends=()))
    assert remaining(cap, [unknown])[0] == 0
    assert "infinite" in refusal(cap, [], unknown)
    assert "infinite for good" in refusal(cap, [unknown], RUN)


@pytest.mark.parametrize("order", [None, 1.0, 0.5, inf])
def test_renyi_needs_an_order_above_one(order):
    with pytest.raises(InvalidInput, match="order"):
        spent(replace(RENYI, order=order), [task(2.0, 1.0, 1)])


def test_sum_refuses_when_delta_alone_is_used_up_and_says_that_it_is_delta():
    cheap = Charge(epsilon=0.01, delta=5e-6)
    assert not fits(SUM, [cheap, cheap], cheap)
    assert refusal(SUM, [cheap, cheap], cheap).startswith("delta is used up: this costs delta 5e-06, and 0 of")


def test_renyi_uses_up_no_delta():
    assert fits(RENYI, [replace(task(50.0, 1.0, 1), delta=1e-5)] * 5, replace(task(50.0, 1.0, 1), delta=1e-5))


def test_a_refusal_says_what_it_costs_what_is_left_and_what_to_do():
    assert refusal(SUM, [RUN, RUN], RUN) == (
        "this costs epsilon 3 and 2 of the population's epsilon 8 is left (delta left: 8e-06 of 1e-05): "
        "ask for a run with a smaller epsilon"
    )
    step = task(2.0, 1.0, 1)
    assert "costs epsilon 1 and 0.785" in refusal(RENYI, [step] * 6, step)


ASKED = st.tuples(st.floats(0.3, 20), st.sampled_from([0.01, 1 / 8, 1.0]), st.integers(0, 300), st.floats(0, 6e-6))


@CAPS
@settings(max_examples=60, deadline=None)
@given(asked=st.lists(ASKED, max_size=25), hurry=st.floats(0.1, 1.5))
def test_an_adaptive_sequence_of_runs_never_exceeds_the_cap(cap, asked, hurry):
    """Each run's noise depends on what is left; what does not fit is not charged, and the next one may fit again."""
    charges: list[Charge] = []
    for z, q, steps, delta in asked:
        left = remaining(cap, charges)[0]
        more = replace(task(z * (1 + 1 / (left + 0.1)), q, steps), epsilon=hurry * left, delta=delta)
        before = spent(cap, charges)
        if fits(cap, charges, more):
            charges = [*charges, more]
        else:
            assert refusal(cap, charges, more)
            assert spent(cap, charges) == before
        assert before <= spent(cap, charges) <= cap.epsilon * (1 + 1e-9)
        if cap.filter == "sum":
            assert sum(charge.delta for charge in charges) <= cap.delta * (1 + 2e-9)
