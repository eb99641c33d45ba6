"""The rules about how well a version does: on its own, against the champion, at its worst site, and its confidence."""

from collections.abc import Iterator, Mapping
from math import isnan, nan

from deerfield.documents.partition_manifest import TEST
from deerfield.gate.evidence import Evidence, Figure
from deerfield.gate.rules import Rules
from deerfield.gate.verdict import Row, row, told

UNKNOWN = Figure(value=nan, low=nan, high=nan)


def quality_rows(rules: Rules, evidence: Evidence) -> Iterator[Row]:
    """The rows `minimum`, `test_set`, `regression`, and what the rules ask for of `worst_site`, ..., `calibration`."""
    yield _minimum(rules, evidence)
    yield _test_set(rules, evidence)
    yield _regression(rules, evidence)
    if rules.worst_site.minimum is not None:
        yield _worst_site(rules.metric, rules.worst_site.minimum, evidence)
    if rules.worst_site.margin is not None:
        yield _worst_site_regression(rules.metric, rules.worst_site.margin, evidence)
    if rules.calibration is not None:
        yield _calibration(rules.calibration, evidence)


def _minimum(rules: Rules, evidence: Evidence) -> Row:
    figure, limit = evidence.evaluation.candidate.metrics.get(rules.metric, UNKNOWN), rules.minimum
    reached = figure.low if rules.bound == "low" else figure.value
    name = f"the lower bound of {rules.metric}" if rules.bound == "low" else rules.metric
    if rules.bound == "low" and (short := _not_confident(rules, evidence)):
        return row("minimum", False, reached, limit, short)
    if not figure.known:
        return row("minimum", False, reached, limit, f"{name} is not known, and it must be at least {limit:g}")
    value, low, high, at, least = told(figure.value, figure.low, figure.high, reached, limit)
    measured = f"; measured {value}, {low} to {high} at {_percent(evidence)}" if rules.bound == "low" else ""
    passed = reached >= limit
    said = f"{name} is {at}, {'at least' if passed else 'below'} the minimum {least}{measured}"
    return row("minimum", passed, reached, limit, said)


def _test_set(rules: Rules, evidence: Evidence) -> Row:
    found, lineage, fewest = evidence.evaluation, evidence.lineage, rules.test_set.minimum
    named = rules.test_set.sha256 or lineage.hub.get(TEST, "")
    whose = "the rules name" if rules.test_set.sha256 else "the manifest keeps apart"
    wrong = []
    if found.examples < fewest:
        wrong.append(f"it has {found.examples} examples, and the rules ask for {fewest}")
    if named and found.test_sha256 != named:
        wrong.append(f"it has sha256 {found.test_sha256[:12] or 'none'}, {whose} {named[:12]}")
    elif named == lineage.hub.get(TEST) and found.examples != (held := lineage.test_examples):
        wrong.append(f"it has {found.examples} examples, and the manifest keeps {held} apart")
    if wrong:
        said = f"the test set of the evaluation will not do: {'; '.join(wrong)}"
        return row("test_set", False, found.examples, fewest, said)
    which = f"the one that {whose}" if named else "which nobody names: `test_set: sha256` of the rules would"
    return row("test_set", True, found.examples, fewest, f"{found.examples} examples, at least {fewest}; {which}")


def _regression(rules: Rules, evidence: Evidence) -> Row:
    name, limit, champion = "regression", -rules.regression.margin, evidence.champion
    if champion is None:
        return row(name, True, None, limit, "there is no champion yet: a first version has nothing to be worse than")
    other = f"the champion, version {champion.version}"
    figure = evidence.evaluation.differences.get(rules.metric, UNKNOWN)
    if not figure.known:
        said = f"the evaluation has no difference in {rules.metric} from {other}: evaluate the version again"
        return row(name, False, None, limit, said)
    if short := _not_confident(rules, evidence):
        return row(name, False, figure.low, limit, short)
    value, low, high, least = told(figure.value, figure.low, figure.high, limit)
    passed = figure.low >= limit
    judged = f"the lower bound {'keeps' if passed else 'is below'} the margin {least}"
    better = ", and the version is better with confidence" if passed and figure.low > 0 else ""
    said = f"{rules.metric} minus that of {other}: {value}, {low} to {high} at {_percent(evidence)}; {judged}{better}"
    return row(name, passed, figure.low, limit, said)


def _worst_site(metric: str, limit: float, evidence: Evidence) -> Row:
    site, value = _worst(metric, evidence.evaluation.candidate.sites)
    if isnan(value):
        return row("worst_site", False, None, limit, _nothing_at(metric, site, "the candidate"))
    at, least = told(value, limit)
    passed = value >= limit
    said = f"{metric} is lowest at {site}: {at}, {'at least' if passed else 'below'} the minimum {least} for every site"
    return row("worst_site", passed, value, limit, said)


def _worst_site_regression(metric: str, margin: float, evidence: Evidence) -> Row:
    name, scored = "worst_site_regression", evidence.evaluation.champion
    if evidence.champion is None:
        return row(name, True, None, None, "there is no champion yet, and so no worst site to compare with")
    site, value = _worst(metric, evidence.evaluation.candidate.sites)
    other, best = _worst(metric, scored.sites if scored is not None else {})
    if isnan(value):
        return row(name, False, None, best - margin, _nothing_at(metric, site, "the candidate"))
    if isnan(best):
        return row(name, False, value, None, _nothing_at(metric, other, "the champion"))
    passed = value - best >= -margin
    at, champions, most = told(value, best, margin)
    said = (
        f"{metric} at the worst site, {site}, is {at}; at the champion's worst, {other}, {champions}: "
        f"{'not ' if passed else ''}lower by more than the margin {most}"
    )
    return row(name, passed, value, best - margin, said)


def _calibration(limit: float, evidence: Evidence) -> Row:
    ece = evidence.evaluation.candidate.ece
    if isnan(ece):
        said = f"the expected calibration error is not known, and it may be {limit:g} at most"
        return row("calibration", False, None, limit, said)
    value, most = told(ece, limit)
    passed = ece <= limit
    said = f"the expected calibration error is {value}, {'within' if passed else 'above'} the limit {most}"
    return row("calibration", passed, ece, limit, said)


def _worst(metric: str, sites: Mapping[str, Mapping[str, float]]) -> tuple[str, float]:
    """The site where the metric is not known, else where it is lowest; no site at all is the empty name and NaN."""
    values = {site: metrics.get(metric, nan) for site, metrics in sites.items()}
    unknown = sorted(site for site, value in values.items() if isnan(value))
    if unknown or not values:
        return (unknown[0] if unknown else ""), nan
    return min(values.items(), key=lambda pair: (pair[1], pair[0]))


def _nothing_at(metric: str, site: str, whose: str) -> str:
    if site:
        return f"{metric} of {whose} at {site} is not known: the evaluation has other metrics there, or none"
    return f"the evaluation has no metrics of {whose} by site: give the test set a site column, or let sites report"


def _not_confident(rules: Rules, evidence: Evidence) -> str:
    """Why the evaluation's intervals will not do; empty where they will."""
    confidence = evidence.evaluation.confidence
    if confidence >= rules.confidence:
        return ""
    found, wanted = told(confidence * 100, rules.confidence * 100)
    return f"the evaluation's intervals are at {found} %, and the rules ask for {wanted} %: evaluate the version again"


def _percent(evidence: Evidence) -> str:
    return f"{evidence.evaluation.confidence * 100:g} %"
