"""The site's signing key: made once, in a file that only its owner may read. It signs ledgers and attestations."""

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

from deerfield.errors import InvalidInput
from services.client.durable import OnDurable, create, ignore, make_folder

SigningKey: TypeAlias = Ed25519PrivateKey
NAME = "site.key"
OTHERS = 0o077  # permissions of everybody but the owner


def load(folder: Path, *, on_durable: OnDurable = ignore) -> SigningKey:
    """The key in `folder`/site.key (PKCS 8, PEM); makes one where there is none, and never overwrites one.

    Raises:
        InvalidInput: the file cannot be read or made, is open to others, or holds no Ed25519 key.
    """
    path = folder / NAME
    try:
        make_folder(folder)
        if not path.exists():
            data = SigningKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            create(path, data, on_durable=on_durable, name="key")
        if path.stat().st_mode & OTHERS:
            raise InvalidInput(f"{path} can be read by others, and signs for this site; run chmod 600 on it")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InvalidInput(
            f"the signing key {path} cannot be used ({error.strerror}); give the site a folder that it may write to"
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(
            f"{path} holds no signing key; restore it from a copy, a new one signs no old ledger"
        ) from None
    if not isinstance(key, SigningKey):
        raise InvalidInput(f"{path} holds a key of another kind than Ed25519; restore the one that was made here")
    return key
