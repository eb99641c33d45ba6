"""What a person sees of the registry: a verdict, all models, a model's versions, and two versions side by side."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from deerfield.gate.verdict import Verdict, plain
from pipelines.pages.formats import number
from pipelines.registry.view import PREVIOUS, Difference, Judged, Model, interval

SHORT = 12  # characters of a digest


def verdict_table(verdict: Verdict) -> Table:
    """One row for each rule."""
    against = f"against champion {verdict.expected_champion}" if verdict.expected_champion else "no champion yet"
    table = Table(title=f"{escape(verdict.model)} version {verdict.version}, {against}", box=SIMPLE_HEAD)
    table.add_column("rule", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in verdict.rules:
        table.add_row(row.rule, _word("passed" if row.passed else "refused"), escape(row.detail))
    return table


def list_table(models: Sequence[Model]) -> Table:
    """A row for each model."""
    table = Table("model", "versions", "champion", "candidate", "newest", "verdict", "epsilon", box=SIMPLE_HEAD)
    for each in models:
        newest = each.newest
        table.add_row(
            escape(each.name),
            str(each.versions),
            each.champion or "–",
            each.candidate or "–",
            f"{newest.version}, {_date(newest.created_s)}" if newest else "–",
            _word(newest.tags.get("deerfield.verdict", "")) if newest else "–",
            number(max(newest.epsilon.values(), default=None)) if newest else "–",
        )
    table.caption = "verdict, epsilon: of the newest version; the epsilon of the site that spent most"
    return table


def model_table(found: Sequence[Judged]) -> Table:
    """A row for each version, the newest first."""
    metric = next((each.metric for each in found if each.metric), "metric")
    table = Table(box=SIMPLE_HEAD)
    for name in ("version", "alias", "verdict", metric, "epsilon", "registered", "run"):
        table.add_column(escape(name), no_wrap=name != "run", overflow="fold")
    for each in found:
        version, figure = each.version, each.metrics.get(each.metric)
        table.add_row(
            version.version,
            ", ".join(version.aliases),
            _word(each.word),
            interval(figure) if figure else "–",
            number(max(version.epsilon.values(), default=None)),
            _date(version.created_s),
            escape(version.run),
        )
    return table


def model_lines(found: Sequence[Judged]) -> Iterator[str]:
    """Below the table: what each site spent on each version, the champion's predecessor, and why one was refused."""
    for each in found:
        spent = ", ".join(f"{site} {number(value)}" for site, value in each.version.epsilon.items())
        if spent:
            yield f"version {each.version.version}: epsilon {spent}"
        if each.refused:
            yield f"version {each.version.version}: refused by {', '.join(each.refused)}"
        if before := each.version.tags.get(PREVIOUS):
            yield f"version {each.version.version}: was made champion after version {before}"


def difference_table(one: Judged, other: Judged, found: Sequence[Difference]) -> Table:
    """A row for each thing in which two versions differ."""
    table = Table(title=escape(one.version.model), box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column("what", overflow="fold")
    for each in (one, other):
        table.add_column(f"version {each.version.version}", overflow="fold")
    part = ""
    for each_found in found:
        values = [escape(_short(value)) or "–" for value in each_found.values]
        table.add_row(each_found.part if each_found.part != part else "", escape(each_found.name), *values)
        part = each_found.part
    return table


def judged_json(found: Judged) -> Mapping[str, Any]:
    """A version and its verdict."""
    version = found.version
    return {
        "model": version.model,
        "version": version.version,
        "aliases": list(version.aliases),
        "registered": _time(version.created_s),
        "run": version.run,
        "digest": version.digest,
        "verdict": found.word,
        "refused_by": list(found.refused),
        "metrics": plain(found.metrics),
        "epsilon": plain(version.epsilon),
        "tags": dict(version.tags),
    }


def model_json(model: Model) -> Mapping[str, Any]:
    """A model in one line."""
    return {
        "model": model.name,
        "versions": model.versions,
        "newest": model.newest.version if model.newest else "",
        "champion": model.champion,
        "candidate": model.candidate,
    }


def difference_json(found: Difference) -> Mapping[str, Any]:
    """One thing in which two versions differ."""
    return {"part": found.part, "name": found.name, "values": list(found.values)}


def dumps(value: Any) -> str:
    """JSON as every command prints it."""
    return json.dumps(value, indent=2, allow_nan=False)


def _word(verdict: str) -> str:
    colour = {"passed": "green", "refused": "red"}.get(verdict, "default")
    return f"[{colour}]{escape(verdict)}[/]" if verdict else "–"


def _short(value: str) -> str:
    return f"{value[:SHORT]}..." if len(value) == 64 and " " not in value else value


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
