from dataclasses import replace
from math import inf

import pytest

from deerfield.errors import InvalidInput
from deerfield.privacy import History, epsilon, noise_multiplier
from deerfield.types import Spend

DELTA = 1e-5
STEP = Spend(unit="record", noise_multiplier=2.2, sample_rate=1 / 8, steps=8, clip=1.0)


def test_nothing_spent_is_zero():
    assert epsilon([], DELTA) == 0
    assert epsilon([replace(STEP, steps=0)], DELTA) == 0


@pytest.mark.parametrize("unknown", [{"unit": "none"}, {"noise_multiplier": 0.0}])
def test_unprotected_spend_costs_infinity_whatever_stands_beside_it(unknown):
    assert epsilon([STEP, replace(STEP, **unknown)], DELTA) == inf


def test_a_run_costs_the_same_phase_by_phase_and_as_a_whole():
    whole = epsilon([replace(STEP, steps=128)], DELTA)
    assert epsilon([STEP] * 16, DELTA) == whole
    assert epsilon([replace(STEP, clip=7.0)] * 16, DELTA) == whole  # noise is counted in clips


def test_order_of_spends_does_not_matter_and_each_adds():
    other = replace(STEP, noise_multiplier=4.0, sample_rate=1.0, steps=2)
    assert epsilon([STEP, other], DELTA) == epsilon([other, STEP], DELTA)
    assert epsilon([STEP, other], DELTA) > max(epsilon([STEP], DELTA), epsilon([other], DELTA))


def test_one_full_batch_gaussian_is_the_analytic_value():
    """Balle and Wang 2018 (arXiv:1805.06530): at delta 1e-5 a standard deviation of 3.7304 gives epsilon 1."""
    full = Spend(unit="record", noise_multiplier=3.7304, sample_rate=1.0, steps=1, clip=1.0)
    assert epsilon([full], DELTA) == pytest.approx(1.0, rel=2e-3)


@pytest.mark.parametrize(("target", "expected"), [(1.0, 5.46), (3.0, 2.20), (8.0, 1.138)])
def test_calibration_of_the_default_run(target, expected):
    z = noise_multiplier(target, DELTA, 1 / 8, 128)
    assert z == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("target", [0.1, 0.5, 1.0, 3.0, 8.0, 10.0, 100.0])
@pytest.mark.parametrize(("sample_rate", "steps"), [(1 / 8, 128), (1.0, 10), (0.02, 1000)])
def test_calibration_never_exceeds_the_target_and_wastes_under_one_percent(target, sample_rate, steps):
    z = noise_multiplier(target, DELTA, sample_rate, steps)
    spent = epsilon([Spend(unit="record", noise_multiplier=z, sample_rate=sample_rate, steps=steps, clip=1.0)], DELTA)
    assert 0.99 * target <= spent <= target


@pytest.mark.filterwarnings("ignore:Optimal order")  # of the RDP that PRV takes its domain from
@pytest.mark.parametrize("target", [0.1, 0.3, 1.0, 3.0, 10.0])
def test_epsilon_agrees_with_opacus_prv_within_one_percent(target):
    """An independent accountant: Gopi et al. 2021 (arXiv:2106.02848) as Opacus implements it."""
    prv = pytest.importorskip("opacus.accountants.prv")
    z = noise_multiplier(target, DELTA, 1 / 8, 128)
    theirs = prv.PRVAccountant()
    theirs.history = [(z, 1 / 8, 128)]
    ours = epsilon([replace(STEP, noise_multiplier=z, steps=128)], DELTA)
    assert ours == pytest.approx(theirs.get_epsilon(DELTA, eps_error=target / 500), rel=0.01)


def prv_epsilon(spends, delta, error):
    prv = pytest.importorskip("opacus.accountants.prv")
    theirs = prv.PRVAccountant()
    theirs.history = [(spend.noise_multiplier, spend.sample_rate, spend.steps) for spend in spends]
    return theirs.get_epsilon(delta, eps_error=error)


@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize(
    ("first", "delta", "schedule"),
    [
        (0.085, 1e-5, ((1.0, 1 / 8, 64), (1.5, 1 / 8, 64))),
        (0.3, 1e-6, ((1.0, 0.02, 500), (0.8, 0.05, 100))),
        (1.0, 1e-5, ((1.0, 0.01, 1000),)),
        (2.0, 1e-6, ((1.0, 1 / 4, 64), (2.0, 3 / 4, 8), (0.7, 1 / 8, 16))),
        (5.0, 1e-5, ((1.0, 0.02, 1600), (1.2, 1 / 8, 64))),
        (9.0, 1e-5, ((1.0, 1 / 2, 40), (1.0, 1 / 8, 128))),
    ],
)
def test_schedules_of_changing_noise_and_rate_agree_with_prv_within_one_percent(first, delta, schedule):
    _, q, steps = schedule[0]
    z = noise_multiplier(first, delta, q, steps)
    spends = [Spend(unit="record", noise_multiplier=z * f, sample_rate=q, steps=n, clip=1.0) for f, q, n in schedule]
    ours = epsilon(spends, delta)  # 0.1 to 10
    assert ours == pytest.approx(prv_epsilon(spends, delta, error=ours / 500), rel=0.01)


