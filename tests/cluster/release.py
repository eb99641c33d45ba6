"""What a chart renders, in the order in which Helm hands it to a cluster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
HOOK = "helm.sh/hook"
# the kinds that others depend on come first, as Helm installs them
FIRST = ("ServiceAccount", "Secret", "ConfigMap", "PersistentVolumeClaim", "Role", "RoleBinding", "Service")
WORKLOADS = ("Pod", "Deployment", "StatefulSet", "Job", "CronJob")


@dataclass(frozen=True)
class Release:
    """The objects of a chart under a name in a namespace."""

    name: str
    namespace: str
    objects: tuple[Object, ...]

    def hooks(self, event: str) -> list[Object]:
        """The hooks of `event`, in their order: weight, then kind, then name."""
        found = [each for each in self.objects if event in _events(each)]
        return sorted(found, key=lambda each: (_weight(each), _place(each), each["metadata"]["name"]))

    def plain(self) -> list[Object]:
        """What is no hook, in the order in which Helm installs kinds."""
        return sorted((each for each in self.objects if not _events(each)), key=_place)

    def found(self, kind: str, part: str = "") -> Object:
        """The one object of a kind whose name has `part` in it, hooks among them."""
        names = [each for each in self.objects if each["kind"] == kind and part in each["metadata"]["name"]]
        assert len(names) == 1, f"{part} of {kind}: {[each['metadata']['name'] for each in names]}"
        return names[0]


def render(chart: Path, values: Mapping[str, Any], name: str, namespace: str) -> Release:
    """Renders a chart as Helm does; its schema is enforced."""
    import helm_python

    files = helm_python.Chart.load(str(chart)).render(dict(values), name=name, namespace=namespace)
    texts = [text for path, text in sorted(files.items()) if path.endswith((".yaml", ".yml"))]
    return Release(name, namespace, tuple(read("\n---\n".join(texts), namespace)))


def read(text: str, namespace: str) -> list[Object]:
    """The objects of some YAML, each with a namespace."""
    objects = [each for each in yaml.safe_load_all(text) if each]
    for each in objects:
        each["metadata"].setdefault("namespace", namespace)
    return objects


def annotation(owner: Object, name: str) -> str:
    """What an annotation says, or nothing."""
    return (owner["metadata"].get("annotations") or {}).get(name, "")


def matching(services: Iterable[Object], labels: Mapping[str, str]) -> list[Object]:
    """The Services whose selector takes a pod with these labels."""
    return [each for each in services if (chosen := each["spec"].get("selector")) and chosen.items() <= labels.items()]


def check_ports(service: Object, template: Object) -> None:
    """Sees that a Service's ports are those of the container: an alias translates no port, nor should a chart."""
    named = {
        port.get("name"): port["containerPort"]
        for container in template["spec"]["containers"]
        for port in container.get("ports", ())
    }
    for port in service["spec"].get("ports", ()):
        target = port.get("targetPort", port["port"])
        reached = named.get(target, target)
        assert reached == port["port"], f"Service {service['metadata']['name']}: {port['port']} leads to {reached}"
        assert reached in named.values(), f"Service {service['metadata']['name']}: no container says it has {reached}"


def _events(owner: Object) -> list[str]:
    told = annotation(owner, HOOK)
    return [each.strip() for each in told.split(",")] if told else []


def _weight(owner: Object) -> int:
    return int(annotation(owner, f"{HOOK}-weight") or 0)


def _place(owner: Object) -> tuple[int, str]:
    kind = owner["kind"]
    return (FIRST.index(kind) if kind in FIRST else len(FIRST) + (kind in WORKLOADS), kind)
