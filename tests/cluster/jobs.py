"""Jobs and their pods in an API, whatever a Job's container becomes: what makes it is passed as functions."""

from collections.abc import Callable, Iterable

from tests.cluster.api import Resource
from tests.cluster.release import Object
from tests.cluster.store import Store

LABEL = "job-name"  # of a Job's pods
FAILED = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}


def resources(
    store: Store,
    begin: Callable[[Object], object],
    end: Callable[[Object], object],
    pods: Callable[[str], Iterable[Object]],
) -> dict[str, Resource]:
    """Jobs that are kept in a store, and the pods of a namespace.

    `begin` keeps a new Job and makes what it becomes, `end` undoes both.
    """

    def jobs(namespace: str) -> Iterable[Object]:
        there = list(pods(namespace))
        return [{**each, "status": _status(each, there)} for each in store.all("Job", namespace)]

    return {
        "jobs": Resource("Job", "batch/v1", all=jobs, put=begin, drop=end),
        "pods": Resource("Pod", "v1", all=pods),
    }


def pod(metadata: Object, phase: str, state: Object) -> Object:
    """A pod with one container, whose `state` says why it waits, that it runs, or how it ended."""
    return {"metadata": metadata, "status": {"phase": phase, "containerStatuses": [{"state": state}]}}


def terminated(code: int, message: str = "") -> Object:
    """The state of a container that has ended."""
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "message": message}}


def _status(job: Object, pods: Iterable[Object]) -> Object:
    """What the Job controller says of a Job after its pods."""
    own = [each for each in pods if (each["metadata"].get("labels") or {}).get(LABEL) == job["metadata"]["name"]]
    phases = [each["status"]["phase"] for each in own]
    if "Succeeded" in phases:
        return {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
    if phases and phases[-1] == "Failed":
        return {"failed": 1, "conditions": [{"type": "Failed", "status": "True", **FAILED}]}
    return {"active": 1}
