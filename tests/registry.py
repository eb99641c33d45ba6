"""A model registry in memory, and a tracking that keeps files: for tests that are not about MLflow."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

from deerfield.gate import Held, Rules, judge
from deerfield.promotion import Verdict
from services.aggregator.champions.models import Version
from tests import gating


@dataclass
class ModelsInMemory:
    """A `Models`; `made` is filled by tests."""

    made: dict[tuple[str, str], Version] = field(default_factory=dict)
    named: dict[str, dict[str, str]] = field(default_factory=dict)  # versions by alias, by model
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)  # artifacts, by model, version and path
    where: str = "memory"

    def add(self, model: str, version: str, *, run: str = "", digest: str = "", previous: str = "") -> None:
        known = Version(model=model, version=version, mlflow_run="", run=run, digest=digest, previous_champion=previous)
        self.made[model, version] = known
        self.named.setdefault(model, {})

    def aliases(self, model: str) -> Mapping[str, str] | None:
        return self.named.get(model)

    def version(self, model: str, version: str) -> Version | None:
        return self.made.get((model, version))

    def artifact(self, version: Version, path: str) -> bytes | None:
        return self.files.get((version.model, version.version, path))

    def judge(self, version: Version, verdict: Verdict) -> None:
        self.verdicts[version.model, version.version] = verdict

    def remember(self, version: Version, previous: str) -> None:
        self.made[version.model, version.version] = replace(version, previous_champion=previous)

    def crown(self, version: Version) -> None:
        self.named[version.model]["champion"] = version.version

    def retire(self, version: Version) -> None:
        if self.named[version.model].get("candidate") == version.version:
            del self.named[version.model]["candidate"]


@dataclass
class Tracked:
    """A `Tracking` that takes note of nothing but files."""

    models: ModelsInMemory = field(default_factory=ModelsInMemory)
    files: list[object] = field(default_factory=list)

    def record(self, event: object) -> None:
        return None

    def attach(self, file: object) -> None:
        self.files.append(file)


def verdict(
    model: str,
    version: str,
    expected: str,
    *,
    candidate: Held | None = None,
    champion: Held | None = None,
    passed: bool = True,
    note: str = "",
) -> str:
    """What a gate writes of a run of unit none whose one site is the north, with a `note` among the evidence."""
    held = candidate or Held(version=version, run="a-run", digest="d" * 64)
    before = (champion or Held(version=expected, run="a-run", digest="c" * 64)) if expected else None
    whole = gating.evidence(
        model=model,
        candidate=held,
        champion=before,
        evaluation=gating.evaluation(
            candidate=gating.scored(version, digest=held.digest),
            champion=None if before is None else gating.scored(before.version, digest=before.digest),
            kept="",
        ),
        spent=gating.spent(unit="none", sites=("north",), epsilon={"north": inf}, lifetime={"north": inf}),
        proof=gating.proven(runs=(held.run,), digest=held.digest),
        lineage=gating.lineage(kind="consortium", hub={}, test_examples=None, manifests={}),
    )
    rules = Rules(minimum=0.7 if passed else 0.8, privacy="none_allowed")
    found = judge(rules, whole).as_json()
    return json.dumps({**found, "evidence": {**found["evidence"], "note": note}}, allow_nan=False)
