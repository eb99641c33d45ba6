"""The rules about what a version cost its patients: epsilon of the run and of each population's life, delta, proof."""

from collections.abc import Callable, Iterator, Mapping
from math import inf, isfinite, nan

from deerfield.gate.evidence import Evidence, Spent
from deerfield.gate.rules import Limits, Rules
from deerfield.gate.verdict import Row, row, told

ROUNDING = 1e-5  # relative: the registry's tags have six digits
NAMED = 5  # sites that a sentence names; the rest are counted


def privacy_rows(rules: Rules, evidence: Evidence) -> Iterator[Row]:
    """The rows `epsilon`, `lifetime_epsilon`, `delta` and `proof`."""
    spent = evidence.spent
    yield _spending("epsilon", rules, spent, spent.epsilon, _limit_of(rules, spent.run_limit, lambda each: each.run))
    lifetime = _limit_of(rules, spent.lifetime_limit, lambda each: each.lifetime)
    yield _spending("lifetime_epsilon", rules, spent, spent.lifetime, lifetime)
    yield _delta(rules.delta, spent)
    yield _proof(evidence)


def _limit_of(rules: Rules, runs_own: float | None, read: Callable[[Limits], float | None]) -> Callable[[str], float]:
    """The limit of a site: the smaller one of the rules' and the run file's; infinite where neither has one."""

    def limit(site: str) -> float:
        named = read(rules.epsilon.sites.get(site, Limits()))
        given = (named if named is not None else read(rules.epsilon), runs_own)
        return min((each for each in given if each is not None), default=inf)

    return limit


def _spending(name: str, rules: Rules, spent: Spent, values: Mapping[str, float], limit: Callable[[str], float]) -> Row:
    if spent.unit == "none" and rules.privacy == "none_allowed":
        return row(name, True, None, None, "the run is of unit none and costs an infinite epsilon: the rules allow it")
    left_out = spent.idle | (spent.absent if rules.epsilon.absent == "allowed" else frozenset())
    judged = sorted((set(spent.sites) | set(values)) - left_out)
    found = {site: values.get(site, nan) for site in judged}
    over = [site for site in judged if not _is_within(found[site], limit(site))]
    if not judged:
        return row(name, False, None, None, "no site has delivered anything: what was spent is not known")
    worst = max(over or judged, key=lambda site: _share(found[site], limit(site)))
    if over:
        said = _some([_excess(site, found[site], limit(site), site in spent.absent) for site in over])
    else:
        value, most = told(found[worst], limit(worst))
        of = f"of its {most}" if isfinite(limit(worst)) else "and has no limit but to be finite"
        said = f"every site is within its limit; {worst} comes nearest: {value} {of}"
    beside = f"; not judged, because nothing came from there: {', '.join(sorted(left_out))}" if left_out else ""
    return row(name, not over, found[worst], limit(worst), said + beside)


def _is_within(value: float, limit: float) -> bool:
    return isfinite(value) and 0 <= value <= limit * (1 + ROUNDING)


def _share(value: float, limit: float) -> float:
    """How much of its limit a site has spent; without a limit, what it has spent, and infinite where not known."""
    if not isfinite(value):
        return inf
    return value / limit if isfinite(limit) else value


def _excess(site: str, value: float, limit: float, is_absent: bool) -> str:
    if is_absent:
        return f"what {site} spent is not known: it delivered nothing (epsilon: absent: allowed leaves it out)"
    most = f"{limit:g} at most" if isfinite(limit) else "finite"
    if value == inf:
        return f"{site} spent an infinite epsilon, and it must be {most}"
    if not isfinite(value) or value < 0:
        return f"what {site} spent is not known, and it must be {most}"
    spent, most = told(value, limit)
    return f"{site} spent {spent}, above its limit {most}"


def _delta(limit: float, spent: Spent) -> Row:
    known = {"the run": spent.delta, **{f"the population of {site}": d for site, d in spent.lifetime_delta.items()}}
    over = [who for who, delta in known.items() if not 0 <= delta <= limit * (1 + ROUNDING)]
    who = max(over or known, key=lambda each: _share(known[each], limit))
    if not over:
        value, most = told(known[who], limit)
        return row("delta", True, known[who], limit, f"the largest delta is that of {who}: {value}, limit {most}")
    if not isfinite(known[who]):
        return row("delta", False, None, limit, f"the delta of {who} is not known, and it may be {limit:g} at most")
    value, most = told(known[who], limit)
    return row("delta", False, known[who], limit, f"the delta of {who} is {value}, above the limit {most}")


def _proof(evidence: Evidence) -> Row:
    proof = evidence.proof
    if proof is None or proof.phases == 0:
        said = "the run has no mirror of its sites' ledgers in MLflow: nothing proves what was spent"
        return row("proof", False, 0, None, said)
    if not proof.verified or proof.findings:
        found = _some(list(proof.findings), 2) or "it does not say why"
        said = f"the ledgers' mirror does not verify: {found}"
        return row("proof", False, proof.phases, None, said)
    noted = f" ({_some(list(proof.notes), 2)})" if proof.notes else ""
    said = f"every attestation and countersigned head of {proof.phases} phases verifies{noted}"
    return row("proof", True, proof.phases, None, said)


def _some(names: list[str], most: int = NAMED) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more
