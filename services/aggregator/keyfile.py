"""The aggregator's own signing key: made once, kept in a file that only its owner may read."""

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from deerfield.errors import InvalidInput

OTHERS = 0o077  # permissions of everybody but the owner


def load_key(path: Path) -> Ed25519PrivateKey:
    """The key in `path` (PKCS 8, PEM); makes one where there is no file, and never overwrites one.

    Raises:
        InvalidInput: the file cannot be read or made, is open to others, or holds no Ed25519 key.
    """
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & OTHERS:
            raise InvalidInput(f"{path} can be read by others, and holds the signing key; run chmod 600 on it")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InvalidInput(
            f"the signing key {path} cannot be used ({error.strerror}); name another with --key"
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(f"{path} holds no signing key; restore it, or name another with --key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{path} holds a key of another kind than Ed25519; name another with --key")
    return key


def _make(path: Path) -> None:
    """Written aside, fsynced, linked: whoever sees the file sees all of it, and the first of two makers wins."""
    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
