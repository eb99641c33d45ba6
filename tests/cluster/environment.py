"""A container's environment, as kubelet makes it of a spec."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.cluster.release import Object
from tests.cluster.store import Store, Waits

REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][-._A-Za-z0-9]*)\)")


@dataclass(frozen=True)
class Sandbox:
    """What is known of a pod once it has an address."""

    name: str
    namespace: str
    address: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    account: str
    node: str = "here"
    uid: str = "0"

    def field(self, path: str) -> str:
        """What a fieldRef answers."""
        of = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
        if of:
            return getattr(self, of[1]).get(of[2], "")
        return {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "metadata.uid": self.uid,
            "status.podIP": self.address,
            "status.podIPs": self.address,
            "spec.serviceAccountName": self.account,
            "spec.nodeName": self.node,
        }[path]


def expand(text: str, known: Mapping[str, str]) -> str:
    """Puts values in the place of $(NAME); what is unknown stays, and $$ is one $."""
    return REFERENCE.sub(lambda found: "$" if found[0] == "$$" else known.get(found[1], found[0]), text)


def environment(container: Mapping[str, Any], pod: Sandbox, store: Store, links: Mapping[str, str]) -> dict[str, str]:
    """The variables of a container; `links` are those that Services give to every pod.

    Raises:
        Waits: a Secret, a ConfigMap or a key of them is not there, and must be.
        AssertionError: a name occurs twice, which Helm 4 refuses.
    """
    found = dict(links)
    for each in container.get("envFrom") or ():
        kind, reference = ("Secret", each["secretRef"]) if "secretRef" in each else ("ConfigMap", each["configMapRef"])
        held = store.entries(kind, pod.namespace, reference["name"], reference.get("optional", False))
        found |= {each.get("prefix", "") + key: value.decode() for key, value in held.items()}
    entries = container.get("env") or ()
    names = [each["name"] for each in entries]
    assert len(names) == len(set(names)), f"{container['name']} names a variable twice: {sorted(names)}"
    for each in entries:
        if "valueFrom" not in each:
            found[each["name"]] = expand(each.get("value", ""), found)
        elif (value := _asked(each["valueFrom"], container, pod, store)) is not None:
            found[each["name"]] = value
    return found


def service_links(services: list[Object]) -> dict[str, str]:
    """What kubelet tells every pod of the Services in its namespace; names stand for addresses, which aliases lack."""
    found = {}
    for service in services:
        if service["spec"].get("clusterIP") == "None":
            continue
        name = service["metadata"]["name"].upper().replace("-", "_")
        port = service["spec"]["ports"][0]["port"]
        host = service["metadata"]["name"]
        found |= {
            f"{name}_SERVICE_HOST": host,
            f"{name}_SERVICE_PORT": str(port),
            f"{name}_PORT": f"tcp://{host}:{port}",
        }
        for each in service["spec"]["ports"]:
            if "name" in each:
                found[f"{name}_SERVICE_PORT_{each['name'].upper().replace('-', '_')}"] = str(each["port"])
            found |= {
                f"{name}_PORT_{each['port']}_TCP": f"tcp://{host}:{each['port']}",
                f"{name}_PORT_{each['port']}_TCP_ADDR": host,
                f"{name}_PORT_{each['port']}_TCP_PORT": str(each["port"]),
                f"{name}_PORT_{each['port']}_TCP_PROTO": "tcp",
            }
    return found


def _asked(source: Mapping[str, Any], container: Mapping[str, Any], pod: Sandbox, store: Store) -> str | None:
    (kind, asked), *more = source.items()
    assert not more, source
    if kind == "fieldRef":
        return pod.field(asked["fieldPath"])
    if kind == "resourceFieldRef":
        where, _, name = asked["resource"].partition(".")
        return str(container["resources"][where][name])
    of = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}[kind]
    optional = asked.get("optional", False)
    held = store.entries(of, pod.namespace, asked["name"], optional)
    if asked["key"] not in held:
        if optional:
            return None
        raise Waits(f"{of} {asked['name']} has no {asked['key']}")
    return held[asked["key"]].decode()
