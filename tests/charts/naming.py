"""Laws on names and labels: as long as Kubernetes takes them, also under the longest name of a release."""

import re
from collections.abc import Iterable, Iterator

from tests.charts.pods import containers, pods, title
from tests.charts.rendering import Object

# What Kubernetes makes of a name has to fit as well: a StatefulSet's and the hash of a revision are a label together,
# a CronJob's and a time are a Job's name.
LONGEST = {"StatefulSet": 52, "CronJob": 52}
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SERVICE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")  # becomes a host name
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
PORT = re.compile(r"(?=.*[a-z])[a-z0-9](-?[a-z0-9]){0,14}")
RECOMMENDED = ("name", "instance", "component", "version", "managed-by", "part-of")


def names(objects: Iterable[Object]) -> Iterator[str]:
    """Names have at most 63 characters, and are host names where they become one."""
    objects = list(objects)
    for each in objects:
        name, kind = each["metadata"]["name"], each["kind"]
        if not (SERVICE if kind in ("Service", "StatefulSet") else LABEL).fullmatch(name):
            yield f"{title(each)}: {len(name)} characters, or not the form of a name"
        if len(name) > LONGEST.get(kind, 63):
            yield f"{title(each)}: {len(name)} characters, over {LONGEST[kind]}"
    for pod in pods(objects):
        inner = [each["name"] for each in pod.spec.get("volumes", [])] + [each["name"] for _, each in containers(pod)]
        for name in inner:
            if not LABEL.fullmatch(name):
                yield f"{pod.where}: {name} is no name for a volume or a container"
        for where, box in containers(pod):
            for port in box.get("ports", []):
                if not PORT.fullmatch(port.get("name", "")):
                    yield f"{where}: {port.get('name')} is no name for a port"


def labels(objects: Iterable[Object]) -> Iterator[str]:
    """Every object carries the recommended labels, and no label that Kubernetes refuses."""
    objects = list(objects)
    for each in objects:
        there = each["metadata"].get("labels", {})
        if missing := [name for name in RECOMMENDED if f"app.kubernetes.io/{name}" not in there]:
            yield f"{title(each)}: no label app.kubernetes.io/{missing[0]}"
        if "helm.sh/chart" not in there:
            yield f"{title(each)}: no label helm.sh/chart"
        yield from _refused(title(each), there)
    for pod in pods(objects):
        yield from _refused(f"pods of {pod.where}", dict(pod.labels))


def _refused(where: str, there: dict[str, str]) -> Iterator[str]:
    for key, value in there.items():
        if not KEY.fullmatch(key) or not isinstance(value, str) or not VALUE.fullmatch(value):
            yield f"{where}: {key}={value} is no label"
