"""Where bytes lie: by their sha256, complete as soon as they can be seen. A database row alone publishes them."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from deerfield.durable import OnDurable, ignore
from deerfield.errors import ChunksMissing, DigestMismatch, InvalidInput, NoRoom
from services.aggregator.outage import Outage

ASIDE = ".part"
GRACE_S = 24 * 3600.0  # longer than anything takes from a `put` to the row that names what was put


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """One that is kept. `at`: when it was last put or asked for, in seconds since the epoch."""

    sha: str
    size_bytes: int
    at: float


class Blobs(Protocol):
    """Content by sha256 (hex). Implementers may be called from any thread and survive a crash at any instruction:
    what `has` reports is whole, and what `put` has returned from is still there after a power cut.

    What was put, or found not `missing`, is as if less than half of `GRACE_S` old: there is time to write a row about
    it. Any method may raise Unreachable: nothing is known then, and the same call is worth another try.
    """

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

    def missing(self, shas: Iterable[str]) -> frozenset[str]:
        """Those of `shas` that are not here; the others count as put again."""
        ...

    def kept(self) -> Iterator[Blob]:
        """Every blob that was there before the call, and perhaps some that came later."""
        ...

    def drop(self, sha: str, before: float) -> bool:
        """Removes what was last put or asked for before that time; answers whether it did."""
        ...


class FolderBlobs:
    """A file for each blob, two letters deep: written aside, fsynced, renamed, and the folder fsynced.

    `on_durable` is told each of these points as `FOLDER:after_fsync` and so on: tests stop here.
    """

    def __init__(self, folder: Path, on_durable: OnDurable = ignore) -> None:
        """Makes the folder; raises InvalidInput if it cannot be written to."""
        self._folder, self._on_durable = folder, on_durable
        self._dropping = threading.Lock()  # nothing is dropped between a look at a file and its touch
        self._outage = Outage(f"the {folder.name} in {folder.parent}")
        _make(folder)

    def put(self, sha: str, data: bytes) -> None:
        check_content(sha, data)
        path = self._path(sha)
        if self._touched(path):
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
        check_content(sha, data)
        return data

    def has(self, sha: str) -> bool:
        return self._path(sha).exists()

    def missing(self, shas: Iterable[str]) -> frozenset[str]:
        return frozenset(sha for sha in shas if not self._touched(self._path(sha)))

    def kept(self) -> Iterator[Blob]:
        """Also what a crash has left half written: its name is no sha256, so that no row can name it."""
        for part in sorted(self._folder.iterdir()):
            with os.scandir(part) as entries:
                for entry in entries:
                    try:
                        found = entry.stat()
                    except FileNotFoundError:  # it was only just renamed
                        continue
                    yield Blob(sha=entry.name, size_bytes=found.st_size, at=found.st_mtime)

    def drop(self, sha: str, before: float) -> bool:
        path = self._path(sha)
        with self._dropping:
            try:
                if path.stat().st_mtime >= before:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def _touched(self, path: Path) -> bool:
        """Whether the file is there, and as if it were new."""
        with self._dropping:
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

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
        self._at: dict[str, float] = {}
        self._dropping = threading.Lock()

    def put(self, sha: str, data: bytes) -> None:
        check_content(sha, data)
        with self._dropping:
            self._held[sha], self._at[sha] = data, time.time()

    def get(self, sha: str) -> bytes:
        if sha not in self._held:
            raise ChunksMissing(f"chunk {sha} is not here")
        return self._held[sha]

    def has(self, sha: str) -> bool:
        return sha in self._held

    def missing(self, shas: Iterable[str]) -> frozenset[str]:
        wanted = frozenset(shas)
        with self._dropping:
            found = wanted & self._held.keys()
            self._at.update(dict.fromkeys(found, time.time()))
        return wanted - found

    def kept(self) -> Iterator[Blob]:
        with self._dropping:
            found = [Blob(sha=sha, size_bytes=len(data), at=self._at[sha]) for sha, data in self._held.items()]
        return iter(found)

    def drop(self, sha: str, before: float) -> bool:
        with self._dropping:
            if sha not in self._held or self._at[sha] >= before:
                return False
            del self._held[sha], self._at[sha]
        return True


def _make(folder: Path) -> None:
    """Makes a folder that can be written."""
    trial = folder / f"{uuid4().hex}{ASIDE}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
        for part in folder.iterdir():  # that process may not have come so far, and what is here counts
            _fsync(part)
        _fsync(folder)
    except OSError as error:
        raise InvalidInput(
            f"blobs: {folder} cannot be written to ({error.strerror}); name a folder that this user may write to"
        ) from None


def check_content(sha: str, data: bytes) -> None:
    """Raises DigestMismatch unless `data` has that sha256."""
    if (found := sha256(data).hexdigest()) != sha:
        raise DigestMismatch(f"a chunk has sha256 {found}, not {sha} as announced")


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
