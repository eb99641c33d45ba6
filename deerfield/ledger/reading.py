"""A ledger as somebody finds it who did not write it: the bytes of its file, and of the updates it has committed to."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from deerfield.ledger.chain import Finding, first_damage, lines_of
from deerfield.ledger.entry import Entry
from deerfield.tensors import Tensors, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What stands in a ledger file."""

    lines: tuple[bytes, ...]  # without newlines
    entries: tuple[Entry, ...]  # up to the first that is broken
    damage: Finding | None  # what is wrong with that one
    torn: bool  # the damage is a last line without its end, as a crash leaves it: the site cuts it when it starts

    @property
    def is_usable(self) -> bool:
        """Whether the site would go on from these entries."""
        return self.damage is None or self.torn


def reading(data: bytes) -> Reading:
    """The entries in the bytes of a ledger file, as far as they are whole."""
    lines = lines_of(data)
    entries, damage = first_damage(lines)
    torn = damage is not None and len(entries) == len(lines) - 1 and not data.endswith(b"\n")
    return Reading(lines=tuple(lines), entries=tuple(entries), damage=damage, torn=torn)


def bytes_of(update: Tensors) -> bytes:
    """An update as the bytes of a safetensors file."""
    return save({name: np.ascontiguousarray(array, dtype="<f4") for name, array in update.items()})


def update_of(data: bytes, name: str) -> Tensors:
    """The update in the bytes of a safetensors file.

    Raises:
        ValueError: they are no update, or not the one whose digest is `name`.
    """
    try:
        update = load(data)
    except SafetensorError as error:
        raise ValueError(f"it is no safetensors file: {error}") from error
    if digest(update) != name or any(array.dtype != np.float32 for array in update.values()):
        raise ValueError("its content has another digest")
    return update


def is_stored(read: Callable[[str], bytes], name: str) -> bool:
    """Whether `read` finds the update of a digest with exactly that content: what `audit.verify` asks."""
    try:
        update_of(read(name), name)
    except (OSError, ValueError):
        return False
    return True
