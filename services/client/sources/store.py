"""Files that the hub owns, in a folder or a bucket: read where they are, and kept once under a name that their bytes
have chosen, so that a second try writes nothing twice.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode

from minio import Minio
from minio.error import S3Error

from deerfield import durable
from deerfield.errors import InvalidInput, Unreachable
from deerfield.wire.backoff import Backoff
from services import objects
from services.objects import Bucket

SCHEME = "s3://"
MODE = 0o644  # a site's process may be another user's, and a simulation has no patient to hide from it
BACKOFF = Backoff(first_s=0.5, last_s=5.0, patience_s=30.0)  # a server that is restarted comes back within it
Answer = TypeVar("Answer")


class Store(Protocol):
    """Where parts are kept. Implementers write a name once: whoever finds it there finds it whole."""

    def keep(self, name: str, data: bytes) -> str:
        """Keeps `data`, whose hash is part of `name`; answers where it is, as a `source: path:` names it."""
        ...


def open_store(destination: str, environment: Mapping[str, str] = os.environ) -> Store:
    """The folder or the part of a bucket that `destination` names; the environment holds the keys to the latter.

    Raises:
        InvalidInput: it is neither, or there are no credentials.
    """
    if is_object(destination):
        return BucketStore(S3(objects.read_bucket(destination, "destination"), "destination", environment))
    return FolderStore(Path(destination))


def is_object(path: str) -> bool:
    """Whether a path names an object of an S3 server."""
    return path.startswith(SCHEME)


def local(path: str) -> Path:
    """Where a process finds the file at `path`: there, or in its own copy of the object, gone when it ends.

    Raises:
        InvalidInput: the object is not there, or may not be read; the sentence says what was tried and for how long.
    """
    return _fetched(path) if is_object(path) else Path(path)


def check(path: str, environment: Mapping[str, str] = os.environ) -> None:
    """Raises InvalidInput, as `local` does, for an object that cannot be had; fetches nothing, and looks at no file."""
    if is_object(path):
        server, key = _object(path, environment)
        _there(server, key, server.begun(key))


@cache
def _fetched(url: str) -> Path:
    server, key = _object(url)
    data = _there(server, key, server.get(key))
    folder = Path(tempfile.mkdtemp(prefix="deerfield-object-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / Path(key).name
    path.write_bytes(data)
    return path


def _object(url: str, environment: Mapping[str, str] = os.environ) -> tuple["S3", str]:
    """The server and the key of an object by its URL."""
    bucket = objects.read_bucket(url, "source")
    key = bucket.prefix.rstrip("/")
    if not key:
        raise InvalidInput(f"source: {url} names a bucket and no object in it; write s3://BUCKET/KEY?endpoint=...")
    return S3(bucket, "source", environment), key


def _there(server: "S3", key: str, found: Answer | None) -> Answer:
    if found is None:
        bucket = server.bucket
        raise InvalidInput(
            f"source: {bucket.name} at {bucket.endpoint} holds no object {key!r}; name one that is there"
        )
    return found


class FolderStore:
    """A folder of this machine, or of a volume."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def keep(self, name: str, data: bytes) -> str:
        path = self._folder / name
        try:
            if not (path.exists() and path.read_bytes() == data):  # a disk that was full may have kept half of it
                path.parent.mkdir(parents=True, exist_ok=True)
                durable.replaced(path, data, MODE)
        except OSError as error:
            raise InvalidInput(
                f"destination: {path} cannot be written ({error.strerror}); name a folder that this user may write to, "
                "with room in it"
            ) from error
        return str(path)


class BucketStore:
    """A part of a bucket."""

    def __init__(self, server: "S3") -> None:
        self._server = server

    def keep(self, name: str, data: bytes) -> str:
        bucket = self._server.bucket
        key = f"{bucket.prefix}{name}"
        if self._server.size(key) != len(data):
            self._server.put(key, data)
        options = {"endpoint": bucket.endpoint, "secure": str(bucket.secure).lower(), "region": bucket.region}
        return f"{SCHEME}{bucket.name}/{quote(key)}?{urlencode(options, safe=':')}"


class S3:
    """A bucket's objects. What fails for good is InvalidInput: where, how long it was tried, and what to do."""

    def __init__(
        self, bucket: Bucket, setting: str, environment: Mapping[str, str] = os.environ, backoff: Backoff = BACKOFF
    ) -> None:
        keys = objects.EnvironmentProvider(environment, setting)
        keys.retrieve()
        self.bucket, self._setting, self._backoff = bucket, setting, backoff
        self._client: Minio = objects.connect(bucket, keys)

    def get(self, key: str) -> bytes | None:
        """An object's bytes; None where there is none."""

        def whole() -> bytes:
            response = self._client.get_object(self.bucket.name, key)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

        return self._ask("get objects", whole)

    def begun(self, key: str) -> bool | None:
        """True once the server has begun to send an object; None where there is none. A HEAD would not say why not."""

        def begin() -> bool:
            self._client.get_object(self.bucket.name, key).close()
            return True

        return self._ask("get objects", begin)

    def size(self, key: str) -> int | None:
        """An object's bytes, counted; None where there is none."""
        found = self._ask("get objects", lambda: self._client.stat_object(self.bucket.name, key))
        return None if found is None else found.size

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, whole or not at all."""
        self._ask("put objects", lambda: self._client.put_object(self.bucket.name, key, BytesIO(data), len(data)))

    def _ask(self, what: str, act: Callable[[], Answer]) -> Answer | None:
        """What `act` answers, or None where there is no such object."""
        pause, began = self._backoff.pauses(), self._backoff.clock()
        while True:
            try:
                return act()
            except objects.FAILURES as error:
                if isinstance(error, S3Error) and error.code == "NoSuchKey":
                    return None
                tried = Unreachable(objects.sentence(what, error))
                try:
                    if not objects.passes(error):
                        raise tried
                    pause(tried)
                except Unreachable:
                    spent = self._backoff.clock() - began
                    raise self._failure(tried, error, spent) from error

    def _failure(self, tried: Unreachable, error: Exception, spent_s: float) -> InvalidInput:
        long = f", for {spent_s:.0f} s" if objects.passes(error) else ""
        return InvalidInput(f"{self._setting}: {self.bucket}: {tried}{long}; {objects.advice(error)}")
