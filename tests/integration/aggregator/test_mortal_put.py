"""A process is killed while a large blob goes into a bucket: nothing of it is seen, and it can be put again."""

import signal
import subprocess
import sys

import pytest

from deerfield.errors import ChunksMissing
from services.aggregator.blobstore.bucket import open_blobs, read_place
from services.aggregator.blobstore.s3_blobs import PART_BYTES
from tests import s3
from tests.integration.aggregator.mortal_put import blob

SIZE = 2 * PART_BYTES + 1  # three parts


@pytest.mark.parametrize(
    ("point", "seen"),
    [
        ("uploads:before_part#3", False),
        ("complete", False),
        ("uploads:after_put", True),
    ],
)
def test_a_kill_inside_a_put_of_several_parts_leaves_the_whole_blob_or_none(s3_server, point, seen):
    bucket = s3_server.bucket()
    command = [sys.executable, "-m", "tests.integration.aggregator.mortal_put", point]
    given = [s3_server.url(bucket, "uploads"), str(SIZE)]
    done = subprocess.run([*command, *given], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    blobs, _ = open_blobs(read_place(s3_server.url(bucket)), environment=s3.ENVIRONMENT)
    sha, data = blob(SIZE)
    assert blobs.has(sha) is seen
    assert [each.sha for each in blobs.kept()] == [sha] * seen
    assert blobs.missing([sha]) == (frozenset() if seen else {sha})
    if seen:
        assert blobs.get(sha) == data
    else:
        with pytest.raises(ChunksMissing):
            blobs.read(sha)
        blobs.put(sha, data)  # as the site sends it again
        assert blobs.get(sha) == data
        assert [(each.sha, each.size_bytes) for each in blobs.kept()] == [(sha, SIZE)]
