from dataclasses import replace
from math import inf, sqrt

import pytest

from deerfield.filters import Cap, Charge, fits
from deerfield.plan import Standing, plan, run_charge, schedule, signal_to_noise
from deerfield.privacy import epsilon
from deerfield.runspec import Model, Privacy, RunSpec
from deerfield.strategies import make
from deerfield.types import Spend

SHAPES = {"q.lora_A.weight": (2, 10), "q.lora_B.weight": (20, 2), "head.weight": (3, 5), "head.bias": (3,)}
PRIVATE = Privacy(epsilon=3.0, delta=1e-6)
SPEC = RunSpec(
    name="run",
    population="p",
    labels=("a", "b", "c"),
    strategy={"name": "deer"},
    rounds=4,
    model=Model(base="any", input="text"),
    privacy=PRIVATE,
    adapter=SHAPES,
)
CAP = Cap(epsilon=8.0, delta=1e-5)
NEW = Standing(units=(2000, 3000), cap=CAP)


def planned(spec=SPEC, **changes):
    return plan(spec, make(spec).declares, replace(NEW, **changes))


def with_privacy(**changes):
    return SPEC.model_copy(update={"privacy": PRIVATE.model_copy(update=changes)})


def test_a_plan_says_what_the_run_costs_and_what_it_leaves():
    told = planned(charges=(Charge(epsilon=2.0, delta=2e-6),))
    assert told.steps == 4 * 2 * 8  # rounds, exchanges of deer, steps of an epoch
    assert 0.99 * 3 <= told.epsilon <= 3
    assert (told.delta, told.sample_rate, told.units) == (1e-6, 1 / 8, (2000, 3000))
    assert told.epsilon_after == pytest.approx(2 + told.epsilon)
    assert (told.epsilon_left, told.delta_left) == pytest.approx((6 - told.epsilon, 7e-6))
    assert told.fits
    assert told.refusal is None


def test_a_plan_counts_bytes_of_both_exchanges():
    """4 bytes each: up B and head, then A and head; down everything, each time."""
    head, a, b = 18, 20, 40
    told = planned()
    assert told.bytes_up == 4 * 4 * (b + head + a + head)
    assert told.bytes_down == 4 * 4 * 2 * (a + b + head)
    unknown = planned(SPEC.model_copy(update={"adapter": {}}))
    assert (unknown.bytes_up, unknown.bytes_down, unknown.step_signal_to_noise) == (None, None, None)


def test_signal_to_noise_worked_by_hand():
    """250 of 2000 units of norm C agree; noise of 5 C on each of 100 coordinates has norm 50 C."""
    spend = Spend(unit="record", noise_multiplier=5.0, sample_rate=1 / 8, steps=1, clip=7.0)
    assert signal_to_noise(2000, spend, 100) == pytest.approx(5.0)
    told = planned()
    assert told.step_signal_to_noise == pytest.approx(250 / (told.noise_multiplier * sqrt(58)))  # B and head
    assert told.phase_signal_to_noise == pytest.approx(told.step_signal_to_noise * sqrt(8))


def test_spare_phases_are_paid_for_from_the_start():
    told, spare = planned(), planned(with_privacy(spare_phases=3))
    assert spare.steps == told.steps + 3 * 8
    assert spare.noise_multiplier > told.noise_multiplier
    assert spare.epsilon <= 3


def test_metrics_are_part_of_what_the_run_costs():
    counts = Spend(unit="record", noise_multiplier=20.0, sample_rate=1.0, steps=8, clip=1.0)
    told = planned(metrics=(counts,))
    assert 0.99 * 3 <= told.epsilon <= 3
    assert told.noise_multiplier > planned().noise_multiplier


def test_a_run_that_does_not_fit_is_refused_and_nothing_is_taken_off():
    told = planned(charges=(Charge(epsilon=6.0, delta=1e-6),))
    assert not told.fits
    assert "is left" in told.refusal
    assert told.epsilon_after > 8
    assert told.epsilon_left == 2
    assert 0 < told.rounds_that_fit < 4


@pytest.mark.parametrize("filter", ["sum", "renyi"])
@pytest.mark.parametrize("used", [0.0, 3.0, 4.9, 5.5, 7.9])
def test_the_rounds_that_fit_are_the_most_that_do(filter, used):
    cap = replace(CAP, filter=filter, order=8.0 if filter == "renyi" else None)
    before = (Charge(epsilon=used, delta=1e-6),)
    told = planned(cap=cap, charges=before)
    assert (told.rounds_that_fit >= 4) == told.fits
    spend = schedule(SPEC, make(SPEC).declares)

    def takes(rounds):
        return fits(cap, before, run_charge(SPEC, (replace(spend, steps=rounds * 16),)))

    assert told.rounds_that_fit == 0 or takes(told.rounds_that_fit)
    assert not takes(told.rounds_that_fit + 1)


def test_no_round_fits_when_nothing_is_left():
    assert planned(charges=(Charge(epsilon=8.0, delta=1e-6),)).rounds_that_fit == 0
    assert planned(charges=(Charge(epsilon=0.0, delta=1e-5),)).rounds_that_fit == 0


def test_a_run_of_no_unit_is_infinite_and_fits_only_where_nothing_is_protected():
    public = SPEC.model_copy(update={"privacy": Privacy(unit="none")})
    told = planned(public)
    assert (told.epsilon, told.epsilon_after, told.fits, told.rounds_that_fit) == (inf, inf, False, 0)
    free = planned(public, cap=None)
    assert (free.epsilon_left, free.fits, free.rounds_that_fit) == (inf, True, None)
    assert free.step_signal_to_noise == inf


def test_a_plan_warns_below_a_thousand_units():
    assert planned().warnings == ()
    assert "below 1000" in planned(units=(999, 3000)).warnings[0]


def of_sites(count=3, **changes):
    sites = tuple(f"s{number}" for number in range(count))
    privacy = Privacy(unit="site", epsilon=3.0, delta=1e-6, clip=0.5, **changes)
    return SPEC.model_copy(
        update={"privacy": privacy, "federation": SPEC.federation.model_copy(update={"sites": sites})}
    )


def test_unit_site_is_charged_one_release_for_each_phase_however_many_steps_it_trains():
    for changes, phases in (({}, 8), ({"spare_phases": 2}, 10), ({"sample_rate": 0.01}, 8)):
        told = planned(of_sites(**changes), units=(1, 1))
        assert (told.steps, told.sample_rate) == (phases, 1.0)
        assert 0.99 * 3 <= told.epsilon <= 3
    spec = of_sites()
    assert (spec.steps(2), spec.releases(2), spec.release_rate) == (16, 1, 1.0)
    assert (SPEC.steps(2), SPEC.releases(2), SPEC.release_rate) == (16, 16, 1 / 8)


def test_unit_site_warns_below_ten_thousand_sites_with_the_noise_worked_by_hand():
    told = planned(of_sites(), units=(1, 1))
    (warning,) = told.warnings
    z = told.noise_multiplier
    noise = z * sqrt(58) * 0.5 / 3  # 58 coordinates: B and head
    assert f"{z:.3g} x sqrt(58) x 0.5 / 3 = {noise:.3g}" in warning
    assert told.phase_signal_to_noise == pytest.approx(0.5 / noise)
    assert planned(of_sites(10_000), units=(1, 1)).warnings == ()
    assert planned(of_sites(0), units=(1, 1)).phase_signal_to_noise is None  # a run file without its sites


def test_a_plan_and_the_accountant_agree():
    spend = schedule(SPEC, make(SPEC).declares)
    assert planned().epsilon == epsilon([replace(spend, steps=8)] * 8, 1e-6)
