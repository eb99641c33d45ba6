"""The pods among rendered objects: of workloads, of hooks, and of Jobs that lie in a ConfigMap until they are made."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from tests.charts.rendering import Object, documents

HOOK = "helm.sh/hook"


@dataclass(frozen=True)
class Pod:
    """What one object lets run."""

    where: str  # KIND/NAME of that object
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    selector: Mapping[str, str] | None  # by which that object finds its pods; None: it does so itself
    annotations: Mapping[str, str]  # that object's
    notes: Mapping[str, str]  # the pod's own annotations
    claims: Sequence[str] = ()  # volumes that it makes for each pod

    @property
    def component(self) -> str:
        return str(self.labels.get("app.kubernetes.io/component", self.where))

    @property
    def hooks(self) -> list[str]:
        return [each.strip() for each in self.annotations.get(HOOK, "").split(",") if each]


def title(thing: Object) -> str:
    """KIND/NAME."""
    return f"{thing.get('kind')}/{thing.get('metadata', {}).get('name')}"


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [each for each in objects if each.get("kind") in kinds]


def with_kept(objects: Iterable[Object]) -> Iterator[Object]:
    """All objects, and those that lie in ConfigMaps until somebody makes them."""
    for each in objects:
        yield each
        if each.get("kind") == "ConfigMap":
            for name, text in each.get("data", {}).items():
                yield from _kept(name, text)


def pods(objects: Iterable[Object]) -> list[Pod]:
    """Every pod that can come of these objects."""
    found = []
    for each in with_kept(objects):
        template = _template(each)
        if template is None:
            continue
        spec, meta = each.get("spec", {}), template.get("metadata", {})
        selector = spec["selector"].get("matchLabels", {}) if "selector" in spec else None
        claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])]
        told, notes = each.get("metadata", {}).get("annotations", {}), meta.get("annotations", {})
        found.append(Pod(title(each), meta.get("labels", {}), template["spec"], selector, told, notes, claims))
    return found


def containers(pod: Pod) -> list[tuple[str, Mapping[str, Any]]]:
    """All containers of a pod, each with where it is."""
    every = [*pod.spec.get("initContainers", []), *pod.spec["containers"], *pod.spec.get("ephemeralContainers", [])]
    return [(f"{pod.where} container {each.get('name')}", each) for each in every]


def ports(pod: Pod) -> dict[str, int]:
    """The named ports of a pod."""
    return {
        each["name"]: each["containerPort"]
        for _, box in containers(pod)
        for each in box.get("ports", [])
        if "name" in each
    }


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector, with its expressions, takes these labels; an empty one takes all."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(_holds(each, labels) for each in selector.get("matchExpressions", []))


def _holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = rule["key"], rule.get("values", [])
    match rule["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(rule)


def _template(thing: Object) -> Mapping[str, Any] | None:
    spec = thing.get("spec", {})
    match thing.get("kind"):
        case "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job":
            return spec["template"]
        case "CronJob":
            return spec["jobTemplate"]["spec"]["template"]
        case "Pod":
            return thing
    return None


@cache
def _kept(name: str, text: str) -> list[Object]:
    if not name.endswith((".yaml", ".yml", ".json")):
        return []
    try:
        found = documents(text)
    except yaml.YAMLError:
        return []
    return [each for each in found if isinstance(each, dict) and {"apiVersion", "kind"} <= each.keys()]
