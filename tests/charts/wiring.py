"""Laws on what names what: selectors and labels, ports, volumes, and the objects that a pod needs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import permutations
from typing import Any

from tests.charts.pods import Pod, containers, matches, of_kind, pods, ports, title, with_kept
from tests.charts.rendering import Object, strings

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
MADE_BY_ALL = {"kube-root-ca.crt"}  # Kubernetes puts it into every namespace
NONE: Mapping[str, Any] = {}


def selectors(objects: Iterable[Object]) -> Iterator[str]:
    """A workload's selector takes its own pods and nobody else's; a Service's those of one workload."""
    objects = list(objects)
    every = pods(objects)
    for pod in every:
        if pod.selector is not None and not (pod.selector and pod.selector.items() <= pod.labels.items()):
            yield f"{pod.where}: selector {dict(pod.selector)} does not match its own pods"
    for one, other in permutations(every, 2):
        if one.selector and one.selector.items() <= other.labels.items():
            yield f"{one.where}: its selector takes the pods of {other.where} too"
    for service in of_kind(objects, "Service"):
        wanted = service["spec"].get("selector")
        taken = [pod.where for pod in every if wanted and wanted.items() <= pod.labels.items()]
        if wanted and len(taken) != 1:
            yield f"{title(service)}: its selector takes the pods of {taken or 'nobody'}"
    for policy in of_kind(objects, "NetworkPolicy", "PodDisruptionBudget"):
        spec = policy["spec"]
        wanted = spec.get("podSelector", spec.get("selector", NONE))
        if not any(matches(wanted, pod.labels) for pod in every):
            yield f"{title(policy)}: its selector takes no pod"


def services(objects: Iterable[Object]) -> Iterator[str]:
    """A Service names ports that its pods have, under the number that they have."""
    objects = list(objects)
    every = pods(objects)
    for service in of_kind(objects, "Service"):
        wanted = service["spec"].get("selector", {})
        found = [pod for pod in every if wanted and wanted.items() <= pod.labels.items()]
        for port in service["spec"].get("ports", []):
            target = port.get("targetPort")
            for pod in found:
                number = ports(pod).get(str(target))
                if number is None:
                    yield f"{title(service)}: {pod.where} names no port {target}"
                elif number != port["port"]:
                    yield f"{title(service)}: port {port['port']} is {target} {number} in {pod.where}"


def probes(objects: Iterable[Object]) -> Iterator[str]:
    """A probe names a port of its own container; gRPC's takes a number alone, which must be a named port's."""
    for pod in pods(objects):
        for where, box in containers(pod):
            named = {each.get("name"): each["containerPort"] for each in box.get("ports", [])}
            actions = [(each, box[each]) for each in PROBES if each in box]
            actions += [(f"lifecycle.{name}", each) for name, each in box.get("lifecycle", {}).items()]
            for name, action in actions:
                for kind in ("httpGet", "tcpSocket"):
                    if kind in action and action[kind].get("port") not in named:
                        yield f"{where}: {name} asks port {action[kind].get('port')}, which it does not name"
                if "grpc" in action and action["grpc"].get("port") not in named.values():
                    yield f"{where}: {name} asks port {action['grpc'].get('port')}, which it does not name"


def probed(objects: Iterable[Object]) -> Iterator[str]:
    """A container that serves for ever says whether it is ready."""
    for pod in pods(objects):
        if pod.selector is None:
            continue
        for each in pod.spec["containers"]:
            if "readinessProbe" not in each:
                yield f"{pod.where} container {each['name']}: no readinessProbe"


def mounts(objects: Iterable[Object]) -> Iterator[str]:
    """Every mount has its volume, every volume a mount."""
    for pod in pods(objects):
        there = {each["name"] for each in pod.spec.get("volumes", [])} | set(pod.claims)
        used = {mount["name"]: where for where, box in containers(pod) for mount in box.get("volumeMounts", [])}
        for name in used.keys() - there:
            yield f"{used[name]}: mounts {name}, which is no volume"
        for name in there - used.keys():
            yield f"{pod.where}: nobody mounts volume {name}"


