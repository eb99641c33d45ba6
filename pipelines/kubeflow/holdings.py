"""The schedules and pipelines that an installation of Kubeflow Pipelines holds: found, shown, and taken out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from deerfield.errors import InvalidInput
from pipelines.kubeflow import recurring
from pipelines.kubeflow.kfp_link import Client, check_mode, connected, every, patiently
from pipelines.kubeflow.kfp_transport import Where

SHOWN = 32  # letters of a value in a table; enough of a version's sha256 to tell it from others


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A pipeline, and its newest version."""

    name: str
    versions: int
    newest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurring:
    """A recurring run."""

    name: str
    id: str
    owner: str | None  # None: deerfield has not made it
    enabled: bool
    cron: str
    pipeline: str
    version: str
    max_concurrency: int
    catchup: bool
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Everything that `deerfield pipelines list` shows."""

    pipelines: list[Pipeline]
    schedules: list[Recurring]


def look(where: Where, patience_s: float) -> Holdings:
    """What the installation holds; raises Unreachable, InvalidInput as every question to it."""
    with connected(where) as client:
        return patiently(patience_s, lambda: _look(client, where))


def _look(client: Client, where: Where) -> Holdings:
    check_mode(client, where)
    namespace = client.get_user_namespace() or None
    pipelines: list[Pipeline] = []
    names: dict[str, tuple[str, str]] = {}  # of a version: its pipeline's and its own
    for found in every(client.list_pipelines, "pipelines", namespace=namespace):
        versions = list(every(client.list_pipeline_versions, "pipeline_versions", pipeline_id=found.pipeline_id))
        names |= {each.pipeline_version_id: (found.display_name, each.display_name) for each in versions}
        newest = max(versions, key=lambda each: each.created_at).display_name if versions else ""
        pipelines.append(Pipeline(name=found.display_name, versions=len(versions), newest=newest))
    return Holdings(pipelines=pipelines, schedules=[_recurring(found, names) for found in recurring.listed(client)])


def _recurring(found: Any, names: dict[str, tuple[str, str]]) -> Recurring:
    reference = found.pipeline_version_reference
    pipeline, version = names.get(reference.pipeline_version_id, ("", "")) if reference else ("", "")
    cron = found.trigger.cron_schedule if found.trigger else None
    return Recurring(
        name=found.display_name,
        id=found.recurring_run_id,
        owner=recurring.owner_of(found),
        enabled=recurring.is_enabled(found),
        cron=cron.cron if cron else "",
        pipeline=pipeline,
        version=version,
        max_concurrency=int(found.max_concurrency or 1),
        catchup=not found.no_catchup,
        parameters=(found.runtime_config.parameters if found.runtime_config else None) or {},
    )


def tables(held: Holdings) -> Sequence[Table | str]:
    """What a person reads."""
    if not held.pipelines and not held.schedules:
        return ["no pipelines and no schedules yet"]
    pipelines = Table("pipeline", "versions", "newest", box=None, pad_edge=False)
    for each in held.pipelines:
        pipelines.add_row(each.name, str(each.versions), _short(each.newest))
    schedules = Table("schedule", "kept by", "state", "cron (UTC)", "pipeline", "parameters", box=None, pad_edge=False)
    for run in held.schedules:
        values = "\n".join(f"{name}={_short(value)}" for name, value in sorted(run.parameters.items()))
        state = "enabled" if run.enabled else "disabled"
        schedules.add_row(run.name, run.owner or "others", state, run.cron, run.pipeline, values)
    return [pipelines, "", schedules if held.schedules else "no schedules yet"]


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def unschedule(where: Where, name: str, patience_s: float) -> list[str]:
    """Deletes every recurring run of this name; answers who kept them. Runs that have started go on.

    Raises:
        InvalidInput: there is none, or deerfield has not made it.
    """
    with connected(where) as client:
        return patiently(patience_s, lambda: _unscheduled(client, where, name))


def _unscheduled(client: Client, where: Where, name: str) -> list[str]:
    check_mode(client, where)
    found = list(recurring.named(client, name))
    if not found:
        known = sorted(each.display_name for each in recurring.listed(client) if recurring.owner_of(each))
        raise InvalidInput(f"there is no schedule {name!r} at {where.address}; there are {', '.join(known) or 'none'}")
    owners = {recurring.owner_of(each) for each in found}
    if None in owners:
        raise InvalidInput(f"deerfield has not made the recurring run {name!r}, and does not delete it; do so there")
    for each in found:
        recurring.delete(client, each)
    return sorted(owner for owner in owners if owner)
