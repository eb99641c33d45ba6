"""What the aggregator, which alone writes to the registry, has registered of a run."""

from dataclasses import dataclass

from deerfield.errors import InvalidInput, NotRegistered
from deerfield.exchange import LIVE, Event
from pipelines.steps.reach import runs_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A version of a registered model."""

    model: str
    version: str


def register(run: str, aggregator: str) -> Registered:
    """The model version that a finished run has become.

    Raises:
        UnknownRun: the aggregator has no such run.
        InvalidInput: it is not over.
        NotRegistered: it has become none, and why.
    """
    with runs_at(aggregator) as runs:
        view = runs.get(run)
        if view.state in LIVE:
            raise InvalidInput(f"run {run} is {view.state}: it is registered when it has finished; wait for its rounds")
        last = {event.kind: event for event in runs.watch(run)}
    if (found := last.get("registered")) is not None:
        return Registered(model=str(found.detail["name"]), version=str(found.detail["version"]))
    raise NotRegistered(f"run {run} has no version in the registry: {_why(last.get('tracking_failed'), view.state)}")


def _why(failed: Event | None, state: str) -> str:
    if failed is not None:
        return f"MLflow could not be told of {failed.detail['event']}: {failed.detail['reason']}"
    if state != "FINISHED":
        return f"it is {state}"
    return "its sites keep models of their own, or its aggregator was started without --tracking"
