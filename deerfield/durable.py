"""Bytes that are still there after a power cut: written, fsynced, and their folder with them."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from deerfield.errors import LedgerUnwritable

OWNER_ALONE = 0o600
OnDurable = Callable[[str], None]  # told the name of each point at which a crash would be told apart


def ignore(point: str) -> None:
    """What production does at such a point: nothing."""


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it, that nobody but their owner may enter; raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        sync_folder(each.parent)


def create(path: Path, data: bytes, *, on_durable: OnDurable = ignore, name: str = "file") -> None:
    """Makes a file with these bytes, whole or not at all; one that is there stays as it is. Raises OSError."""
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE), "wb") as file:
            file.write(data)
            file.flush()
            on_durable(f"{name}:before_fsync")
            os.fsync(file.fileno())
        on_durable(f"{name}:after_fsync")
        with suppress(FileExistsError):  # the first of two writers wins
            os.link(aside, path)
        on_durable(f"{name}:after_link")
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)
    on_durable(f"{name}:after_folder_fsync")


def replaced(path: Path, data: bytes, mode: int = OWNER_ALONE) -> None:
    """Makes a file hold these bytes, whole, in place of what it held; `mode` says who may use it. Raises OSError."""
    make_folder(path.parent)
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        create(aside, data)
        if mode != OWNER_ALONE:
            aside.chmod(mode)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def appended(path: Path, line: bytes) -> None:
    """Adds a line to a file that has whole lines, or makes the file; a line torn by a crash stays alone on its own.

    Raises:
        OSError: it is not there to last.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, OWNER_ALONE), "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        data = (b"\n" if torn else b"") + line + b"\n"
        if file.write(data) != len(data):
            file.truncate(size)  # a reader should not meet half a line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    sync_folder(path.parent)


def kept(path: Path, data: bytes) -> bytes:
    """What a small file holds: `data`, unless it was there before.

    Raises:
        LedgerUnwritable: it can be neither read nor made.
    """
    try:
        if not path.exists():
            make_folder(path.parent)
            create(path, data)
        return path.read_bytes()
    except OSError as error:
        raise LedgerUnwritable(
            f"{path} cannot be used ({error.strerror}); give the site a folder that it may write to, with room in it"
        ) from error


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last; raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
