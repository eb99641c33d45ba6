"""Judges a version by the rules: collects the evidence, writes the verdict, and has a refusal kept in the registry."""

import json
from pathlib import Path

from deerfield.gate import Verdict, judge
from deerfield.gate.rules import rules_of
from pipelines.registry.collecting import Request, chosen, collect
from pipelines.registry.reader import open_registry
from pipelines.steps.keep import MANIFEST, keep
from pipelines.steps.reach import runs_at
from pipelines.steps.running import say


def gate(
    model: str,
    version: str,
    rules: str,
    tracking: str,
    aggregator: str,
    evaluation: Path,
    manifest: Path | None,
    verdict: Path,
) -> bool:
    """Whether the version keeps every rule of a rules file's text; has a refusal recorded, and promotes nothing.

    A `manifest` is kept with the version's run, which has no other one.

    Raises:
        InvalidInput: the rules, a file, or the version cannot be used, or the run has kept another manifest.
        ChampionMoved: the champion is no longer the one that was compared with.
        Unreachable: MLflow or the aggregator does not answer.
    """
    read, registry = rules_of(rules, "rules"), open_registry(tracking)
    if manifest is not None:
        keep(chosen(registry, model, version).run, aggregator, MANIFEST, manifest)
    request = Request(model=model, version=version, evaluation=evaluation, manifest=manifest)
    judged = judge(read, collect(registry, read, request))
    write(judged, verdict)
    if not judged.passed:
        with runs_at(aggregator) as runs:
            runs.promote(judged.model, judged.version, judged.expected_champion, text(judged))
    for row in judged.rules:
        say(f"{'passed ' if row.passed else 'REFUSED'}  {row.rule}: {row.detail}")
    return judged.passed


def text(verdict: Verdict) -> str:
    """The verdict as JSON, as the aggregator keeps it."""
    return json.dumps(verdict.as_json(), indent=1, sort_keys=True, allow_nan=False) + "\n"


def write(verdict: Verdict, path: Path) -> None:
    """Writes verdict.json."""
    path.write_text(text(verdict), "utf-8")
