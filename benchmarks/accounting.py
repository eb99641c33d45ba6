"""Time to add one round to a long history, ours over Opacus' recomputation of all of it.

    python -m benchmarks.accounting [--repetitions 7]

The history has 10,000 steps at epsilon 8 and delta 1e-5, the round 8 steps.

- same noise: the round is one more of the run that made the history. Opacus counts it with the others (one term).
- other noise: the round belongs to a run with 1 % less noise. Opacus composes two terms.

"first": no round of this length and noise was added before; "later": one was, and what it cost alone is kept.
PRV is opacus.accountants.prv.PRVAccountant with its default errors; ours is deerfield.privacy.History: add, then read
epsilon. "whole" is deerfield.privacy.epsilon of everything from nothing. Medians of one interleaved run.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Mapping

from opacus.accountants.prv import PRVAccountant

from deerfield import privacy
from deerfield.privacy import History, noise_multiplier
from deerfield.types import Spend

STEPS, ROUND, EPSILON, DELTA = 10_000, 8, 8.0, 1e-5
RATES = {"1/8": 1 / 8, "0.01": 0.01}
GOAL = 0.15


def spend(noise: float, sample_rate: float, steps: int) -> Spend:
    """Of one unit of a record; the clip plays no part."""
    return Spend(unit="record", noise_multiplier=noise, sample_rate=sample_rate, steps=steps, clip=1.0)


def prv(*spends: Spend) -> float:
    """Opacus' upper bound on the epsilon of all `spends`."""
    accountant = PRVAccountant()
    accountant.history = [(each.noise_multiplier, each.sample_rate, each.steps) for each in spends]
    return float(accountant.get_epsilon(DELTA))


def forget() -> None:
    """Empties what `privacy` keeps of earlier answers."""
    for kept in (privacy._epsilon, privacy._loss, privacy._step_loss):
        kept.cache_clear()


def cases(sample_rate: float) -> Mapping[str, Callable[[], tuple[float, float]]]:
    """Each gives (seconds, epsilon)."""
    z = noise_multiplier(EPSILON, DELTA, sample_rate, STEPS + ROUND)
    long, same, other = (
        spend(noise, sample_rate, steps) for noise, steps in ((z, STEPS), (z, ROUND), (0.99 * z, ROUND))
    )
    both = spend(z, sample_rate, STEPS + ROUND)

    def added(new: Spend, earlier: int) -> Callable[[], tuple[float, float]]:
        def once() -> tuple[float, float]:
            forget()
            known = History().add([long])
            for _ in range(earlier):
                known = known.add([new])
            return timed(lambda: known.add([new]).epsilon(DELTA))

        return once

    def whole(*spends: Spend) -> Callable[[], tuple[float, float]]:
        def anew() -> tuple[float, float]:
            forget()
            return timed(lambda: privacy.epsilon(spends, DELTA))

        return anew

    return {
        "PRV, same noise": lambda: timed(lambda: prv(both)),
        "PRV, other noise": lambda: timed(lambda: prv(long, other)),
        "ours, same noise, first": added(same, earlier=0),
        "ours, same noise, later": added(same, earlier=1),
        "ours, other noise, first": added(other, earlier=0),
        "ours, other noise, later": added(other, earlier=1),
        "whole, same noise": whole(both),
        "whole, other noise": whole(long, other),
    }


def timed(work: Callable[[], float]) -> tuple[float, float]:
    """(seconds, what `work` gave)."""
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, value


def measure(sample_rate: float, repetitions: int) -> None:
    """Prints one line for each case, its ratio to the PRV of the same history."""
    seconds: dict[str, list[float]] = {}
    values: dict[str, float] = {}
    todo = list(cases(sample_rate).items())
    for number in range(repetitions + 1):
        for name, work in todo[number % len(todo) :] + todo[: number % len(todo)]:
            taken, values[name] = work()
            if number:  # the first is for warming up
                seconds.setdefault(name, []).append(taken)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, _ in todo:
        yardstick = medians["PRV, same noise" if "same" in name else "PRV, other noise"]
        ratio = medians[name] / yardstick
        verdict = f"  goal {GOAL}: {'met' if ratio < GOAL else 'MISSED'}" if name.startswith("ours") else ""
        print(f"  {name:26}{1000 * medians[name]:8.1f} ms   {ratio:6.3f}   epsilon {values[name]:.4f}{verdict}")


def main() -> None:
    """Prints the table for each sampling rate."""
    warnings.filterwarnings("ignore", message="Optimal order")
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    repetitions = parser.parse_args().repetitions
    for name, sample_rate in RATES.items():
        print(f"q = {name}, {STEPS:,} steps and a round of {ROUND}, medians of {repetitions}; ratio to PRV")
        measure(sample_rate, repetitions)


if __name__ == "__main__":
    main()
