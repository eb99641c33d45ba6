"""Brings Kubeflow Pipelines to what compiled pipelines and a schedules file say, however often it is called."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deerfield.errors import InvalidInput
from pipelines.compiled.package import Package
from pipelines.kubeflow import recurring
from pipelines.kubeflow.kfp_link import Client, check_mode, connected, patiently
from pipelines.kubeflow.kfp_transport import Where
from pipelines.kubeflow.recurring import Change, Wanted
from pipelines.kubeflow.schedules import Schedule
from pipelines.kubeflow.uploading import Uploaded, experiment, upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What an installation is to hold."""

    packages: Mapping[str, Package]  # by the name of the pipeline
    schedules: Sequence[Schedule]
    owner: str  # whose schedules these are
    whole: bool = True  # the owner's other schedules are deleted

    def __post_init__(self) -> None:
        """Raises InvalidInput for an owner that a recurring run could not be marked with."""
        if recurring.OWNER.fullmatch(self.owner) is None:
            raise InvalidInput(
                f"--owner is {self.owner[:80]!r}; it has 1 to 63 letters, digits, dots, dashes and underscores"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of one object."""

    change: Change
    kind: Literal["pipeline", "schedule"]
    name: str
    detail: str = ""


Say = Callable[[Done], object]


def register(where: Where, asked: Registration, say: Say, patience_s: float) -> None:
    """Uploads the pipelines' versions that are missing, and makes the owner's recurring runs what is asked.

    Raises:
        Unreachable: no answer for `patience_s` seconds.
        InvalidInput: the installation refuses something, or is of another kind.
    """
    told: set[tuple[str, str]] = set()

    def once(done: Done) -> None:  # what an interrupted pass has done is unchanged to the next
        if (done.kind, done.name) not in told:
            told.add((done.kind, done.name))
            say(done)

    with connected(where) as client:
        patiently(patience_s, lambda: _pass(client, where, asked, once))


def _pass(client: Client, where: Where, asked: Registration, say: Say) -> None:
    check_mode(client, where)
    uploaded: dict[str, Uploaded] = {}
    for name, package in asked.packages.items():
        uploaded[name] = upload(client, package)
        say(Done(change=uploaded[name].change, kind="pipeline", name=name, detail=f"version {package.version}"))
    for schedule in asked.schedules:
        change = recurring.apply(client, _wanted(client, schedule, uploaded[schedule.pipeline], asked.owner))
        detail = f"{schedule.pipeline} at '{schedule.cron}'" + ("" if schedule.enabled else ", disabled")
        say(Done(change=change, kind="schedule", name=schedule.name, detail=detail))
    if asked.whole:
        _delete_others(client, asked, say)


def _wanted(client: Client, schedule: Schedule, uploaded: Uploaded, owner: str) -> Wanted:
    return Wanted(
        schedule=schedule,
        owner=owner,
        experiment_id=experiment(client, schedule.experiment),
        pipeline_id=uploaded.pipeline_id,
        version_id=uploaded.version_id,
    )


def _delete_others(client: Client, asked: Registration, say: Say) -> None:
    kept = {schedule.name for schedule in asked.schedules}
    for found in list(recurring.listed(client)):
        if recurring.owner_of(found) == asked.owner and found.display_name not in kept:
            recurring.delete(client, found)
            say(Done(change="deleted", kind="schedule", name=found.display_name))
