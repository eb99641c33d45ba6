"""Blobs in a bucket of any S3 server, two letters deep as in a folder: put, then stat; the database row publishes."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from io import BytesIO
from typing import TypeVar

from minio import Minio
from minio.commonconfig import REPLACE, CopySource
from minio.datatypes import Object
from minio.error import S3Error

from deerfield.durable import OnDurable, ignore
from deerfield.errors import ChunksMissing, Unreachable
from deerfield.wire.backoff import Backoff
from services.aggregator.blobstore.blobs import GRACE_S, Blob, check_content
from services.aggregator.outage import Outage
from services.objects import CONNECTIONS, FAILURES, Bucket, passes, sentence

PART_BYTES = 16 << 20  # what is larger goes in parts of so much
LOCKS = 64
# within a call: enough for a server that is busy or restarts a worker; then the caller asks again, later
BACKOFF = Backoff(first_s=0.25, last_s=2.0, patience_s=8.0)

Answer = TypeVar("Answer")
Asked = TypeVar("Asked")


class Absent(Exception):
    """There is no such object."""


class S3Blobs:
    """An object for each blob, in this part of a bucket.

    Whatever the server refuses while we run is Unreachable, as that passes: at the start `probe` has shown that
    everything is allowed. `on_durable` is told each point of a put as `PREFIX:before_part` and so on: tests stop here.
    """

    def __init__(
        self,
        client: Minio,
        place: Bucket,
        *,
        grace_s: float = GRACE_S,
        backoff: Backoff = BACKOFF,
        on_durable: OnDurable = ignore,
    ) -> None:
        self._client = client
        self._bucket = place.name
        self._prefix = place.prefix
        self._on_durable = on_durable
        self._refresh_s = grace_s / 2
        self._backoff = backoff
        self._outage: Outage | None = None  # once it has worked: what fails before is the start's to tell
        self._locks = tuple(threading.Lock() for _ in range(LOCKS))  # nothing is dropped while it is put or refreshed

    def put(self, sha: str, data: bytes) -> None:
        check_content(sha, data)
        with self._lock(sha):
            self._write(sha, data, _Parts(lambda: self._reached("before_part")))
            self._reached("after_put")
            if (size := self._stat(sha).size) != len(data):
                raise Unreachable(f"the S3 server keeps {size} of {len(data)} bytes of {sha}")
        self._reached("after_stat")

    def put_all(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        if len(blobs) == 1:
            self.put(*blobs[0])
        elif blobs:
            self._side_by_side(lambda blob: self.put(*blob), blobs)

    def get(self, sha: str) -> bytes:
        data = self.read(sha)
        check_content(sha, data)
        return data

    def read(self, sha: str) -> bytes:
        try:
            return self._read(sha)
        except Absent:
            raise ChunksMissing(f"chunk {sha} is not here") from None

    def has(self, sha: str) -> bool:
        with suppress(Absent):
            self._stat(sha)
            return True
        return False

    def missing(self, shas: Iterable[str]) -> frozenset[str]:
        wanted = sorted(frozenset(shas))
        if not wanted:
            return frozenset()
        found = self._side_by_side(self._refreshed, wanted)
        return frozenset(sha for sha, here in zip(wanted, found, strict=True) if not here)

    def kept(self) -> Iterator[Blob]:
        try:
            for found in self._client.list_objects(self._bucket, self._prefix, recursive=True):
                name = str(found.object_name).rpartition("/")[2]
                yield Blob(sha=name, size_bytes=found.size or 0, at=_at(found))
        except FAILURES as error:
            raise Unreachable(sentence("list objects", error)) from error

    def drop(self, sha: str, before: float) -> bool:
        with self._lock(sha), suppress(Absent):
            if _at(self._stat(sha)) < before:
                self._remove(sha)
                return True
        return False

    def probe(self) -> None:
        """Does each thing once that is to be done later; raises Unreachable, caused by what the server said."""
        name, data = f"probe.{time.time_ns():x}", b"deerfield"
        self._write(name, data)
        if self._read(name) != data:
            raise Unreachable("the S3 server gives back other bytes than it was given")
        self._ask(
            "list objects",
            lambda: next(iter(self._client.list_objects(self._bucket, self._prefix, recursive=True)), None),
        )
        self._remove(name)
        self._outage = Outage(f"the S3 server's bucket {self._bucket}")

    def _side_by_side(self, act: Callable[[Asked], Answer], all_asked: Sequence[Asked]) -> list[Answer]:
        """What `act` answers to each, some of them at once; raises what the first one raises that fails."""
        with ThreadPoolExecutor(min(CONNECTIONS, len(all_asked)), "s3") as pool:
            answers = [pool.submit(act, asked) for asked in all_asked]
            try:
                return [answer.result() for answer in answers]
            except Unreachable:
                pool.shutdown(wait=False, cancel_futures=True)  # each would wait as long as this one has
                raise

    def _write(self, sha: str, data: bytes, parts: "_Parts | None" = None) -> None:
        self._ask(
            "put objects",
            lambda: self._client.put_object(
                self._bucket,
                self._key(sha),
                BytesIO(data),
                len(data),
                progress=parts,
                part_size=PART_BYTES,
                num_parallel_uploads=1,
            ),
        )

    def _read(self, sha: str) -> bytes:
        def whole() -> bytes:
            response = self._client.get_object(self._bucket, self._key(sha))
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

        return self._ask("get objects", whole)

    def _stat(self, sha: str) -> Object:
        return self._ask("get objects", lambda: self._client.stat_object(self._bucket, self._key(sha)))

    def _remove(self, sha: str) -> None:
        self._ask("delete objects", lambda: self._client.remove_object(self._bucket, self._key(sha)))

    def _refreshed(self, sha: str) -> bool:
        """Whether the object is there and new enough; an old one is copied onto itself, which makes it new."""
        try:
            if _at(self._stat(sha)) < time.time() - self._refresh_s:
                with self._lock(sha):
                    source = CopySource(self._bucket, self._key(sha))
                    self._ask(
                        "put objects",
                        lambda: self._client.copy_object(
                            self._bucket, self._key(sha), source, metadata={"put": "again"}, metadata_directive=REPLACE
                        ),
                    )
        except Absent:
            return False
        return True

    def _ask(self, what: str, act: Callable[[], Answer]) -> Answer:
        """What `act` answers; raises Absent, or Unreachable after some attempts."""
        pause = self._backoff.pauses()
        while True:
            try:
                answer = act()
            except FAILURES as error:
                if isinstance(error, S3Error) and error.code == "NoSuchKey":
                    raise Absent from None
                failed = Unreachable(sentence(what, error))
                failed.__cause__ = error
                self._failed(failed)
                if not passes(error):
                    raise failed from error
                pause(failed)
            else:
                if self._outage is not None:
                    self._outage.ended()
                return answer

    def _failed(self, error: Unreachable) -> None:
        if self._outage is not None:
            self._outage.began(error)

    def _lock(self, sha: str) -> threading.Lock:
        return self._locks[int(sha256(sha.encode()).hexdigest()[:8], 16) % LOCKS]

    def _reached(self, point: str) -> None:
        self._on_durable(f"{self._prefix.rstrip('/').rpartition('/')[2]}:{point}")

    def _key(self, sha: str) -> str:
        return f"{self._prefix}{sha[:2]}/{sha}"


class _Parts:
    """Told by minio of each part when it is read, which is when the one before has been sent."""

    def __init__(self, reached: Callable[[], None]) -> None:
        self._reached = reached

    def set_meta(self, object_name: str, total_length: int) -> None:
        """How much there will be, which nobody asked for."""

    def update(self, length: int) -> None:
        """A part is about to be sent."""
        self._reached()


def _at(found: Object) -> float:
    return found.last_modified.timestamp() if isinstance(found.last_modified, datetime) else 0.0
