"""A model registry in memory, and a tracking that keeps files: for tests that are not about MLflow."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from deerfield.promotion import Verdict
from services.aggregator.champions.models import Version


@dataclass
class ModelsInMemory:
    """A `Models`; `made` is filled by tests."""

    made: dict[tuple[str, str], Version] = field(default_factory=dict)
    named: dict[str, dict[str, str]] = field(default_factory=dict)  # versions by alias, by model
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    where: str = "memory"

    def add(self, model: str, version: str, *, run: str = "", digest: str = "", previous: str = "") -> None:
        known = Version(model=model, version=version, mlflow_run="", run=run, digest=digest, previous_champion=previous)
        self.made[model, version] = known
        self.named.setdefault(model, {})

    def aliases(self, model: str) -> Mapping[str, str] | None:
        return self.named.get(model)

    def version(self, model: str, version: str) -> Version | None:
        return self.made.get((model, version))

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


def verdict(model: str, version: str, expected: str, *, passed: bool = True, note: str = "") -> str:
    """What a gate writes, on two rules."""
    rules = [
        {"rule": "minimum.macro_f1", "passed": True, "value": 0.91, "limit": 0.8, "detail": "0.91 is above 0.8"},
        {"rule": "worst_site", "passed": passed, "value": 0.6, "limit": 0.5, "detail": "north"},
    ]
    said = {"schema": 1, "passed": passed, "model": model, "version": version, "expected_champion": expected}
    return json.dumps({**said, "rules": rules, "evidence": {"note": note}, "time": 1.0})
