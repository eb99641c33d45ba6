"""Refuses blobs of another database at the start: the collector would delete what no row of this one names.

A run's first state is published before its row is written. An aggregator that was killed in between leaves blobs in a
database without a run, and must start again over them. So a database that this start makes is held to the strict rule,
no published blob at all, in the transaction that makes it: refused once, it is still empty, and refused again. One that
was there before, but has no run yet, is refused only over blobs that the next pass of the collector would delete.
"""

import re
from math import inf
from pathlib import Path

from deerfield.errors import InvalidInput
from services.aggregator.blobstore.blobs import Blobs
from services.aggregator.blobstore.bucket import open_blobs
from services.aggregator.sql.store import Store
from services.objects import Bucket

SHA256 = re.compile(r"[0-9a-f]{64}")  # what a crash or a probe has left is called otherwise


def check_unused(place: Path | Bucket) -> None:
    """Raises InvalidInput if anything is published at `place`, for a database that is only being made."""
    _, published = open_blobs(place)
    _check(published, place, inf)


def check_owned(store: Store, published: Blobs, place: Path | Bucket, before: float) -> None:
    """Raises InvalidInput if the database has no run, and something was published before that time."""
    with store.edge() as edge:
        used = bool(edge.kept.runs())
    if not used:
        _check(published, place, before)


def _check(published: Blobs, place: Path | Bucket, before: float) -> None:
    try:
        found = any(blob.at < before and SHA256.fullmatch(blob.sha) for blob in published.kept())
    except OSError as error:
        raise InvalidInput(
            f"blobs: {place} cannot be listed ({error.strerror}: {error.filename}); let this user read it, and keep "
            "nothing else in it"
        ) from None
    if found:
        raise InvalidInput(
            f"blobs: {place} holds published states, and the database has no run, so they belong to another database "
            "and would be deleted in time; name that one in --database, or, to begin anew, an empty folder or prefix "
            "in --blobs"
        )
