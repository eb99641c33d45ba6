"""A file of lines that one process owns and only ever adds to, each line on the disk before anybody acts on it."""

import fcntl
import json
import os
from pathlib import Path
from stat import S_ISREG

import structlog

from deerfield.durable import OnDurable, make_folder, sync_folder
from deerfield.errors import LedgerBusy, LedgerDamaged, LedgerFault, LedgerUnwritable

PIECE_BYTES = 1 << 20
log = structlog.get_logger()


class AppendFile:
    """An open file under an exclusive lock. Its last line, if a crash tore it, is cut when it is opened."""

    def __init__(self, path: Path, on_durable: OnDurable) -> None:
        """Opens the file, or makes it.

        Raises:
            LedgerBusy: another process has it open.
            LedgerDamaged: its last line is broken in a way that no crash breaks it.
            LedgerUnwritable: it cannot be opened, made or cut.
        """
        self._path, self._on_durable, self._broken = path, on_durable, ""
        try:
            make_folder(path.parent)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            self._check_file()
            self._lock()
            self.data = self._mended()
            sync_folder(path.parent)
        except OSError as error:
            self.close()
            raise _unwritable(path, error) from error
        except LedgerFault:
            self.close()
            raise

    def close(self) -> None:
        """Gives up the lock."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._broken = -1, f"{self._path} is closed; open it again"

    def append(self, name: str, line: bytes) -> None:
        """Adds a line, and returns when it is on the disk; `name` is what its durable points are called.

        Raises:
            LedgerUnwritable: it could not be made to last. It may still be there when the file is opened next.
        """
        if self._broken:
            raise LedgerUnwritable(self._broken)
        size = os.fstat(self._handle).st_size
        try:
            _write(self._handle, line)
        except OSError as error:
            self._take_back(size)
            raise _unwritable(self._path, error) from error
        self._on_durable(f"{name}:before_fsync")
        try:
            os.fsync(self._handle)
        except OSError as error:
            # nobody knows what is on the disk now, and a second fsync would not tell (Rebello et al., ATC 2020)
            self._broken = f"{self._path}: an entry could not be made to last ({error.strerror}); start the site again"
            raise _unwritable(self._path, error) from error
        self._on_durable(f"{name}:after_fsync")

    def _take_back(self, size: int) -> None:
        try:
            os.ftruncate(self._handle, size)
            os.fsync(self._handle)
        except OSError as error:
            self._broken = f"{self._path}: a torn line could not be cut ({error.strerror}); start the site again"

    def _check_file(self) -> None:
        if not S_ISREG(os.fstat(self._handle).st_mode):  # a device may be read without end, and keeps nothing
            raise LedgerUnwritable(f"{self._path} is no ordinary file; remove it, or name another folder")

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerBusy(
                f"{self._path} is open in another process; one site at a time may work on a population, stop the other"
            ) from None

    def _mended(self) -> bytes:
        """What is in the file, once its last line has an end."""
        data = _read(self._handle)
        kept = data.rfind(b"\n") + 1
        rest = data[kept:]
        if not rest:
            return data
        end = _end(rest)
        if end == len(rest):  # all of a line but its newline: counting it overstates at most
            _write(self._handle, b"\n")
            os.fsync(self._handle)
            return data + b"\n"
        if end is not None:
            lines = data.count(b"\n")
            raise LedgerDamaged(
                f"{self._path}: line {lines + 1} (entry {lines}, unless numbers were reconciled) is damaged: it goes "
                "on after its end; restore the ledger from a copy, then reconcile it"
            )
        log.warning("a torn last line was cut", file=str(self._path), line=data.count(b"\n") + 1, bytes=len(rest))
        os.ftruncate(self._handle, kept)
        os.fsync(self._handle)
        return data[:kept]


def _end(text: bytes) -> int | None:
    """Where the JSON value that a text begins with ends; None if it does not end: a torn line has no last brace."""
    try:
        return json.JSONDecoder().raw_decode(text.decode("latin-1"))[1]
    except ValueError:
        return None


def _read(handle: int) -> bytes:
    os.lseek(handle, 0, os.SEEK_SET)
    pieces = []
    while piece := os.read(handle, PIECE_BYTES):
        pieces.append(piece)
    return b"".join(pieces)


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _unwritable(path: Path, error: OSError) -> LedgerUnwritable:
    return LedgerUnwritable(
        f"{path} cannot be written ({error.strerror}), so nothing is trained; make room on its disk, or make the "
        "folder writable, and start the site again"
    )
