"""Where `--blobs` lie: a folder, or a bucket of an S3 server by URL; what to tell a person when it cannot be used."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from deerfield.durable import OnDurable, ignore
from deerfield.errors import InvalidInput, Unreachable
from services.aggregator.blobstore.blobs import GRACE_S, Blobs
from services.aggregator.blobstore.folder_blobs import FolderBlobs
from services.aggregator.blobstore.s3_blobs import S3Blobs
from services.objects import Bucket, EnvironmentProvider, advice, connect, read_bucket

OWNER = "owner"


def read_place(text: str) -> Path | Bucket:
    """The folder or bucket that `--blobs` names.

    Raises:
        InvalidInput: a URL that is none, or of something else, or holds credentials.
    """
    return read_bucket(text, "blobs") if "://" in text else Path(text)


def open_marks(place: Path | Bucket, environment: Mapping[str, str] = os.environ) -> Blobs:
    """Where it is marked whose blobs these are, of a place that `open_blobs` has opened; tried and raises as there."""
    if isinstance(place, Path):
        return FolderBlobs(place / OWNER)
    marks = S3Blobs(connect(place, EnvironmentProvider(environment)), _part(place, OWNER))
    _probe(marks, place)
    return marks


def open_blobs(
    place: Path | Bucket,
    grace_s: float = GRACE_S,
    environment: Mapping[str, str] = os.environ,
    on_durable: OnDurable = ignore,
) -> tuple[Blobs, Blobs]:
    """Where updates go and where states are published; in a bucket, after everything was tried once that will be done.

    Raises:
        InvalidInput: it cannot be reached or used; the sentence says why.
    """
    if isinstance(place, Path):
        return FolderBlobs(place / "uploads", on_durable), FolderBlobs(place / "published", on_durable)
    keys = EnvironmentProvider(environment)
    keys.retrieve()
    client = connect(place, keys)
    uploads, published = (
        S3Blobs(client, _part(place, part), grace_s=grace_s, on_durable=on_durable) for part in ("uploads", "published")
    )
    for each in (uploads, published):
        _probe(each, place)
    return uploads, published


def _probe(blobs: S3Blobs, place: Bucket) -> None:
    try:
        blobs.probe()
    except Unreachable as error:
        raise InvalidInput(f"blobs: {place}: {error}; {advice(error.__cause__)}") from error


def _part(place: Bucket, name: str) -> Bucket:
    return replace(place, prefix=f"{place.prefix}{name}/")
