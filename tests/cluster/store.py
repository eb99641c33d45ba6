"""The objects that a cluster holds, as its pods see them."""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.cluster.release import Object


class Waits(Exception):
    """A pod cannot start before something is there; kubelet tries again."""


@dataclass
class Store:
    """Objects by kind, namespace and name."""

    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)

    def put(self, owner: Object) -> None:
        """Puts an object in the place of the one with its name."""
        meta = owner["metadata"]
        if owner["kind"] == "Secret":
            plain = owner.get("stringData") or {}
            data = (owner.get("data") or {}) | {key: b64encode(text.encode()).decode() for key, text in plain.items()}
            owner = {**owner, "data": data}
        self.objects[owner["kind"], meta["namespace"], meta["name"]] = owner

    def drop(self, owner: Object) -> Object:
        """Takes the object of that kind and name away; answers it."""
        return self.objects.pop((owner["kind"], owner["metadata"]["namespace"], owner["metadata"]["name"]))

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self.objects.get((kind, namespace, name))

    def all(self, kind: str, namespace: str) -> Iterable[Object]:
        """The objects of a kind."""
        return [each for (of, where, _), each in self.objects.items() if (of, where) == (kind, namespace)]

    def entries(self, kind: str, namespace: str, name: str, optional: bool) -> dict[str, bytes]:
        """What a Secret or a ConfigMap holds.

        Raises:
            Waits: it is not there, and must be.
        """
        found = self.get(kind, namespace, name)
        if found is None:
            if optional:
                return {}
            raise Waits(f"{kind} {name} is not there")
        if kind == "Secret":
            return {key: b64decode(value) for key, value in found["data"].items()}
        held = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        return held | {key: b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
