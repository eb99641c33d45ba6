"""The registry gate: judges the evidence about one version by the consortium's rules, and says each reason in numbers.

Pure. A rule that cannot be shown to hold fails: what is not known is NaN or left out, and never passes.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from deerfield.errors import InvalidInput
from deerfield.gate.evidence import Evaluation, Evidence, Figure, Held, Lineage, Proven, Scored, Spent
from deerfield.gate.origin import origin_rows
from deerfield.gate.privacy import privacy_rows
from deerfield.gate.quality import quality_rows
from deerfield.gate.rules import Rules, load_rules
from deerfield.gate.verdict import Row, Verdict

ALWAYS = (
    *("minimum", "test_set", "regression", "epsilon", "lifetime_epsilon", "delta"),
    *("proof", "lineage", "leakage", "freshness"),
)  # the rows that every verdict has, whatever the rules file says

__all__ = [
    "ALWAYS",
    "Evaluation",
    "Evidence",
    "Figure",
    "Held",
    "Lineage",
    "Proven",
    "Row",
    "Rules",
    "Scored",
    "Spent",
    "Verdict",
    "asked",
    "judge",
    "load_rules",
]


def judge(rules: Rules, evidence: Evidence) -> Verdict:
    """Holds the evidence against every rule.

    Raises:
        InvalidInput: the rules name a metric that the evaluation does not have.
    """
    known = evidence.evaluation.candidate.metrics
    if rules.metric not in known:
        raise InvalidInput(
            f"the rules judge the metric {rules.metric!r}, which the evaluation does not have; it has "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    rows = (*quality_rows(rules, evidence), *privacy_rows(rules, evidence), *origin_rows(rules, evidence))
    champion = evidence.champion
    return Verdict(
        model=evidence.model,
        version=evidence.candidate.version,
        expected_champion="" if champion is None else champion.version,
        rules=rows,
        evidence=_kept(rules, evidence),
        time=evidence.time,
    )


def asked(rules: Rules) -> tuple[str, ...]:
    """The names of the rows that a verdict by these rules has."""
    found = {
        "worst_site": rules.worst_site.minimum,
        "worst_site_regression": rules.worst_site.margin,
        "calibration": rules.calibration,
    }
    return (*ALWAYS, *(name for name, value in found.items() if value is not None))


def _kept(rules: Rules, evidence: Evidence) -> Mapping[str, Any]:
    """The evidence as the verdict keeps it: everything that was judged, and the rules themselves."""
    whole = {name: value for name, value in asdict(evidence).items() if name not in ("model", "time")}
    return {**whole, "rules": rules.model_dump(mode="json")}
