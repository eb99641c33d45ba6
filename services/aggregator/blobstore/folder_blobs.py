"""Blobs in a folder: a file each, two letters deep, written aside, fsynced, renamed, and the folder fsynced."""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from io import RawIOBase
from pathlib import Path
from uuid import uuid4

from deerfield.durable import OnDurable, ignore
from deerfield.errors import ChunksMissing, InvalidInput, NoRoom, Unreachable
from services.aggregator.blobstore.blobs import Blob, check_content
from services.aggregator.outage import Outage

ASIDE = ".part"


class FolderBlobs:
    """Implements `Blobs`; `on_durable` is told each point as `FOLDER:after_fsync` and so on: tests stop here."""

    def __init__(self, folder: Path, on_durable: OnDurable = ignore) -> None:
        """Makes the folder; raises InvalidInput if it cannot be written to."""
        self._folder, self._on_durable = folder, on_durable
        self._guard = threading.Lock()  # nothing is dropped between a look at a file and its touch
        self._settling: dict[str, set[Path]] = {}  # names that a power cut may still undo: what is to become each
        self._outage = Outage(f"the {folder.name} in {folder.parent}")
        _make(folder)
        self._folders = {each.name for each in folder.iterdir()}

    def put(self, sha: str, data: bytes) -> None:
        self.put_all([(sha, data)])

    def put_all(self, blobs: Sequence[tuple[str, bytes]]) -> None:
        for sha, data in blobs:
            check_content(sha, data)
        contents = dict(blobs)
        asides = self._claim(contents)
        if not asides:
            return
        size = max(len(contents[sha]) for sha in asides)
        try:
            self._write(asides, contents)
        except OSError as error:
            raise self._no_room(error, size) from error
        self._outage.ended(size)

    def get(self, sha: str) -> bytes:
        data = self.read(sha)
        check_content(sha, data)
        return data

    def read(self, sha: str) -> bytes:
        try:
            data = self._path(sha).read_bytes()
        except FileNotFoundError:
            raise ChunksMissing(f"chunk {sha} is not here") from None
        except OSError as error:
            trouble = Unreachable(
                f"{self._folder} cannot be read ({error.strerror}); let it be read, or mount it again"
            )
            self._outage.began(trouble)
            raise trouble from error
        self._outage.ended()
        return data

    def has(self, sha: str) -> bool:
        return self._path(sha).exists() and sha not in self._settling  # in this order: it settles after the rename

    def missing(self, shas: Iterable[str]) -> frozenset[str]:
        return frozenset(sha for sha in shas if not self._touched(sha))

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
        with self._guard:
            try:
                if sha in self._settling or path.stat().st_mtime >= before:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def _touched(self, sha: str) -> bool:
        """Whether the blob is there to last, and as if it were new."""
        with self._guard:
            return self._lasts(sha)

    def _claim(self, shas: Iterable[str]) -> dict[str, Path]:
        """What is not there to last at this moment, and the file that is to become each: nobody else's to take back."""
        asides: dict[str, Path] = {}
        with self._guard:
            for sha in shas:
                if not self._lasts(sha):
                    asides[sha] = self._path(sha).with_name(f"{sha}.{uuid4().hex}{ASIDE}")
            for sha, aside in asides.items():
                self._settling.setdefault(sha, set()).add(aside)
        return asides

    def _lasts(self, sha: str) -> bool:
        """As `_touched`, of who holds the guard; raises NoRoom where the time of the file cannot be written."""
        if sha in self._settling:
            return False
        try:
            os.utime(self._path(sha))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._no_room(error) from error
        return True

    def _no_room(self, error: OSError, size: int = 0) -> NoRoom:
        trouble = NoRoom(f"{self._folder} cannot be written ({error.strerror}); make room there, or let it be written")
        self._outage.began(trouble, size)
        return trouble

    def _write(self, asides: Mapping[str, Path], contents: Mapping[str, bytes]) -> None:
        """Every content is on the disk before the first name is, and every name before `has` says so."""
        try:
            self._make_folders(asides)
            self._write_durably({aside: contents[sha] for sha, aside in asides.items()})
            for sha, aside in asides.items():
                aside.rename(self._path(sha))
                self._reached("after_rename")
            for folder in {aside.parent for aside in asides.values()}:
                _fsync(folder)
        except BaseException:
            self._take_back(asides)
            raise
        with self._guard:
            for sha in asides:  # from here on it lasts, whatever becomes of others that write it too
                self._settling.pop(sha, None)
        self._reached("after_folder_fsync")

    def _write_durably(self, files: Mapping[Path, bytes]) -> None:
        """Writes every file before it waits for the first one: the disk has them all to work on."""
        with ExitStack() as stack:
            opened = []
            for path, data in files.items():
                file = stack.enter_context(path.open("wb", buffering=0))
                opened.append(file)
                _write_out(file, data)
            self._reached("before_fsync")
            for file in opened:
                os.fsync(file.fileno())
        self._reached("after_fsync")

    def _take_back(self, asides: Mapping[str, Path]) -> None:
        """Leaves others the room that is left, and no name that may not last, unless another thread writes it too."""
        for sha, aside in asides.items():
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            with self._guard:
                if self._settling.get(sha) == {aside}:
                    with suppress(OSError):
                        self._path(sha).unlink(missing_ok=True)
                    del self._settling[sha]
                elif sha in self._settling:
                    self._settling[sha].discard(aside)

    def _make_folders(self, shas: Iterable[str]) -> None:
        if missing := {sha[:2] for sha in shas} - self._folders:
            for name in missing:
                (self._folder / name).mkdir(exist_ok=True)
            _fsync(self._folder)
            self._folders |= missing

    def _path(self, sha: str) -> Path:
        return self._folder / sha[:2] / sha

    def _reached(self, point: str) -> None:
        self._on_durable(f"{self._folder.name}:{point}")


def tidy(folder: Path) -> None:
    """Removes what a process that was killed has left half written, all the way down; for who alone writes there.

    Raises:
        InvalidInput: it cannot be removed.
    """
    try:
        for left in folder.rglob(f"*{ASIDE}"):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"blobs: {folder} cannot be written to ({error.strerror}); name a folder that this user may write to"
        ) from None


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
