"""What has been made to last: each fsync, and what was in its folder then.

The kernel's call is the one seam, so `os.fsync` is replaced here: without a power cut nothing else shows what has
reached the disk, and the real call is still made.
"""

import os
from pathlib import Path
from typing import NamedTuple

import pytest


class Sync(NamedTuple):
    path: Path
    files: dict[str, bytes]  # of its folder, or of the folder that it is
    folders: set[str]


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Sync]:
    """A list that every fsync from now on is added to."""
    found: list[Sync] = []
    fsync = os.fsync

    def record(handle: int) -> None:
        fsync(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        inside = list((path if path.is_dir() else path.parent).iterdir())
        files = {each.name: each.read_bytes() for each in inside if each.is_file()}
        found.append(Sync(path, files, {each.name for each in inside if each.is_dir()}))

    monkeypatch.setattr(os, "fsync", record)
    return found
