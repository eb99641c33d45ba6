"""Where bytes lie: by their sha256, complete as soon as they can be seen. A database row alone publishes them."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from deerfield.errors import ChunksMissing, DigestMismatch

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

    def put_all(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        """As `put` for each, at less cost; after an error some of them may be kept."""

    def get(self, sha: str) -> bytes:
        """The bytes; raises ChunksMissing if they are not here, DigestMismatch if they are damaged."""
        ...

    def read(self, sha: str) -> bytes:
        """The bytes as they lie here, maybe damaged: for who checks them otherwise; raises ChunksMissing."""
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

    def put_all(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        for sha, data in blobs:
            self.put(sha, data)

    def get(self, sha: str) -> bytes:
        if sha not in self._held:
            raise ChunksMissing(f"chunk {sha} is not here")
        return self._held[sha]

    read = get

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


def check_content(sha: str, data: bytes) -> None:
    """Raises DigestMismatch unless `data` has that sha256."""
    if (found := sha256(data).hexdigest()) != sha:
        raise DigestMismatch(f"a chunk has sha256 {found}, not {sha} as announced")
