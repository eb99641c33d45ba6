"""Everything that holds blobs keeps the same promises: a folder, a bucket of a real S3 server, and memory."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from itertools import chain, repeat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deerfield.errors import ChunksMissing, DigestMismatch
from services.aggregator.blobstore.blobs import Blobs, MemoryBlobs
from services.aggregator.blobstore.bucket import open_blobs, read_place
from services.aggregator.blobstore.folder_blobs import FolderBlobs
from services.aggregator.blobstore.s3_blobs import PART_BYTES
from tests import s3

HOUR_S = 3600.0


def name(data: bytes) -> str:
    return sha256(data).hexdigest()


@dataclass
class Holder:
    """A kind of blobs; `again` opens the same ones anew, and `damage` changes what lies under a name."""

    blobs: Blobs
    again: Callable[[], Blobs]
    damage: Callable[[str, bytes], object] = lambda *_: pytest.fail("memory is not damaged")


@pytest.fixture(params=["folder", "s3", "memory"])
def holder(request: pytest.FixtureRequest, tmp_path) -> Holder:
    if request.param == "memory":
        blobs = MemoryBlobs()
        return Holder(blobs, lambda: blobs)
    if request.param == "folder":
        return Holder(
            FolderBlobs(tmp_path / "b"),
            lambda: FolderBlobs(tmp_path / "b"),
            lambda sha, data: (tmp_path / "b" / sha[:2] / sha).write_bytes(data),
        )
    server: s3.Server = request.getfixturevalue("s3_server")
    bucket = server.bucket()

    def opened() -> Blobs:
        return open_blobs(read_place(server.url(bucket, "some/where")), environment=s3.ENVIRONMENT)[0]

    def damage(sha: str, data: bytes) -> None:
        server.client.put_object(bucket, f"some/where/uploads/{sha[:2]}/{sha}", BytesIO(data), len(data))

    return Holder(opened(), opened, damage)


@pytest.fixture
def blobs(holder):
    return holder.blobs


def test_what_was_put_is_there_also_for_whoever_opens_it_anew(holder):
    holder.blobs.put(name(b"abc"), b"abc")
    for each in (holder.blobs, holder.again()):
        assert each.has(name(b"abc"))
        assert each.get(name(b"abc")) == b"abc"
        assert each.missing([name(b"abc"), name(b"x"), name(b"abc")]) == {name(b"x")}
        assert [(blob.sha, blob.size_bytes) for blob in each.kept()] == [(name(b"abc"), 3)]


def test_what_was_not_put_is_not_there(blobs):
    assert not blobs.has(name(b"abc"))
    assert blobs.missing([]) == frozenset()
    assert list(blobs.kept()) == []
    assert not blobs.drop(name(b"abc"), time.time())
    with pytest.raises(ChunksMissing, match=f"chunk {name(b'abc')} is not here"):
        blobs.get(name(b"abc"))


def test_nothing_is_kept_under_a_wrong_name(blobs):
    with pytest.raises(DigestMismatch, match="as announced"):
        blobs.put(name(b"abc"), b"abd")
    assert not blobs.has(name(b"abc"))


@pytest.mark.parametrize("holder", ["folder", "s3"], indirect=True)
def test_damage_is_noticed_when_it_is_read(holder):
    holder.blobs.put(name(b"abc"), b"abc")
    holder.damage(name(b"abc"), b"abd")
    with pytest.raises(DigestMismatch):
        holder.blobs.get(name(b"abc"))


def test_only_what_is_old_is_dropped(blobs):
    began = time.time() - 2  # a server tells whole seconds
    blobs.put(name(b"old"), b"old")
    assert not blobs.drop(name(b"old"), began)
    assert blobs.has(name(b"old"))
    assert blobs.drop(name(b"old"), time.time() + 2)
    assert blobs.missing([name(b"old")]) == {name(b"old")}
    assert not blobs.drop(name(b"old"), time.time() + 2)
    blobs.put(name(b"old"), b"old")
    assert blobs.get(name(b"old")) == b"old"


def test_all_that_is_kept_is_named_with_its_size_and_its_time(blobs):
    data = [bytes([number]) * (number + 1) for number in range(20)]
    for each in data:
        blobs.put(name(each), each)
    found = {blob.sha: blob for blob in blobs.kept()}
    assert {sha: blob.size_bytes for sha, blob in found.items()} == {name(each): len(each) for each in data}
    assert all(abs(blob.at - time.time()) < HOUR_S for blob in found.values())


@pytest.mark.parametrize("size", [0, 1, 1 << 20, PART_BYTES + 1, 2 * PART_BYTES])
def test_any_size_comes_back_as_it_was(blobs, size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    blobs.put(name(data), data)
    assert blobs.get(name(data)) == data


def test_the_same_may_be_put_by_many_at_once(blobs):
    data = [b"%d" % number for number in range(4)] * 8
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: blobs.put(name(each), each), data))
    assert sorted(blob.sha for blob in blobs.kept()) == sorted({name(each) for each in data})


def test_what_is_put_while_it_is_dropped_is_there_afterwards(blobs):
    """A collector has seen that it is old; whoever puts it again in that moment must find it afterwards."""
    data = [b"%d" % number for number in range(50)]
    for each in data:
        blobs.put(name(each), each)
    second = int(time.time()) + 1
    wait_until(second + 0.1)  # the times of files lag behind the clock by some milliseconds
    with ThreadPoolExecutor(2) as pool:  # from both ends: they meet in the middle
        dropping = pool.submit(lambda: [blobs.drop(name(each), second) for each in data])
        for each in reversed(data):
            blobs.put(name(each), each)
    assert any(dropping.result()), "nothing was dropped: the test shows nothing"
    assert blobs.missing(map(name, data)) == frozenset()


@pytest.mark.parametrize("holder", ["folder", "memory"], indirect=True)
def test_who_was_told_that_it_is_here_finds_it(blobs):
    """`missing` counts as a put: with what it has answered there is time to write a row."""
    data = [b"%d" % number for number in range(200)]
    for each in data:
        blobs.put(name(each), each)
    before = time.time()
    wait_until(before + 0.1)
    with ThreadPoolExecutor(2) as pool:
        dropping = pool.submit(lambda: [blobs.drop(name(each), before) for each in data])
        here = [each for each in reversed(data) if not blobs.missing([name(each)])]
    assert all(blobs.has(name(each)) for each in here)
    assert len(here) + sum(dropping.result()) == len(data)


def wait_until(moment: float) -> None:
    """A server of S3 tells whole seconds: until the next one has begun, nothing there is older than anything else."""
    while (left := moment - time.time()) > 0:
        threading.Event().wait(min(left, 1.0))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["put", "drop", "young"]), st.binary(max_size=2)), max_size=8))
def test_any_sequence_leaves_what_a_dictionary_would_hold(blobs, steps):
    later = time.time() + HOUR_S
    for blob in list(blobs.kept()):
        blobs.drop(blob.sha, later)
    held: dict[str, bytes] = {}
    for step, data in steps:
        sha = name(data)
        if step == "put":
            blobs.put(sha, data)
            held[sha] = data
        elif step == "drop":
            assert blobs.drop(sha, later) == (held.pop(sha, None) is not None)
        else:
            assert not blobs.drop(sha, later - 2 * HOUR_S)
    assert {blob.sha for blob in blobs.kept()} == held.keys()
    assert all(blobs.get(sha) == data for sha, data in held.items())
    wanted = [*held, *(name(bytes(each)) for each in chain(*repeat([b"absent"], 2)))]
    assert blobs.missing(wanted) == {name(b"absent")}
