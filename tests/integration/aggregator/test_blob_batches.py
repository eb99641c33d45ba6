"""Several blobs at once: all or none can be relied on, also where the disk says no in the middle."""

import errno
import os
import subprocess
import sys
from hashlib import sha256

import pytest

from deerfield.errors import ChunksMissing, DigestMismatch, NoRoom, Unreachable
from services.aggregator.blobstore.blobs import MemoryBlobs
from services.aggregator.blobstore.folder_blobs import FolderBlobs
from tests import syncs

LIMITED = """
import resource, sys
from hashlib import sha256
from pathlib import Path
from services.aggregator.blobstore.folder_blobs import FolderBlobs
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
blobs = FolderBlobs(Path(sys.argv[1]))
blobs.put_all([(sha256(data).hexdigest(), data) for data in (b"small", b"1" * 5000)])
"""


def named(*contents: bytes):
    return [(sha256(data).hexdigest(), data) for data in contents]


@pytest.fixture(params=[FolderBlobs, MemoryBlobs])
def blobs(request, tmp_path):
    return request.param(tmp_path / "blobs") if request.param is FolderBlobs else request.param()


def test_what_is_put_together_is_there_one_by_one(blobs):
    some = named(*(bytes([number]) * 1000 for number in range(40)))
    blobs.put_all(some[:3])
    blobs.put_all([*some, *some])  # what is here already, and the same twice
    for sha, data in some:
        assert blobs.has(sha)
        assert blobs.get(sha) == blobs.read(sha) == data
    with pytest.raises(ChunksMissing):
        blobs.read("0" * 64)


def test_a_wrong_one_is_refused(blobs):
    (good,) = named(b"good")
    with pytest.raises(DigestMismatch):
        blobs.put_all([good, ("0" * 64, b"other")])
    assert not blobs.has("0" * 64)


def test_folders_are_on_the_disk_before_contents_and_all_contents_before_the_first_name(tmp_path, monkeypatch):
    blobs, some = FolderBlobs(tmp_path / "blobs"), dict(named(b"one", b"two"))
    found = syncs.recorded(monkeypatch)
    blobs.put_all(list(some.items()))
    folders, contents, names = found[:1], found[1:3], found[3:]
    for sync in contents:  # both are there to be read before one of them has its name
        assert sync.files[sync.path.name] == some[sync.path.name.partition(".")[0]]
        assert sync.path.suffix == ".part"
    assert {(sync.path.name, *sync.files.items()) for sync in names} == {(sha[:2], (sha, some[sha])) for sha in some}
    assert [(sync.path, sync.folders) for sync in folders] == [(tmp_path / "blobs", {sha[:2] for sha in some})]


def test_what_was_put_is_found_by_the_next_process(tmp_path):
    some = named(b"one", b"two")
    FolderBlobs(tmp_path).put_all(some)
    again = FolderBlobs(tmp_path)
    assert [again.get(sha) for sha, _ in some] == [b"one", b"two"]
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_file_is_read_as_it_is_and_never_gotten(tmp_path):
    blobs, ((sha, data),) = FolderBlobs(tmp_path), named(b"whole")
    blobs.put(sha, data)
    (tmp_path / sha[:2] / sha).write_bytes(b"torn")
    assert blobs.read(sha) == b"torn"
    with pytest.raises(DigestMismatch):
        blobs.get(sha)


def test_a_disk_that_takes_one_and_not_the_next_leaves_neither_and_no_rest(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert "File too large" in done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not any(FolderBlobs(tmp_path).has(sha) for sha, _ in named(b"small", b"1" * 5000))


def test_what_one_has_kept_is_not_taken_back_by_another_whose_disk_is_full_by_then(tmp_path):
    first, second = named(b"first", b"second")
    points = []

    def reached(point):
        points.append(point)
        if len(points) == 1:  # the outer put has not fsynced yet
            blobs.put(*first)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    blobs = FolderBlobs(tmp_path / "blobs", reached)
    with pytest.raises(NoRoom, match="No space left"):
        blobs.put_all([first, second])
    assert len(points) > 1
    assert blobs.missing([first[0], second[0]]) == {second[0]}
    assert blobs.get(first[0]) == b"first"
    assert not list(tmp_path.rglob("*.part"))
    blobs.put(*second)
    assert blobs.has(second[0])


def test_a_disk_that_cannot_be_asked_is_worth_another_try(tmp_path):
    blobs, ((sha, data),) = FolderBlobs(tmp_path), named(b"away")
    (tmp_path / sha[:2]).write_bytes(b"no folder")  # as one that is mounted read-only, or answers with an error
    for act in (lambda: blobs.missing([sha]), lambda: blobs.put(sha, data)):
        with pytest.raises(NoRoom, match=r"cannot be written \(Not a directory\)"):
            act()
    with pytest.raises(Unreachable, match=r"cannot be read \(Not a directory\)"):
        blobs.get(sha)
    (tmp_path / sha[:2]).unlink()
    assert blobs.missing([sha]) == {sha}
