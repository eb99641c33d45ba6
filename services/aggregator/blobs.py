"""Where bytes lie: by their sha256, complete as soon as they can be seen. A database row alone publishes them."""

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from deerfield.durable import OnDurable, ignore
from deerfield.errors import ChunksMissing, DigestMismatch, InvalidInput, NoRoom
from services.aggregator.outage import Outage

ASIDE = ".part"


class Blobs(Protocol):
    """Content by sha256 (hex). Implementers may be called from any thread and survive a crash at any instruction:
    what `has` reports is whole, and what `put` has returned from is still there after a power cut."""

    def put(self, sha: str, data: bytes) -> None:
        """Keeps `data`.

        Raises:
            DigestMismatch: it does not have that sha256.
            NoRoom: it could not be written, and nothing of it is left.
        """

    def get(self, sha: str) -> bytes:
        """The bytes; raises ChunksMissing if they are not here, DigestMismatch if they are damaged."""
        ...

    def has(self, sha: str) -> bool:
        """Whether `get` would answer."""
        ...


class FolderBlobs:
    """A file for each blob, two letters deep: written aside, fsynced, renamed, and the folder fsynced.

    `on_durable` is told each of these points as `FOLDER:after_fsync` and so on: tests stop here.
    """

    def __init__(self, folder: Path, on_durable: OnDurable = ignore) -> None:
        self._folder, self._on_durable = folder, on_durable
        self._outage = Outage(f"the {folder.name} in {folder.parent}")
        _make(folder)

    def put(self, sha: str, data: bytes) -> None:
        _check(sha, data)
        path = self._path(sha)
        if path.exists():
            _fsync(path.parent)  # another thread may have got no further
            return
        try:
            self._write(path, data)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)  # renamed, but not to last
            trouble = NoRoom(
                f"{self._folder} cannot be written ({error.strerror}); make room there, or let it be written"
            )
            self._outage.began(trouble, len(data))
            raise trouble from error
        self._outage.ended(len(data))

    def get(self, sha: str) -> bytes:
        try:
            data = self._path(sha).read_bytes()
        except FileNotFoundError:
            raise ChunksMissing(f"chunk {sha} is not here") from None
        _check(sha, data)
        return data

    def has(self, sha: str) -> bool:
        return self._path(sha).exists()

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        aside = path.with_name(f"{path.name}.{uuid4().hex}{ASIDE}")
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                self._reached("before_fsync")
                os.fsync(file.fileno())
            self._reached("after_fsync")
            aside.rename(path)
            self._reached("after_rename")
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
        _fsync(path.parent)
        _fsync(self._folder)
        self._reached("after_folder_fsync")

    def _path(self, sha: str) -> Path:
        return self._folder / sha[:2] / sha

    def _reached(self, point: str) -> None:
        self._on_durable(f"{self._folder.name}:{point}")


class MemoryBlobs:
    """Blobs that live as long as their process: for the in-process simulation."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}

    def put(self, sha: str, data: bytes) -> None:
        _check(sha, data)
        self._held[sha] = data

    def get(self, sha: str) -> bytes:
        if sha not in self._held:
            raise ChunksMissing(f"chunk {sha} is not here")
        return self._held[sha]

    def has(self, sha: str) -> bool:
        return sha in self._held


def _make(folder: Path) -> None:
    """Makes a folder that can be written, without what a process that was killed has left half written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"*/*{ASIDE}"):
            left.unlink(missing_ok=True)
        trial = folder / f"{uuid4().hex}{ASIDE}"
        trial.touch()
        trial.unlink()
        for part in folder.iterdir():  # that process may not have come so far, and what is here counts
            _fsync(part)
        _fsync(folder)
    except OSError as error:
        raise InvalidInput(
            f"blobs: {folder} cannot be written ({error.strerror}); name a folder that this user may write to"
        ) from error


def _check(sha: str, data: bytes) -> None:
    if (found := sha256(data).hexdigest()) != sha:
        raise DigestMismatch(f"a chunk has sha256 {found}, not {sha} as announced")


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
