"""Judges a verdict again by what this aggregator knows itself, so that no careless or forged one moves a champion.

Known here are the run, its sites' attestations, the manifest that was kept, and the champion. What the evaluation says,
and which code trained, is believed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import isfinite, nan
from typing import Any

from deerfield.documents import verdict as documents
from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.reading import parsed
from deerfield.errors import InvalidInput
from deerfield.gate import Evidence, Held, Row, Rules, asked, judge
from deerfield.gate.evidence import read
from deerfield.gate.ledgers import commitments, proven
from deerfield.gate.privacy import ROUNDING
from deerfield.promotion import Verdict
from deerfield.runfile import parse
from deerfield.runspec import RunSpec

WHERE = "verdict: evidence"
NAMED = 5  # rules that a sentence explains; the rest are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What this aggregator knows of a version."""

    candidate: Held
    champion: Held | None
    spec: RunSpec  # of its run
    mirror: Sequence[Mapping[str, Any]]  # of the sites' ledgers, an object for each phase, from our own rows
    manifest: bytes | None  # that was attached to the run; None: none was
    manifest_sha256: str  # of the very content that was attached
    evaluation_sha256: str  # as attached to the run; empty: none was
    rules: Rules | None  # by which alone a verdict counts; None: by any


def check_verdict(verdict: Verdict, known: Known) -> None:
    """Holds a verdict against what is known, and judges the version again if it passed.

    Raises:
        InvalidInput: in one sentence what does not match, or which rule is not kept.
    """
    found = parsed(documents.Verdict, verdict.text, "verdict")
    rules = parse(Rules, found.evidence.get("rules"), f"{WHERE}: rules")
    if known.rules is not None and rules != known.rules:
        raise InvalidInput(f"{WHERE}: rules: {_other_rules(rules, known.rules)}; judge by the rules of --gate-rules")
    if missing := [name for name in asked(rules) if name not in {each.rule for each in found.rules}]:
        raise InvalidInput(
            f"verdict: rules: {', '.join(missing)} is not among them, and every gate judges it; run the gate of this "
            "version of deerfield"
        )
    told = read({**found.evidence, "model": verdict.model, "time": 0.0}, WHERE)
    if told.candidate != known.candidate:
        raise InvalidInput(
            f"{WHERE}: candidate is {_held(told.candidate)}, and this aggregator has {_held(known.candidate)}"
        )
    if verdict.passed:
        _judge_again(rules, told, known)
    _check_rows(found, judge(rules, told).rules)


def _judge_again(rules: Rules, told: Evidence, known: Known) -> None:
    own = _own(rules, told, known)
    if own.proof is not None and own.proof.verified and (understated := [*_understated(told, own)]):
        raise InvalidInput(f"{WHERE}: spent: {'; '.join(understated[:NAMED])}; run the gate again")
    if failed := judge(rules, own).failed:
        why = "; ".join(f"{row.rule}: {row.detail}" for row in failed[:NAMED])
        more = f" (and {len(failed) - NAMED} more)" if len(failed) > NAMED else ""
        raise InvalidInput(f"verdict: by what this aggregator knows itself the version is refused by {why}{more}")


def _check_rows(found: documents.Verdict, judged: Sequence[Row]) -> None:
    """Raises InvalidInput for a row that is not what the verdict's own evidence comes to: rows become tags."""
    ours = {row.rule: (row.passed, row.value, row.limit) for row in judged}
    for row in found.rules:
        if row.rule not in ours:
            raise InvalidInput(f"verdict: rules: {row.rule} is none that its rules ask for; run the gate again")
        if (said := (row.passed, row.value, row.limit)) != ours[row.rule]:
            raise InvalidInput(
                f"verdict: rules: {row.rule} says (passed, value, limit) = {said}, and the verdict's own evidence "
                f"comes to {ours[row.rule]}; run the gate again"
            )


def _own(rules: Rules, told: Evidence, known: Known) -> Evidence:
    """The evidence as it was told, and in its place what is known here."""
    proof, spent = proven(known.mirror, known.spec, rules.proof, {})
    manifest = _manifest(known)
    lineage = replace(
        told.lineage,
        spec_sha256=known.spec.sha256,
        run_file=known.spec.sha256,
        base_digest=known.spec.model.digest or "",
        trained_on=known.spec.model.digest or "",
        commitments=commitments(known.mirror),
        kind="" if manifest is None else manifest.kind,
        hub={} if manifest is None else manifest.hub,
        test_examples=None if manifest is None or manifest.test is None else manifest.test.examples,
        manifests={**told.lineage.manifests, **({"attached": known.manifest_sha256} if known.manifest_sha256 else {})},
    )
    evaluation = replace(told.evaluation, kept=known.evaluation_sha256)
    return replace(told, champion=known.champion, evaluation=evaluation, spent=spent, proof=proof, lineage=lineage)


def _manifest(known: Known) -> Manifest | None:
    if known.manifest is None:
        return None
    if (found := sha256(known.manifest).hexdigest()) != known.manifest_sha256:
        raise InvalidInput(
            f"{MANIFEST} of run {known.candidate.run} at MLflow has sha256 {found[:12]}, and what was attached has "
            f"{known.manifest_sha256[:12]}: somebody has changed it"
        )
    return parsed(Manifest, known.manifest, MANIFEST)


def _understated(told: Evidence, own: Evidence) -> Iterator[str]:
    """Each site of which the verdict says less than the records of this aggregator come to."""
    for what in ("epsilon", "lifetime"):
        said, ours = getattr(told.spent, what), getattr(own.spent, what)
        for site, value in sorted(ours.items()):
            at = said.get(site, nan)
            if isfinite(at) and not value <= at * (1 + ROUNDING):
                yield f"{what} of {site} is {at:.6g}, and the records of this aggregator come to {value:.6g}"


def _other_rules(told: Rules, pinned: Rules) -> str:
    """The first key in which two rules differ."""
    ours = pinned.model_dump(mode="json")
    key, value = next((key, value) for key, value in told.model_dump(mode="json").items() if value != ours[key])
    return f"{key} is {value}, and this aggregator accepts {ours[key]} alone"


def _held(found: Held) -> str:
    return f"version {found.version} of run {found.run[:80] or 'none'} with digest {found.digest[:12] or 'none'}"
