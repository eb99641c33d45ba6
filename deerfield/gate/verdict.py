"""What the gate says: one row for each rule, in numbers and in a sentence, and the evidence that it was said on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite, isnan
from typing import Any

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One rule; a number that is not known, or infinite, is None, and the sentence says which."""

    rule: str
    passed: bool
    value: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All rules about one version, which is to replace `expected_champion`; empty: there is none."""

    model: str
    version: str
    expected_champion: str
    rules: tuple[Row, ...]
    evidence: Mapping[str, Any]
    time: float  # seconds since 1970

    @property
    def passed(self) -> bool:
        """Whether every rule is kept."""
        return all(row.passed for row in self.rules)

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rules that are not kept."""
        return tuple(row for row in self.rules if not row.passed)

    def as_json(self) -> dict[str, Any]:
        """The verdict as JSON, which has no number that is not finite."""
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "model": self.model,
            "version": self.version,
            "expected_champion": self.expected_champion,
            "rules": [asdict(row) for row in self.rules],
            "evidence": plain(self.evidence),
            "time": self.time,
        }


def row(rule: str, passed: bool, value: float | None, limit: float | None, detail: str) -> Row:
    """A row whose numbers can be written as JSON."""
    return Row(rule=rule, passed=passed, value=finite(value), limit=finite(limit), detail=detail)


def finite(value: float | None) -> float | None:
    """The number, or None for one that JSON cannot hold."""
    return value if value is not None and isfinite(value) else None


def plain(value: Any) -> Any:
    """What `json.dumps` takes: tuples as lists, a number that is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return finite(value) if isinstance(value, float) else value


def told(*numbers: float) -> tuple[str, ...]:
    """The numbers as text, with as many digits as tell apart those that differ; one that is not known is `unknown`."""
    for digits in (4, 6, 9):
        texts = tuple("unknown" if isnan(number) else f"{number:.{digits}g}" for number in numbers)
        if len(set(texts) - {"unknown"}) == len({number for number in numbers if not isnan(number)}):
            return texts
    return tuple(f"{number:.17g}" for number in numbers)
