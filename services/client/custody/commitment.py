"""A salted commitment to a population's data: tells the hospital whether they are those that it registered.

HMAC-SHA256 under a secret of 32 bytes that stays in the state folder, so that nobody who reads the ledger can try out
which data it may be. Covers the bytes of the file, or of every file of a folder, and what its columns mean. Pictures
that a table names by their paths are not covered, and of a hub id only the id is: name a folder for more.
"""

import hashlib
import hmac
import json
import os
from pathlib import Path

from deerfield import durable
from deerfield.errors import InvalidInput
from deerfield.runfile import Source
from services.client.sources import store

SALT = "commitment.salt"
DOMAIN = b"deerfield data commitment v1\n"
MAPPING = ("split", "input", "label", "patient", "site")  # of a source: what its columns mean


def salt(state: Path) -> bytes:
    """The site's secret, made once; whoever loses it registers again, and loses nothing else.

    Raises:
        LedgerUnwritable: it can be neither read nor made.
    """
    return durable.kept(state / SALT, os.urandom(32))


def commitment(source: Source, salt: bytes) -> str:
    """The commitment to the data as they are now, 64 hexadecimal digits; where they are plays no part.

    Raises:
        InvalidInput: they cannot be read.
    """
    try:
        content = _content(store.local(source.path))
        rows = None if source.rows is None else _file(Path(source.rows))
    except OSError as error:
        raise InvalidInput(f"{error.filename or source.path} cannot be read: {error.strerror}; mend it") from error
    mapping = {name: getattr(source, name) for name in MAPPING}
    said = json.dumps({"content": content, "rows": rows, "mapping": mapping}, sort_keys=True)
    return hmac.digest(salt, DOMAIN + said.encode(), "sha256").hex()


def _content(path: Path) -> dict[str, str | list[list[str]]]:
    """What a source holds: its bytes' digest, by the file's place in it where there are several."""
    if path.is_dir():
        files = sorted((each.relative_to(path).as_posix(), each) for each in path.rglob("*") if each.is_file())
        return {"folder": [[name, _file(each)] for name, each in files]}
    return {"file": _file(path)} if path.exists() else {"hub": str(path)}


def _file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
