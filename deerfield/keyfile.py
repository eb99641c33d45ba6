"""A signing key in a file that only its owner may read: made once, never overwritten, and still there after a crash."""

import logging
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from deerfield.durable import OnDurable, create, ignore, make_folder
from deerfield.errors import InvalidInput

SigningKey: TypeAlias = Ed25519PrivateKey
SITE, AGGREGATOR = "site.key", "aggregator.key"  # what the file is called by whom it belongs to
GROUP, WORLD = 0o070, 0o007  # permissions: of the file's group, of everybody else
OTHERS = GROUP | WORLD

log = logging.getLogger(__name__)  # the core has no structlog; a service's log takes these lines over


def load(path: Path, *, on_durable: OnDurable = ignore) -> SigningKey:
    """The key in `path` (PKCS 8, PEM); makes one where there is no file, and never overwrites one.

    Raises:
        InvalidInput: the file cannot be read or made, is open to everybody, or holds no Ed25519 key.
    """
    try:
        make_folder(path.parent)
        if not path.exists():
            data = SigningKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            create(path, data, on_durable=on_durable, name="key")
        _check_mode(path)
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InvalidInput(
            f"the signing key {path} cannot be used ({error.strerror}); give its owner a folder that it may write to"
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(
            f"{path} holds no signing key; restore it from a copy, a new one signs no old ledger"
        ) from None
    if not isinstance(key, SigningKey):
        raise InvalidInput(f"{path} holds a key of another kind than Ed25519; restore the one that was made here")
    return key


def _check_mode(path: Path) -> None:
    """Warns of a key that is open to its group, and raises InvalidInput for one that is open to everybody.

    No mount makes that of itself, unlike a group's permissions (fsGroup of Kubernetes); and whoever reads this key can
    sign what a hospital is said to have spent, which no renewal takes back, as it would for a TLS key.
    """
    mode = path.stat().st_mode & 0o777
    if mode & WORLD:
        raise InvalidInput(
            f"{path} is open to everybody (mode {mode:04o}), and holds the signing key; run chmod 600 on it"
        )
    if mode & GROUP:
        log.warning("%s is open to its group (mode %04o), and holds the signing key; run chmod 600 on it", path, mode)
