"""Secrets in an API, typed and checked; and a cluster that holds nothing else."""

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.cluster import api as apis
from tests.cluster.api import Api, Resource
from tests.cluster.release import Object
from tests.cluster.store import Store
from tests.json_server import Refused

KEYS = {"kubernetes.io/tls": {"tls.crt", "tls.key"}}  # all of them; of basic-auth one of two is enough
NAMESPACE = "lungs"


def resource(store: Store) -> Resource:
    """The Secrets of a store."""
    return Resource("Secret", "v1", partial(store.all, "Secret"), store.put, store.drop, _typed)


def _typed(made: Object) -> Object:
    """A Secret with its type; raises Refused for what does not fit it."""
    kind, data, what = made.get("type") or "Opaque", made.get("data") or {}, f'Secret "{made["metadata"]["name"]}"'
    if absent := KEYS.get(kind, set()) - data.keys() - (made.get("stringData") or {}).keys():
        raise Refused(422, f"{what} is invalid: data[{sorted(absent)[0]}]: Required value")
    for key, value in data.items():
        if re.fullmatch(r"[-._a-zA-Z0-9]+", key) is None:
            raise Refused(422, f"{what} is invalid: data[{key}]: Invalid value")
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError):
            raise Refused(400, "illegal base64 data at input byte 0") from None
    return {**made, "type": kind, "data": data}


@dataclass
class Cluster:
    """One namespace, what it holds, and what whoever asks may do with that."""

    verbs: set[str] = field(default_factory=lambda: {"get", "create"})
    store: Store = field(default_factory=Store)

    def __post_init__(self) -> None:
        self.api = Api(
            resources={"secrets": resource(self.store)},
            allows=lambda call: call.verb in self.verbs,
            namespaces={NAMESPACE},
        )

    def kube_config(self, path: Path) -> Path:
        """A file by which a client finds the server."""
        return self.api.kube_config(path, NAMESPACE)

    def held(self) -> dict[str, Object]:
        """The Secrets by name."""
        return {each["metadata"]["name"]: each for each in self.store.all("Secret", NAMESPACE)}

    def data(self, name: str) -> dict[str, bytes]:
        """The content of a Secret."""
        return self.store.entries("Secret", NAMESPACE, name, optional=False)

    def put(self, secret: Object) -> None:
        """Adds a Secret as somebody else would."""
        self.api.create("secrets", NAMESPACE, secret)

    def take(self, name: str) -> Object:
        """Takes a Secret away; answers it."""
        return self.store.drop(self.held()[name])

    def change(self, name: str, **data: bytes | None) -> None:
        """Puts other values at keys of a Secret (`_` for dots); None takes one out."""
        held = self.held()[name]["data"]
        for key, value in data.items():
            held.pop(key.replace("_", "."), None)
            if value is not None:
                held[key.replace("_", ".")] = base64.b64encode(value).decode()


@contextmanager
def serving() -> Iterator[Cluster]:
    """A namespace that holds nothing behind an API, until the block ends; whoever asks may get and create."""
    cluster = Cluster()
    with apis.serving(cluster.api):
        yield cluster
