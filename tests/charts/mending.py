"""Laws on what mends itself: a pod that is missing something says so, and a slow node is no fault."""

from collections.abc import Iterable, Iterator

from tests.charts.pods import containers, of_kind, pods, title
from tests.charts.rendering import Object
from tests.charts.wiring import PROBES

LEAST_S = 5  # the kubelet's default of 1 s is less than it takes to start a program on a node that trains


def parallel(objects: Iterable[Object]) -> Iterator[str]:
    """A StatefulSet's pod that is not ready is replaced by an upgrade; in OrderedReady somebody has to delete it."""
    for each in of_kind(objects, "StatefulSet"):
        if each["spec"].get("podManagementPolicy") != "Parallel":
            yield f"{title(each)}: podManagementPolicy is not Parallel"


def said(objects: Iterable[Object]) -> Iterator[str]:
    """A pod starts without the Secret of a volume, so that its program says in a sentence what is missing."""
    for pod in pods(objects):
        for volume in pod.spec.get("volumes", []):
            for source in (volume, *volume.get("projected", {}).get("sources", [])):
                if "secret" in source and not source["secret"].get("optional"):
                    yield f"{pod.where}: waits without a word for the Secret of volume {volume['name']}"


def patient(objects: Iterable[Object]) -> Iterator[str]:
    """A probe that starts a program has the time for it."""
    for pod in pods(objects):
        for where, box in containers(pod):
            for probe in PROBES:
                if "exec" in box.get(probe, {}) and box[probe].get("timeoutSeconds", 1) < LEAST_S:
                    yield f"{where}: {probe} has less than {LEAST_S} s"
