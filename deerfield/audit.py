"""What an audit may conclude from guesses: a lower bound on epsilon from one training run.

Steinke, Nasr, Jagielski 2023, arXiv:2305.08846. Each of m canaries is in the data or not by a fair secret coin. From
what the run released an auditor guesses the coins of r of them and keeps silent on the others. If the run is
(epsilon, delta)-differentially private, v or more right guesses have at most the probability (their corollary 5.4)

    p = P[X >= v] + 2 m delta max over i in 1..v of P[v - i <= X < v] / i,   X ~ Binomial(r, e^eps / (1 + e^eps))

so an epsilon for which p is below 5 % is refuted with 95 % confidence. It is a test of an implementation: it can refute
a claim, and never prove one. Where we differ: several numbers of guesses, fixed beforehand, share the 5 % (Bonferroni).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import binom

from deerfield.errors import InvalidInput
from deerfield.tensors import Wide
from deerfield.types import Spend

CONFIDENCE = 0.95
FEWEST = 100  # canaries: all guesses right about fewer refute no epsilon above 3
USUAL = 1000  # the paper's usual number: enough for any claim below 4
MARGIN = 1.25  # a run without noise should be found to cost so many times its claim
LARGEST = 50.0  # epsilon: above it e^epsilon / (1 + e^epsilon) is 1 in float64


@dataclass(frozen=True, slots=True)
class Guesses:
    """How many canaries are guessed to be in, those of the highest scores, and out, those of the lowest."""

    top: int
    bottom: int

    @property
    def count(self) -> int:
        """r, all that are guessed."""
        return self.top + self.bottom


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit found: with the stated confidence the run is not (epsilon, delta)-DP below this epsilon."""

    epsilon: float
    guesses: int
    correct: int


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The most probable that `correct` or more of `guesses` about `canaries` are right under (epsilon, delta)-DP.

    Raises:
        InvalidInput: more guesses than canaries, or more right ones than guesses.
    """
    if not 0 <= correct <= guesses <= canaries:
        raise InvalidInput(f"{correct} right of {guesses} guesses about {canaries} canaries: that cannot be")
    right = float(expit(epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    if not correct or not delta:
        return min(tail, 1.0)
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, right))  # P[v - i <= X < v], i = 1..v
    return float(min(tail + 2 * canaries * delta * np.max(below / np.arange(1, correct + 1)), 1.0))


def lower_bound(canaries: int, guesses: int, correct: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon that so many right guesses refute; 0 if they refute none. By bisection, rounded down."""
    low, high = 0.0, LARGEST
    if p_value(canaries, guesses, correct, low, delta) >= 1 - confidence:
        return 0.0
    while high - low > 1e-6:  # far below what anyone reads of an epsilon
        middle = (low + high) / 2
        refuted = p_value(canaries, guesses, correct, middle, delta) < 1 - confidence
        low, high = (middle, high) if refuted else (low, middle)
    return low


def plans(canaries: int, spend: Spend) -> tuple[Guesses, ...]:
    """The numbers of guesses that an audit of `spend` tries, chosen before anything is seen.

    All that a run without noise would give away: the canaries that are in and were sampled at least once, less three
    standard deviations. Fewer, where noise leaves only the most exposed. Both ends, where every step has every unit.
    """
    share = (1 - (1 - spend.sample_rate) ** spend.steps) / 2
    exposed = int(canaries * share - 3 * sqrt(canaries * share * (1 - share)))
    return Guesses(max(exposed, 1), 0), Guesses(max(canaries // 16, 1), 0), Guesses(canaries // 4, canaries // 4)


def find(scores: Wide, coins: NDArray[np.bool_], delta: float, tried: Sequence[Guesses]) -> Finding:
    """The best bound of all that were `tried`, at 95 % confidence for all of them together.

    `scores` (m,) are the auditor's, high for canaries that look as if they were in; `coins` (m,) the truth.
    """
    order = np.argsort(scores, kind="stable")
    best = Finding(-inf, 0, 0)
    for plan in tried:
        correct = int((~coins[order[: plan.bottom]]).sum() + coins[order[len(order) - plan.top :]].sum())
        bound = lower_bound(len(coins), plan.count, correct, delta, _confidence(tried))
        best = max(best, Finding(bound, plan.count, correct), key=lambda finding: finding.epsilon)
    return best


def ceiling(canaries: int, delta: float, tried: Sequence[Guesses]) -> float:
    """The bound that `find` would give if every guess were right: no audit of so many canaries says more."""
    return max(lower_bound(canaries, plan.count, plan.count, delta, _confidence(tried)) for plan in tried)


def canaries_for(claimed: float, delta: float, spend: Spend, at_most: int) -> int:
    """How many canaries show clearly that a run without noise does not keep `claimed`; `at_most` if those are too few.

    Raises:
        InvalidInput: `at_most` is below `FEWEST`.
    """
    check_count(at_most, at_most)
    count = min(USUAL, at_most)
    while count < at_most and ceiling(count, delta, plans(count, spend)) < MARGIN * claimed:
        count = min(count * 5 // 4, at_most)
    return count


def check_count(canaries: int, at_most: int) -> None:
    """Refuses a number of canaries that cannot be told apart, or too few to say anything.

    Raises:
        InvalidInput: it is out of range.
    """
    if not FEWEST <= canaries <= at_most:
        raise InvalidInput(
            f"{canaries} canaries: an audit of this run needs {FEWEST} to {at_most}, half of its trained coordinates; "
            + ("choose another --canaries" if at_most >= FEWEST else "raise lora: rank or targets to train more")
        )


def scores(seen: Wide, deviations: Wide, sample_rate: float) -> Wide:
    """The log likelihood ratio (m,) of "in" to "out", from what each step shows of each canary, (steps, m).

    A canary that is in adds 1 to a step with probability `sample_rate`; around it, the noise has the standard
    `deviations` (steps, m), as the auditor sees it.

    Raises:
        InvalidInput: a deviation that is not above 0 and finite.
    """
    if not (np.isfinite(deviations).all() and (deviations > 0).all()):
        raise InvalidInput("the noise that an audit sees is not finite: the training diverged; lower its rates")
    with np.errstate(divide="ignore"):
        absent, present = np.log1p(-sample_rate), np.log(sample_rate)
    ratio: Wide = np.logaddexp(absent, present + (2 * seen - 1) / (2 * deviations**2)).sum(0)
    return ratio


def _confidence(tried: Sequence[Guesses]) -> float:
    return 1 - (1 - CONFIDENCE) / len(tried)