def sub_paths(objects: Iterable[Object]) -> Iterator[str]:
    """A Secret is mounted whole: what is mounted by subPath never changes when the Secret does."""
    for pod in pods(objects):
        secret = {each["name"] for each in pod.spec.get("volumes", []) if _secrets(each)}
        for where, box in containers(pod):
            for mount in box.get("volumeMounts", []):
                if mount["name"] in secret and (mount.get("subPath") or mount.get("subPathExpr")):
                    yield f"{where}: mounts a part of Secret volume {mount['name']} at {mount['mountPath']}"


def twice(objects: Iterable[Object]) -> Iterator[str]:
    """Nothing of a pod is named twice; Helm 4 refuses to apply a list that does."""
    for thing, count in Counter((each["apiVersion"], title(each)) for each in objects).items():
        if count > 1:
            yield f"{thing[1]}: {count} objects"
    for pod in pods(objects):
        every = containers(pod)
        yield from _repeated(pod.where, "volume", (each["name"] for each in pod.spec.get("volumes", [])))
        yield from _repeated(pod.where, "container", (each["name"] for _, each in every))
        yield from _repeated(pod.where, "port", (port.get("name") for _, box in every for port in box.get("ports", [])))
        for where, box in every:
            yield from _repeated(where, "env", (each["name"] for each in box.get("env", [])))
            paths = (each["mountPath"].rstrip("/") for each in box.get("volumeMounts", []))
            yield from _repeated(where, "mount path", paths)


def needs(objects: Iterable[Object], named: Iterable[str] = ()) -> Iterator[str]:
    """What a pod needs is rendered, made by the hook or by cert-manager, or `named` by a value.

    A hook that runs before an installation needs what is a hook itself, and of lower weight.
    """
    objects = list(objects)
    there = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    given = {*named, *MADE_BY_ALL, *_made_later(objects)}
    for pod in pods(objects):
        for kind, name in sorted(_wanted(pod)):
            thing = there.get((kind, name))
            if thing is None and name not in given:
                yield f"{pod.where}: needs {kind}/{name}, which nobody makes"
            elif thing is not None and any(each.startswith("pre-") for each in pod.hooks):
                yield from _too_late(pod, thing)


def _too_late(pod: Pod, thing: Object) -> Iterator[str]:
    told = thing["metadata"].get("annotations", {})
    missing = [each for each in pod.hooks if each.startswith("pre-") and each not in told.get("helm.sh/hook", "")]
    weights = [int(each.get("helm.sh/hook-weight", "0")) for each in (told, pod.annotations)]
    if missing or weights[0] >= weights[1]:
        yield f"{pod.where}: needs {title(thing)}, which is not there yet"


def _wanted(pod: Pod) -> set[tuple[str, str]]:
    found = {("ServiceAccount", pod.spec.get("serviceAccountName", "default"))} - {("ServiceAccount", "default")}
    for volume in pod.spec.get("volumes", []):
        for source in (volume, *volume.get("projected", {}).get("sources", [])):
            if "configMap" in source:
                found.add(("ConfigMap", source["configMap"]["name"]))
            if "secret" in source:
                found.add(("Secret", source["secret"].get("secretName") or source["secret"]["name"]))
        if "persistentVolumeClaim" in volume:
            found.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
    for _, box in containers(pod):
        for source in [each.get("valueFrom", {}) for each in box.get("env", [])] + box.get("envFrom", []):
            for field, kind in (("secretKeyRef", "Secret"), ("secretRef", "Secret"), ("configMapKeyRef", "ConfigMap"),
                                ("configMapRef", "ConfigMap")):  # fmt: skip
                if field in source and not source[field].get("optional"):
                    found.add((kind, source[field]["name"]))
    return found


def _made_later(objects: Iterable[Object]) -> set[str]:
    """Secrets that cert-manager makes, and all that a ConfigMap of the hook's lists."""
    found = set()
    for each in with_kept(objects):
        if each.get("kind") == "Certificate":
            found.add(each["spec"]["secretName"])
    for each in of_kind(objects, "ConfigMap"):
        if "helm.sh/hook" in each["metadata"].get("annotations", {}):
            found |= {word.strip("\"',") for text in strings(each.get("data", {})) for word in text.split()}
    return found


def _secrets(volume: Mapping[str, Any]) -> bool:
    sources = volume.get("projected", {}).get("sources", [])
    return "secret" in volume or any("secret" in each for each in sources)


def _repeated(where: str, what: str, names: Iterable[object]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if name is not None and count > 1:
            yield f"{where}: {what} {name} is there {count} times"
