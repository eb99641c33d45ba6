"""The aggregator's countersigned record of a ledger's head as a small JSON file: what `ledger reconcile` reads."""

import json
from dataclasses import asdict
from math import inf

from deerfield.attestation import verify_head
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
    values = asdict(record)
    values["epsilon_after"] = "infinity" if record.epsilon_after == inf else float(record.epsilon_after)
    return json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"


def decode(data: bytes, where: str) -> Countersigned:
    """The record in a file; whose key signed it, and whether it did, is for `check`.

    Raises:
        InvalidInput: `where` holds no record.
    """
    try:
        values = json.loads(data)
        if values["epsilon_after"] == "infinity":
            values["epsilon_after"] = inf
        formed = set(values) == set(FIELDS) and all(isinstance(values[name], kind) for name, kind in FIELDS.items())
        if not formed or not values["epsilon_after"] >= 0 <= values["delta_after"] < inf or values["sequence"] < 0:
            raise ValueError("a field is missing or cannot be")
        return Countersigned(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(
            f"{where} is no countersigned record of a ledger's head; ask the aggregator's operator for it again"
        ) from error


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
