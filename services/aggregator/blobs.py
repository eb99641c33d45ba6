"""Where bytes lie: by their sha256, complete as soon as they can be seen. A database row alone publishes them."""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from io import RawIOBase
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from deerfield.errors import ChunksMissing, DigestMismatch


class Blobs(Protocol):
    """Content by sha256 (hex). Implementers may be called from any thread and survive a crash at any instruction:
    what `has` reports is whole, and what `put` has returned from is still there after a power cut."""

    def put(self, sha: str, data: bytes) -> None:
        """Keeps `data`; raises DigestMismatch if it does not have that sha256."""

    def put_all(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        """As `put` for each, at less cost; after DigestMismatch some of the others may be kept."""

    def get(self, sha: str) -> bytes:
        """The bytes; raises ChunksMissing if they are not here, DigestMismatch if they are damaged."""
        ...

    def read(self, sha: str) -> bytes:
        """The bytes as they lie here, maybe damaged: for who checks them otherwise; raises ChunksMissing."""
        ...

    def has(self, sha: str) -> bool:
        """Whether `get` would answer."""
        ...


class FolderBlobs:
    """A file for each blob, two letters deep: written aside, fsynced, renamed, and the folder fsynced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._settling: dict[str, int] = {}  # names that a power cut may still undo, by how many threads write them
        folder.mkdir(parents=True, exist_ok=True)
        for each in (*folder.iterdir(), folder):  # a process before may have been killed between rename and fsync
            if each.is_dir():
                _fsync(each)
        self._folders = {each.name for each in folder.iterdir()}

    def put(self, sha: str, data: bytes) -> None:
        self.put_all([(sha, data)])

    def put_all(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        for sha, data in blobs:
            _check(sha, data)
        new = {sha: data for sha, data in blobs if not self.has(sha)}
        if new:
            self._make_folders(new)
            self._write(new)

    def get(self, sha: str) -> bytes:
        data = self.read(sha)
        _check(sha, data)
        return data

    def read(self, sha: str) -> bytes:
        try:
            return self._path(sha).read_bytes()
        except FileNotFoundError:
            raise ChunksMissing(f"chunk {sha} is not here") from None

    def has(self, sha: str) -> bool:
        return self._path(sha).exists() and sha not in self._settling  # in this order: it settles after the rename

    def _write(self, blobs: Mapping[str, bytes]) -> None:
        """Every content is on the disk before the first name is, and every name before `has` says so."""
        asides = {sha: self._path(sha).with_name(f"{sha}.{uuid4().hex}.part") for sha in blobs}
        try:
            _write_durably({asides[sha]: data for sha, data in blobs.items()})
        except BaseException:  # a full disk: leave others the room that is left
            for aside in asides.values():
                aside.unlink(missing_ok=True)
            raise
        self._count(blobs, 1)  # where this fails halfway, they stay denied until a restart has synced the folders
        for sha, aside in asides.items():
            aside.rename(self._path(sha))
        for folder in {aside.parent for aside in asides.values()}:
            _fsync(folder)
        self._count(blobs, -1)

    def _make_folders(self, shas: Iterable[str]) -> None:
        if missing := {sha[:2] for sha in shas} - self._folders:
            for name in missing:
                (self._folder / name).mkdir(exist_ok=True)
            _fsync(self._folder)
            self._folders |= missing

    def _count(self, shas: Iterable[str], change: int) -> None:
        with self._lock:
            for sha in shas:
                self._settling[sha] = self._settling.get(sha, 0) + change
                if not self._settling[sha]:
                    del self._settling[sha]

    def _path(self, sha: str) -> Path:
        return self._folder / sha[:2] / sha


class MemoryBlobs:
    """Blobs that live as long as their process: for the in-process simulation."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}

    def put(self, sha: str, data: bytes) -> None:
        _check(sha, data)
        self._held[sha] = data

    def put_all(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        for sha, data in blobs:
            self.put(sha, data)

    def get(self, sha: str) -> bytes:
        if sha not in self._held:
            raise ChunksMissing(f"chunk {sha} is not here")
        return self._held[sha]

    def read(self, sha: str) -> bytes:
        return self.get(sha)

    def has(self, sha: str) -> bool:
        return sha in self._held


def _check(sha: str, data: bytes) -> None:
    if (found := sha256(data).hexdigest()) != sha:
        raise DigestMismatch(f"a chunk has sha256 {found}, not {sha} as announced")


def _write_durably(files: Mapping[Path, bytes]) -> None:
    """Writes every file before it waits for the first one: the disk has them all to work on."""
    with ExitStack() as stack:
        opened = []
        for path, data in files.items():
            file = stack.enter_context(path.open("wb", buffering=0))
            opened.append(file)
            _write_out(file, data)
        for file in opened:
            os.fsync(file.fileno())


def _write_out(file: RawIOBase, data: bytes) -> None:
    left = memoryview(data)
    while left:  # a disk that is nearly full takes a part
        left = left[file.write(left) or 0 :]


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