@pytest.mark.parametrize(("target", "q", "steps"), [(0.1, 1 / 8, 128), (0.1, 0.02, 1000), (1.0, 1.0, 20)])
def test_losses_are_told_apart_finely_enough_for_small_budgets(target, q, steps):
    """Buckets of q / (30 z) or finer: a tenth as fine would overstate, ten times as fine gains less than 0.5 %."""
    pld = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")
    z = noise_multiplier(target, DELTA, q, steps)
    ours = epsilon([replace(STEP, noise_multiplier=z, sample_rate=q, steps=steps)], DELTA)

    def at(fineness):
        step = pld.from_gaussian_mechanism(z, sampling_prob=q, value_discretization_interval=q / (fineness * z))
        return step.self_compose(steps).get_epsilon_for_delta(DELTA)

    assert ours <= at(30) * (1 + 1e-6)
    assert at(300) * (1 - 1e-6) <= ours <= at(300) * 1.005


def test_a_round_added_to_a_history_costs_what_everything_at_once_does():
    rounds = [
        STEP,
        replace(STEP, noise_multiplier=1.9),
        replace(STEP, noise_multiplier=1.5, sample_rate=1 / 4, steps=4),
    ]
    history, so_far = History().add([replace(STEP, steps=1000)]), [replace(STEP, steps=1000)]
    for number in range(30):
        history, so_far = history.add([rounds[number % 3]]), [*so_far, rounds[number % 3]]
    assert history.epsilon(DELTA) == pytest.approx(epsilon(so_far, DELTA), rel=1e-3)


def test_a_history_takes_a_quieter_round_as_well_as_a_louder_one():
    quiet = replace(STEP, noise_multiplier=8.0, steps=100)
    for first, second in ((STEP, quiet), (quiet, STEP)):
        both = History().add([first]).add([second]).epsilon(DELTA)
        assert both == pytest.approx(epsilon([STEP, quiet], DELTA), rel=1e-6)


def test_a_history_never_understates():
    """Against the closed form of plain Gaussians: n steps of noise z are one of noise z / sqrt n (arXiv:1905.02383)."""
    from dp_accounting import get_epsilon_gaussian

    full = replace(STEP, noise_multiplier=20.0, sample_rate=1.0, steps=5)
    history = History()
    for number in range(1, 41):
        history = history.add([full])
        exact = get_epsilon_gaussian(20.0 / (5 * number) ** 0.5, DELTA)
        assert exact <= history.epsilon(DELTA) <= 1.005 * exact


def test_a_history_is_a_value():
    before = History().add([STEP])
    known = before.epsilon(DELTA)
    before.add([STEP] * 100)
    assert before.epsilon(DELTA) == known == epsilon([STEP], DELTA)
    assert before.add([]).epsilon(DELTA) == known


@pytest.mark.parametrize("unknown", [{"unit": "none"}, {"unit": "none", "steps": 0}, {"noise_multiplier": 0.0}])
def test_a_history_with_an_unprotected_spend_is_infinite_for_ever(unknown):
    history = History().add([STEP]).add([replace(STEP, **unknown)])
    assert history.epsilon(DELTA) == inf
    assert history.add([STEP]).epsilon(DELTA) == inf
    assert History().epsilon(DELTA) == 0


def test_metrics_beside_the_training_are_paid_from_the_same_epsilon():
    counts = replace(STEP, noise_multiplier=20.0, sample_rate=1.0, steps=16)
    alone, beside = (noise_multiplier(3.0, DELTA, 1 / 8, 128, extra) for extra in ((), (counts,)))
    assert beside > alone
    together = epsilon([replace(STEP, noise_multiplier=beside, steps=128), counts], DELTA)
    assert 0.99 * 3.0 <= together <= 3.0
    with pytest.raises(InvalidInput, match="metrics"):
        noise_multiplier(0.5, DELTA, 1 / 8, 128, (counts,))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0},
        {"epsilon": -1.0},
        {"epsilon": inf},
        {"epsilon": float("nan")},
        {"delta": 0},
        {"delta": 1},
        {"sample_rate": 0},
        {"sample_rate": 1.5},
        {"steps": 0},
    ],
)
def test_calibration_refuses_what_no_noise_gives(wrong):
    right = {"epsilon": 1.0, "delta": DELTA, "sample_rate": 0.125, "steps": 8}
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        noise_multiplier(**(right | wrong))


@pytest.mark.parametrize(
    "wrong", [{"noise_multiplier": -1.0}, {"noise_multiplier": inf}, {"sample_rate": 0.0}, {"steps": -1}]
)
def test_epsilon_refuses_spends_that_cannot_be(wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        epsilon([replace(STEP, **wrong)], DELTA)
