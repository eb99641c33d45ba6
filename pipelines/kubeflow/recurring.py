"""Recurring runs of Kubeflow Pipelines by name: one of each, and never two that are enabled.

The API cannot change a recurring run but switch it on and off, and lets several have one name. So a changed one is made
anew, switched off; then every other of its name is deleted; then it is switched on. Whoever is interrupted in between
leaves what the next one puts in order, and of several at once the one that was made first stays: each lists the
recurring runs after it has made its own, and deletes what it finds before it switches anything on.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from deerfield.errors import InvalidInput, Unreachable
from pipelines.kubeflow.kfp_link import Client, called, every
from pipelines.kubeflow.kfp_transport import NotThere
from pipelines.kubeflow.schedules import Schedule

OWNER = re.compile(r"[A-Za-z0-9._-]{1,63}")
MARK = re.compile(rf"deerfield schedule of ({OWNER.pattern}), sha256 [0-9a-f]{{64}}")  # our description
Change = Literal["created", "updated", "unchanged", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A recurring run as it ought to be, in the ids of the installation."""

    schedule: Schedule
    owner: str  # who keeps it: another owner's is not touched
    experiment_id: str
    pipeline_id: str
    version_id: str

    @property
    def digest(self) -> str:
        """sha256 of everything that cannot be changed without making it anew."""
        asked = self.schedule.model_dump(exclude={"enabled", "files"})
        asked |= {"ids": [self.experiment_id, self.pipeline_id, self.version_id]}
        return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    @property
    def description(self) -> str:
        """What says, on the recurring run itself, whose it is and what it was made of."""
        return f"deerfield schedule of {self.owner}, sha256 {self.digest}"


def owner_of(found: Any) -> str | None:
    """Who keeps a recurring run; None where deerfield has not made it."""
    mark = MARK.fullmatch(found.description or "")
    return mark[1] if mark else None


def is_enabled(found: Any) -> bool:
    """Whether a recurring run starts anything."""
    return bool(found.mode == "ENABLE")


def apply(client: Client, wanted: Wanted) -> Change:
    """Makes the recurring runs of this name the one that is wanted.

    Raises:
        InvalidInput: one of this name is somebody else's.
        Unreachable: somebody else changes it meanwhile, or nobody answers; worth another try.
    """
    try:
        return _settled(client, wanted)
    except NotThere:  # somebody else has deleted the one that was to stay
        raise Unreachable(f"schedule {wanted.schedule.name!r} is changed by somebody else at the same time") from None


def _settled(client: Client, wanted: Wanted) -> Change:
    found = _ours(client, wanted)
    change: Change = "unchanged"
    if not any(each.description == wanted.description for each in found):
        change = "updated" if found else "created"
        _create(client, wanted)
        found = _ours(client, wanted)
    kept = next((each for each in found if each.description == wanted.description), None)
    if kept is None:
        raise NotThere(f"schedule {wanted.schedule.name!r} was deleted as soon as it was made")
    others = [each for each in found if each is not kept]
    for other in others:
        delete(client, other)
    switched = is_enabled(kept) != wanted.schedule.enabled
    if switched:
        switch = client.enable_recurring_run if wanted.schedule.enabled else client.disable_recurring_run
        switch(kept.recurring_run_id)
    return "updated" if change == "unchanged" and (others or switched) else change


def _ours(client: Client, wanted: Wanted) -> list[Any]:
    """The recurring runs of this name, the oldest first."""
    found = list(named(client, wanted.schedule.name))
    for each in found:
        if owner_of(each) != wanted.owner:
            whose = f"is kept by {owner_of(each)!r}" if owner_of(each) else "was not made by deerfield"
            raise InvalidInput(
                f"recurring run {wanted.schedule.name!r} ({each.recurring_run_id}) {whose}, and is not touched; delete "
                "it there, or choose another name"
            )
    return sorted(found, key=lambda each: (each.created_at, each.recurring_run_id))


def _create(client: Client, wanted: Wanted) -> None:
    schedule = wanted.schedule
    client.create_recurring_run(
        experiment_id=wanted.experiment_id,
        job_name=schedule.name,
        description=wanted.description,
        cron_expression=schedule.cron,
        max_concurrency=schedule.max_concurrency,
        no_catchup=not schedule.catchup,
        params=schedule.parameters,
        pipeline_id=wanted.pipeline_id,
        version_id=wanted.version_id,
        enabled=False,
        service_account=schedule.service_account,
    )


def named(client: Client, name: str) -> Iterator[Any]:
    """Every recurring run of this name."""
    return listed(client, filter=called(name))


def listed(client: Client, **query: Any) -> Iterator[Any]:
    """Every recurring run that may be seen and that the query lets through."""
    namespace = client.get_user_namespace() or None
    return every(client.list_recurring_runs, "recurring_runs", namespace=namespace, **query)


def delete(client: Client, found: Any) -> None:
    """Deletes a recurring run, if it is still there; the runs that it has started go on."""
    with suppress(NotThere):
        # kfp's own delete_recurring_run cannot say ORPHAN, and would take the running workflows with it
        client.recurring_runs.recurring_run_service_delete_recurring_run(
            found.recurring_run_id, propagation_policy="ORPHAN"
        )
