"""The file that a backup is: a zip of rows as JSON lines and of blobs, with a sha256 of every part.

    manifest.json            {format, revision, database, time, aggregator_keys, parts: {name: sha256}}, written last
    rows/TABLE.jsonl         a row a line, as the database had them in one instant
    blobs/SHA256             states and start tensors that the rows name

It holds nothing secret but what the rows say: no key of a phase's noise, no signing key, and no site's update.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from deerfield.errors import InvalidInput

FORMAT = "deerfield backup 1"
MANIFEST = "manifest.json"
BUFFER = 1 << 20


@dataclass
class Writer:
    """Adds parts to an archive that is being made."""

    zip: zipfile.ZipFile
    parts: dict[str, str] = field(default_factory=dict)

    def rows(self, table: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """Adds the rows of a table, one at a time; answers how many."""
        name, digest, count = f"rows/{table}.jsonl", hashlib.sha256(), 0
        with self.zip.open(name, "w", force_zip64=True) as part:
            for row in rows:
                line = json.dumps(row, sort_keys=True).encode() + b"\n"
                digest.update(line)
                part.write(line)
                count += 1
        self.parts[name] = digest.hexdigest()
        return count

    def blob(self, sha: str, data: bytes) -> None:
        """Adds a blob, once."""
        self.parts[f"blobs/{sha}"] = sha
        self.zip.writestr(f"blobs/{sha}", data)


@contextmanager
def writing(out: Path, about: Mapping[str, Any]) -> Iterator[Writer]:
    """An archive that is at `out` once the block has ended well, and complete then; nothing is overwritten.

    Raises:
        InvalidInput: there is something at `out`, or it cannot be written.
    """
    if out.exists():
        raise InvalidInput(f"{out} is there already, and is never overwritten; name another file")
    aside = out.with_name(f".{out.name}.part")
    try:
        with open(os.open(aside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                writer = Writer(archive)
                yield writer
                archive.writestr(MANIFEST, json.dumps({"format": FORMAT, **about, "parts": writer.parts}))
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, out)  # which, unlike a rename, replaces nothing that came meanwhile
        handle = os.open(out.parent, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written ({error.strerror}); name a file on a disk with space") from error
    finally:
        aside.unlink(missing_ok=True)


@dataclass(frozen=True)
class Archive:
    """An archive that was found whole: every part has the sha256 that the manifest says."""

    zip: zipfile.ZipFile
    manifest: Mapping[str, Any]
    sha256: str  # of the file

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """The rows of a table."""
        with self.zip.open(f"rows/{table}.jsonl") as part:
            for line in part:
                yield json.loads(line)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that it has rows of."""
        return tuple(Path(name).stem for name in self.manifest["parts"] if name.startswith("rows/"))

    def blobs(self) -> Iterator[tuple[str, bytes]]:
        """The blobs, by their sha256."""
        for name in self.manifest["parts"]:
            if name.startswith("blobs/"):
                yield name.removeprefix("blobs/"), self.zip.read(name)


@contextmanager
def reading(path: Path) -> Iterator[Archive]:
    """An archive, after all of it was read once and checked.

    Raises:
        InvalidInput: it cannot be read, is no backup, is of another format, or is damaged.
    """
    manifest, whole = _checked(path)
    with zipfile.ZipFile(path) as archive:
        yield Archive(archive, manifest, whole)


def _checked(path: Path) -> tuple[dict[str, Any], str]:
    """(manifest, sha256 of the file)."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            manifest = _manifest(archive, path)
            _check(archive, manifest["parts"], path)
            file.seek(0)
            return manifest, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror})") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):  # how zipfile says damaged
        raise InvalidInput(f"{path} is no backup of deerfield, or is damaged; use another copy") from None


def _manifest(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(archive.read(MANIFEST))
        form, parts = found["format"], found["parts"]
    except (KeyError, TypeError, ValueError):
        raise InvalidInput(f"{path} has no {MANIFEST} of a backup in it; use another copy") from None
    if form != FORMAT or not isinstance(parts, dict):
        raise InvalidInput(f"{path} is of format {form!r}, and this version of deerfield reads {FORMAT!r}")
    checked: dict[str, Any] = found
    return checked


def _check(archive: zipfile.ZipFile, parts: Mapping[str, str], path: Path) -> None:
    there = set(archive.namelist()) - {MANIFEST}
    if strange := sorted(there ^ set(parts)):
        raise InvalidInput(f"{path} is damaged: {strange[0]} is in its manifest or in the file alone; use another copy")
    for name, sha in parts.items():
        with archive.open(name) as part:
            if _digest(part) != sha:
                raise InvalidInput(f"{path} is damaged: {name} does not have its sha256; use another copy")


def _digest(part: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := part.read(BUFFER):
        digest.update(piece)
    return digest.hexdigest()
