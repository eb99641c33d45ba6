"""`make chaos`: what the aggregator stands on is away for a while: a database server, a bucket, room on a disk."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.aggregator.blobstore.folder_blobs import FolderBlobs
from tests.chaos.checks import found
from tests.chaos.consortium import Consortium
from tests.chaos.edges import undisturbed
from tests.chaos.site import spec
from tests.cut_link import CutLink

AWAY_S = 5.0
BUCKET_AWAY_S = 30.0
ROOM = "4m"


class Outage:
    """Calls `begins` in the middle of a run, and `ends` once `away_s` are over and it was `noticed`."""

    def __init__(
        self,
        begins: Callable[[], object],
        ends: Callable[[], object],
        away_s: float,
        noticed: Callable[[], bool] = lambda: True,
    ) -> None:
        self.begins, self.ends, self.away_s, self.noticed = begins, ends, away_s, noticed
        self.until: float | None = None
        self.over = False

    def __call__(self, consortium: Consortium) -> None:
        sealed = sum(event.kind == "update_sealed" for event in consortium.course.events)
        if self.until is None and sealed >= 3:
            self.begins()
            self.until = time.monotonic() + self.away_s
        elif not self.over and self.until is not None and time.monotonic() > self.until and self.noticed():
            self.ends()
            self.over = True


def kept(consortium: Consortium, calm, outage: Outage, blobs=None):
    """The disturbed run goes on by itself, in the same process, and leaves what the undisturbed one left."""
    course = consortium.complete(meddle=outage)
    assert (outage.over, course.kills) == (True, 0)
    left = found(consortium.folder, consortium.database, course.run, blobs)
    course.same = left.digests == calm.left.digests
    assert left == calm.left
    return course


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_database_server_that_is_restarted_in_mid_run(database, postgres_server, tmp_path, note):
    calm = undisturbed(tmp_path, database, spec("north", "south"))
    outage = Outage(postgres_server.stop, postgres_server.start, AWAY_S)
    note("PostgreSQL restarted", kept(calm.make("restarted"), calm, outage))


def test_a_bucket_that_refuses_for_half_a_minute(database, tmp_path, note):
    s3 = pytest.importorskip("tests.s3", reason="blobs in a bucket are not built here")
    from services.aggregator.blobstore.bucket import open_blobs, read_place

    calm = undisturbed(tmp_path, database, spec("north", "south"))
    with s3.serving() as server, CutLink(server.port) as link:
        bucket = server.bucket()
        place = tmp_path / "bucket"
        place.mkdir()
        where = {"blobs": server.url(bucket, endpoint=link.address), "environment": s3.ENVIRONMENT}
        consortium = Consortium(place, database(place), spec("north", "south"), **where)
        outage = Outage(link.cut, link.restore, BUCKET_AWAY_S)
        blobs = open_blobs(read_place(server.url(bucket)), environment=s3.ENVIRONMENT)
        note("S3 away for 30 s", kept(consortium, calm, outage, blobs))


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own with little room."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Takes all the room that is left."""
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 512):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def test_a_disk_that_is_full_for_a_while(database, tmp_path, note):
    calm = undisturbed(tmp_path, database, spec("north", "south"))
    place, disk = tmp_path / "full", tmp_path / "disk"
    place.mkdir()
    with small_disk(disk):
        consortium = Consortium(place, database(disk), spec("north", "south"), blobs=str(disk / "blobs"))
        ballast = disk / "ballast"
        log = place / "aggregator.log"  # the first to say so may be the database or the folder
        outage = Outage(lambda: fill(ballast), ballast.unlink, AWAY_S, lambda: "make room" in log.read_text())
        blobs = (FolderBlobs(disk / "blobs/uploads"), FolderBlobs(disk / "blobs/published"))
        course = kept(consortium, calm, outage, blobs)
    assert "make room" in log.read_text()
    assert "Traceback" not in log.read_text()
    note("disk full", course)
