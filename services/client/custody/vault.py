"""The noised updates that a site has committed to, each under its digest: a retry sends these bytes and no others."""

import re
from pathlib import Path

from deerfield.durable import OnDurable, create, ignore, make_folder
from deerfield.errors import LedgerDamaged, LedgerUnwritable
from deerfield.ledger.reading import bytes_of, update_of
from deerfield.tensors import Tensors, digest

DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Vault:
    """A folder of safetensors files. What `has` reports is whole, and what `put` has returned from survives a crash."""

    def __init__(self, folder: Path, *, on_durable: OnDurable = ignore) -> None:
        """Makes the folder; raises LedgerUnwritable if that cannot be done."""
        self._folder, self._on_durable = folder, on_durable
        try:
            make_folder(folder)
            for left in folder.glob("*.part"):  # of a process that died while it wrote
                left.unlink()
        except OSError as error:
            raise LedgerUnwritable(
                f"the vault {folder} cannot be used ({error.strerror}); give the site a folder that it may write to"
            ) from error

    def put(self, update: Tensors) -> str:
        """Keeps an update and answers its digest; nothing is written if it is here.

        Raises:
            LedgerUnwritable: it cannot be written.
            LedgerDamaged: a file of its name holds something else.
        """
        name = digest(update)
        if self.has(name):
            self.get(name)
            return name
        try:
            create(self._path(name), bytes_of(update), on_durable=self._on_durable, name="vault")
        except OSError as error:
            raise LedgerUnwritable(
                f"the update cannot be written to {self._folder} ({error.strerror}), so nothing is sent; make room, or "
                "make the folder writable, and start the site again"
            ) from error
        return name

    def get(self, name: str) -> Tensors:
        """The update of a digest, with exactly that content.

        Raises:
            LedgerDamaged: it is not here, or its content has changed.
        """
        try:
            return update_of(self._path(name).read_bytes(), name)
        except FileNotFoundError:
            raise LedgerDamaged(
                f"the update {name} is not in {self._folder}, and the ledger says that it was committed; restore the "
                "folder from a copy"
            ) from None
        except (OSError, ValueError) as error:
            raise LedgerDamaged(f"the update {name} in {self._folder} cannot be used: {error}; restore it") from error

    def has(self, name: str) -> bool:
        """Whether an update of this digest was stored."""
        return self._path(name).exists()

    def _path(self, name: str) -> Path:
        if DIGEST.match(name) is None:
            raise LedgerDamaged(f"{name[:80]!r} is no digest of an update")
        return self._folder / f"{name}.safetensors"
