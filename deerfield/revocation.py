"""Serials of certificates, and the list of those that are revoked: `revoked.json`, which the aggregator reads."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from deerfield.certificates import read
from deerfield.errors import InvalidInput


def serial_text(serial: int) -> str:
    """A serial as deerfield writes it: hexadecimal, small letters, whole bytes."""
    text = f"{serial:x}"
    return text.zfill(len(text) + len(text) % 2)


def parse_serial(text: str) -> int:
    """A serial as people write it, with or without colons; raises InvalidInput."""
    digits = text.replace(":", "")
    if re.fullmatch(r"[0-9a-fA-F]{1,40}", digits) is None:  # 20 bytes, RFC 5280
        raise InvalidInput(f"{text[:80]!r} is no file and no serial; a serial is up to 40 hexadecimal digits")
    return int(digits, 16)


def read_revoked(path: Path) -> Mapping[int, Mapping[str, str]]:
    """The revoked serials, with reason and time, of a `revoked.json`.

    Raises:
        InvalidInput: it is missing or cannot be read. Nobody may be let in then, because anybody may be in it.
    """
    try:
        entries = json.loads(read(path))
        if not isinstance(entries, list):
            raise TypeError
        return {
            parse_serial(entry["serial"]): {key: str(entry[key]) for key in ("reason", "time")} for entry in entries
        }
    except (ValueError, TypeError, KeyError):
        raise InvalidInput(f"{path} is no list of revoked serials; restore it from a copy") from None
