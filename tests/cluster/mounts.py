"""A pod's volumes as folders of this machine, written as kubelet writes them."""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.environment import Sandbox
from tests.cluster.node import Node
from tests.cluster.store import Store, Waits

Spec = Mapping[str, Any]
MODE = 0o644  # of a projected file, where nothing is said
READ, WRITE = 0o440, 0o660  # what fsGroup adds to projected files, and to others
PROJECTED = ("configMap", "secret", "projected", "downwardAPI")
TOKENS = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True)
class Mounted:
    """Where a volume is: in a folder, or in memory."""

    folder: Path | None = None
    memory: str = ""  # the size of a volume in memory, as podman takes it


@dataclass(frozen=True)
class File:
    """A file of a projected volume."""

    content: bytes
    mode: int


@dataclass(frozen=True)
class Volumes:
    """Makes the volumes of one pod."""

    node: Node
    store: Store
    pod: Sandbox
    prefix: str  # of what podman calls them
    claims: str  # the same, of what outlives the pod
    group: int | None  # fsGroup
    token: str = ""  # of the pod's service account

    def mounted(self, volume: Spec) -> Mounted:
        """Where a volume is, which is made and filled.

        Raises:
            Waits: something that it shows is not there.
        """
        kind, source = kind_of(volume)
        if kind in PROJECTED:
            files = self.files(volume)
            return Mounted(self.write(volume, files))
        if kind == "emptyDir":
            if source.get("medium") == "Memory":
                return Mounted(memory=size(source.get("sizeLimit", "64Mi")))
            return Mounted(self._shared(self.node.volume(f"{self.prefix}-{volume['name']}"), 0o777))
        assert kind == "persistentVolumeClaim", f"volume {volume['name']}: {kind} has no counterpart here"
        name = source["claimName"]
        if self.store.get("PersistentVolumeClaim", self.pod.namespace, name) is None:
            raise Waits(f"PersistentVolumeClaim {name} is not there")
        folder = self.node.volume(f"{self.claims}-{name}")
        return Mounted(folder if source.get("readOnly") else self._shared(folder, 0o755))

    def write(self, volume: Spec, files: Mapping[str, File]) -> Path:
        """Puts files into a projected volume, all at once: `..data` is a link to a folder that never changes."""
        folder = self.node.volume(f"{self.prefix}-{volume['name']}")
        shown, link = folder / "..data", folder / "..data_tmp"
        old = shown.resolve() if shown.is_symlink() else None
        new = folder / f"..{0 if old is None else int(old.name[2:]) + 1}"
        new.mkdir()
        for path, file in files.items():
            target = new / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.content)
            target.chmod(file.mode | (0 if self.group is None else READ))
            os.chown(target, 0, self.group or 0)
        link.symlink_to(new.name)
        link.rename(shown)
        tops = {Path(path).parts[0] for path in files}
        for top in tops - {each.name for each in folder.iterdir()}:
            (folder / top).symlink_to(Path("..data") / top)
        for each in folder.iterdir():
            if each.is_symlink() and each.name not in (*tops, "..data"):
                each.unlink()
        if old is not None:
            shutil.rmtree(old)
        return folder

    def files(self, volume: Spec) -> dict[str, File]:
        """What a projected volume shows, as its sources are now.

        Raises:
            Waits: something is not there, and must be.
        """
        kind, source = kind_of(volume)
        mode = source.get("defaultMode", MODE)
        if kind != "projected":
            named = {**source, "name": source.get("secretName", source.get("name"))}
            return dict(self._source(kind, named, mode))
        return {
            path: file
            for each in source["sources"]
            for of, what in each.items()
            for path, file in self._source(of, what, mode)
        }

    def _source(self, kind: str, source: Spec, mode: int) -> Iterator[tuple[str, File]]:
        if kind == "serviceAccountToken":
            yield source["path"], File(self.token.encode(), MODE)
        elif kind == "downwardAPI":
            for each in source["items"]:
                yield each["path"], File(self.pod.field(each["fieldRef"]["fieldPath"]).encode(), each.get("mode", mode))
        else:
            of, optional = {"secret": "Secret", "configMap": "ConfigMap"}[kind], source.get("optional", False)
            held = self.store.entries(of, self.pod.namespace, source["name"], optional)
            for each in source.get("items") or [{"key": key, "path": key} for key in held]:
                if each["key"] in held:
                    yield each["path"], File(held[each["key"]], each.get("mode", mode))
                elif not optional:
                    raise Waits(f"{of} {source['name']} has no {each['key']}")

    def _shared(self, folder: Path, mode: int) -> Path:
        """The folder, with what fsGroup gives the pod's group in it; a new one is root's, of this mode."""
        if not any(folder.iterdir()):
            folder.chmod(mode)
        for each in () if self.group is None else (folder, *folder.rglob("*")):
            os.chown(each, -1, self.group, follow_symlinks=False)
            if not each.is_symlink():
                more = stat.S_ISGID | stat.S_IXGRP if each.is_dir() else 0
                each.chmod(stat.S_IMODE(each.stat().st_mode) | WRITE | more)
        return folder


def kind_of(volume: Spec) -> tuple[str, Spec]:
    """What a volume is made of."""
    ((kind, source),) = ((key, value or {}) for key, value in volume.items() if key != "name")
    return kind, source


def tokens(authority: str) -> Spec:
    """The volume that a cluster adds to a pod whose service account has a token; `authority` is a ConfigMap's name."""
    sources = [
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": {"name": authority, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": "kube-api-access", "projected": {"sources": sources}}


def size(quantity: str) -> str:
    """A quantity of memory as podman takes it."""
    for ours, theirs in (("Ki", "k"), ("Mi", "m"), ("Gi", "g")):
        if quantity.endswith(ours):
            return quantity.removesuffix(ours) + theirs
    return quantity
