"""To which database blobs belong: the collector would delete what no row of another one names.

A mark in `owner/` beside the blobs says it, a blob like the others: its content is the identity that the database was
given when its tables were made. It is written by the first start, before anything is published; from then on a start
over another mark is refused, whatever lies there and however old it is. Blobs from before there were marks belong to
the first database with a run that is started over them.

Of two databases that are started over the same empty place at once, each writes its own mark and then looks for others:
at least one of them sees both, takes its own back, and is refused. No conditional write is needed.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from math import inf
from pathlib import Path

from deerfield.errors import InvalidInput, Superseded
from services.aggregator.blobstore.blobs import Blobs
from services.aggregator.blobstore.bucket import open_blobs, open_marks
from services.aggregator.sql.store import Store
from services.objects import Bucket

SHA256 = re.compile(r"[0-9a-f]{64}")  # what a crash or a probe has left is called otherwise


def check_unused(place: Path | Bucket) -> None:
    """Raises InvalidInput if `place` has an owner or anything is published there: for a database that is being made."""
    _, published = open_blobs(place)
    _check_marks(_found(open_marks(place), place), place)
    _check_empty(published, place)


def check_owned(store: Store, published: Blobs, marks: Blobs, place: Path | Bucket) -> Callable[[], None]:
    """Marks blobs that nobody owns as this database's; answers a function that raises Superseded once they are not.

    Raises:
        InvalidInput: they belong to another database, or the database has no run, so that they must.
    """
    with store.edge() as edge:
        identity, used = edge.kept.identity(), bool(edge.kept.runs())
    mine, data = _mark(identity)
    if mine not in _check_marks(_found(marks, place), place, mine):
        if not used:
            _check_empty(published, place)
        marks.put(mine, data)
        try:
            _check_marks(_found(marks, place), place, mine)
        except InvalidInput:
            marks.drop(mine, inf)
            raise

    def check() -> None:
        if {blob.sha for blob in marks.kept() if SHA256.fullmatch(blob.sha)} != {mine}:
            raise Superseded(f"blobs: {place} belongs to another database by now; this aggregator ends")

    return check


def take_over(marks: Blobs, place: Path | Bucket, identity: str, before: str) -> None:
    """Makes the blobs of the database `before` those of `identity`: a restore's.

    Raises:
        InvalidInput: they belong to a third one.
    """
    (mine, data), (theirs, _) = _mark(identity), _mark(before)
    _check_marks(_found(marks, place), place, mine, theirs)
    marks.put(mine, data)
    marks.drop(theirs, inf)


def _mark(identity: str) -> tuple[str, bytes]:
    data = f"deerfield database {identity}\n".encode()
    return sha256(data).hexdigest(), data


def _found(blobs: Blobs, place: Path | Bucket) -> set[str]:
    try:
        return {blob.sha for blob in blobs.kept() if SHA256.fullmatch(blob.sha)}
    except OSError as error:
        raise InvalidInput(
            f"blobs: {place} cannot be listed ({error.strerror}: {error.filename}); let this user read it, and keep "
            "nothing else in it"
        ) from None


def _check_marks(found: set[str], place: Path | Bucket, *allowed: str) -> set[str]:
    if strange := sorted(found.difference(allowed)):
        raise InvalidInput(
            f"blobs: {place} belongs to another database, whose tensors this one would delete in time; name that one "
            "in --database, or, to begin anew, an empty folder or prefix in --blobs; if that database is gone for "
            f"good, remove owner/{strange[0][:2]}/{strange[0]} there"
        )
    return found


def _check_empty(published: Blobs, place: Path | Bucket) -> None:
    if _found(published, place):
        raise InvalidInput(
            f"blobs: {place} holds published states, and the database has no run, so they belong to another database "
            "and would be deleted in time; name that one in --database, or, to begin anew, an empty folder or prefix "
            "in --blobs"
        )
