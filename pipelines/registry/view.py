"""What is shown of registered models: their versions with verdicts and costs, and in what two versions differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

from deerfield.documents.reading import parsed
from deerfield.documents.verdict import Verdict
from pipelines.registry.collecting import RUN_FILE
from pipelines.registry.reader import CANDIDATE, CHAMPION, RegistryReader, Version

VERDICT = "verdict.json"
TAG = "deerfield.verdict"  # passed or refused; without it, no gate has judged the version
PREVIOUS = "deerfield.previous_champion"
COMPARED = ("run", "strategy", "digest", "base", "base_digest", "delta", "verdict")  # tags deerfield.NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A registered model, in one line."""

    name: str
    versions: int
    newest: Version | None
    champion: str  # version; empty: there is none
    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A version and the gate's verdict on it, where there is one."""

    version: Version
    verdict: Verdict | None

    @property
    def word(self) -> str:
        """`passed`, `refused`, or empty where no gate has judged it."""
        return self.version.tags.get(TAG, "")

    @property
    def metrics(self) -> Mapping[str, Mapping[str, float]]:
        """The metrics that the gate saw, each with value, low and high; NaN for what was not known."""
        found = self._seen("evaluation", "candidate", "metrics")
        return {
            name: {key: _number(figure, key) for key in ("value", "low", "high")}
            for name, figure in sorted(found.items())
        }

    @property
    def metric(self) -> str:
        """The metric that the rules judged; empty where no gate has judged the version."""
        return str(self._seen("rules").get("metric", ""))

    @property
    def test_set(self) -> str:
        """The sha256 of the test set that the metrics are of."""
        return str(self._seen("evaluation").get("test_sha256", ""))

    @property
    def refused(self) -> Sequence[str]:
        """The rules that were not kept."""
        return [each.rule for each in self.verdict.rules if not each.passed] if self.verdict is not None else []

    def _seen(self, *keys: str) -> Mapping[str, Any]:
        found: Any = {} if self.verdict is None else self.verdict.evidence
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing in which two versions differ."""

    part: str  # run file, metrics, epsilon, registry
    name: str
    values: tuple[str, str]


def listed(registry: RegistryReader) -> list[Model]:
    """Every registered model."""
    return [_model(name, registry.versions(name)) for name in registry.models()]


def shown(registry: RegistryReader, model: str, last: int = 0) -> list[Judged]:
    """The versions of a model with their verdicts, newest first; `last` of them, or all of them where it is 0."""
    versions = registry.versions(model)
    return [judged(registry, version) for version in (versions[:last] if last else versions)]


def judged(registry: RegistryReader, version: Version) -> Judged:
    """A version with its verdict."""
    has_one = TAG in version.tags and VERDICT in registry.artifacts(version)
    where = f"{VERDICT} of {version}"
    return Judged(
        version=version, verdict=parsed(Verdict, registry.content(version, VERDICT), where) if has_one else None
    )


def differences(registry: RegistryReader, one: Judged, other: Judged) -> list[Difference]:
    """In what two versions differ: run file, metrics, epsilon by site, and what the registry says."""
    return [
        *_differing("run file", _run_file(registry, one), _run_file(registry, other)),
        *_differing("metrics", _figures(one), _figures(other)),
        *_differing("epsilon", _spent(one), _spent(other)),
        *_differing("registry", _registered(one), _registered(other)),
    ]


def _model(name: str, versions: Sequence[Version]) -> Model:
    by_alias = {alias: version.version for version in versions for alias in version.aliases}
    return Model(
        name=name,
        versions=len(versions),
        newest=versions[0] if versions else None,
        champion=by_alias.get(CHAMPION, ""),
        candidate=by_alias.get(CANDIDATE, ""),
    )


def _differing(part: str, one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[Difference]:
    for name in sorted({*one, *other}):
        values = (one.get(name, ""), other.get(name, ""))
        if values[0] != values[1]:
            yield Difference(part=part, name=name, values=values)


def _run_file(registry: RegistryReader, found: Judged) -> Mapping[str, str]:
    if RUN_FILE not in registry.artifacts(found.version):
        return {}
    document = registry.document(found.version, RUN_FILE)
    return dict(_flat(document)) if isinstance(document, Mapping) else {}


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested keys joined by dots, values as text."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _figures(found: Judged) -> Mapping[str, str]:
    metrics = {name: interval(figure) for name, figure in found.metrics.items()}
    return {**metrics, **({"test set": found.test_set} if found.test_set else {})}


def _number(figure: Any, key: str) -> float:
    """A number of a verdict's evidence, which stands in MLflow as whoever may write there has left it."""
    found = figure.get(key) if isinstance(figure, Mapping) else None
    return float(found) if isinstance(found, int | float) else nan


def interval(figure: Mapping[str, float]) -> str:
    """A metric with its interval."""
    return f"{figure['value']:.4g} ({figure['low']:.4g} to {figure['high']:.4g})"


def _spent(found: Judged) -> Mapping[str, str]:
    return {site: f"{value:.4g}" for site, value in found.version.epsilon.items()}


def _registered(found: Judged) -> Mapping[str, str]:
    return {name: found.version.tags.get(f"deerfield.{name}", "") for name in COMPARED}
