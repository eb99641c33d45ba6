"""The registry gate: judges the evidence about one version by the consortium's rules, and says each reason in numbers.

Pure. A rule that cannot be shown to hold fails: what is not known is NaN or left out, and never passes.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from deerfield.errors import InvalidInput
from pipelines.gate.evidence import Evaluation, Evidence, Figure, Held, Lineage, Proven, Scored, Spent
from pipelines.gate.origin import origin_rows
from pipelines.gate.privacy import privacy_rows
from pipelines.gate.quality import quality_rows
from pipelines.gate.rules import Rules, load_rules
from pipelines.gate.verdict import Row, Verdict

__all__ = [
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


def _kept(rules: Rules, evidence: Evidence) -> Mapping[str, Any]:
    """The evidence as the verdict keeps it: everything that was judged, and the rules themselves."""
    whole = {name: value for name, value in asdict(evidence).items() if name not in ("model", "time")}
    return {**whole, "rules": rules.model_dump(mode="json")}
