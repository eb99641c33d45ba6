"""The aggregator's countersigned record of a ledger's head as JSON: what `ledger reconcile` and a proof read."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from math import inf
from typing import Any

from deerfield.attestation import plain, verify_head
from deerfield.errors import BadAttestation, InvalidInput
from deerfield.types import Countersigned

FIELDS: dict[str, type | tuple[type, ...]] = {
    "site": str,
    "population": str,
    "sequence": int,
    "head": str,
    "epsilon_after": (int, float),
    "delta_after": (int, float),
    "aggregator_key": str,
    "signature": str,
}


def encode(record: Countersigned) -> bytes:
    """The record as JSON; an infinite epsilon is the word "infinity"."""
    return json.dumps(plain(asdict(record)), indent=2, sort_keys=True).encode() + b"\n"


def decode(data: bytes, where: str) -> Countersigned:
    """The record in a file; whose key signed it, and whether it did, is for `check`.

    Raises:
        InvalidInput: `where` holds no record.
    """
    try:
        return parse(json.loads(data))
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(
            f"{where} is no countersigned record of a ledger's head; ask the aggregator's operator for it again"
        ) from error


def parse(document: Mapping[str, Any]) -> Countersigned:
    """The record in a JSON object; raises ValueError, TypeError or KeyError where it is none."""
    values = dict(document)
    if values["epsilon_after"] == "infinity":
        values["epsilon_after"] = inf
    formed = set(values) == set(FIELDS) and all(isinstance(values[name], kind) for name, kind in FIELDS.items())
    if not formed or not values["epsilon_after"] >= 0 <= values["delta_after"] < inf or values["sequence"] < 0:
        raise ValueError("a field is missing or cannot be")
    return Countersigned(**values)


def check(record: Countersigned, site: str, population: str, known_key: str | None) -> None:
    """Holds a record against the ledger it is said to be of.

    Raises:
        InvalidInput: it is of another site or population, not signed, or by another aggregator than `known_key`.
    """
    if record.site != site:
        raise InvalidInput(f"the record is of site {record.site!r}, this ledger of {site!r}; ask for the right one")
    try:
        verify_head(record, population)
    except BadAttestation as error:
        raise InvalidInput(str(error)) from error
    if known_key is not None and record.aggregator_key != known_key:
        raise InvalidInput(
            f"the record is signed by key {record.aggregator_key[:16]}..., the aggregator that this site knows has "
            f"{known_key[:16]}...; ask its operator which is right"
        )
