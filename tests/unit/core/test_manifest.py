import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deerfield.errors import (
    BadRequest,
    DigestMismatch,
    NormTooLarge,
    NotFinite,
    TooLarge,
    UnknownTensor,
    WrongDtype,
    WrongShape,
)
from deerfield.manifest import CHUNK_BYTES, CHUNK_BYTES_MIN, Manifest, Stored, assemble, check, describe, pieces, verify
from deerfield.tensors import digest, shapes

SMALL = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([1.5])}
LARGE = {"w": np.arange(CHUNK_BYTES // 2, dtype=np.float32)}  # two chunks


def stored(tensors, manifest):
    return dict(pieces(tensors, manifest, manifest.chunks)).__getitem__


def with_tensor(manifest: Manifest, **changes) -> Manifest:
    first, *rest = manifest.tensors
    return replace(manifest, tensors=(replace(first, **changes), *rest))


def test_a_manifest_names_tensors_in_order_and_carries_their_digest():
    manifest = describe(SMALL)
    assert [info.name for info in manifest.tensors] == ["a", "b"]
    assert manifest.digest == digest(SMALL)
    assert manifest.size_bytes == 28


def test_a_large_tensor_is_cut_into_chunks_and_the_last_one_is_shorter():
    manifest = describe({"w": LARGE["w"][:-1]})
    assert [len(data) for _, data in pieces({"w": LARGE["w"][:-1]}, manifest, manifest.chunks)] == [
        1 << 20,
        (1 << 20) - 4,
    ]


def test_equal_chunks_travel_once():
    twins = {"x": np.ones(8, np.float32), "y": np.ones(8, np.float32)}
    manifest = describe(twins)
    assert len(list(pieces(twins, manifest, manifest.chunks))) == 1


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text("abc.", min_size=1, max_size=5),
        arrays(np.float32, st.sampled_from([(), (0,), (3,), (2, 3), (4, 1, 1)]), elements=st.floats(-4, 4, width=32)),
        max_size=4,
    )
)
def test_what_is_taken_apart_is_put_together_again(tensors):
    manifest = describe(tensors)
    back = assemble(manifest, stored(tensors, manifest))
    assert shapes(back) == shapes(tensors)
    assert digest(back) == digest(tensors)


def test_stored_tensors_are_read_one_at_a_time_and_only_when_asked():
    manifest, asked = describe(SMALL), []
    read = stored(SMALL, manifest)
    lazy = Stored(manifest, lambda sha: (asked.append(sha), read(sha))[1])
    assert len(lazy) == 2
    assert "b" in lazy
    assert "c" not in lazy
    assert asked == []
    np.testing.assert_array_equal(lazy["b"], SMALL["b"])
    assert len(asked) == 1


def test_a_tensor_of_many_chunks_lies_in_memory_once():
    tensors = {"w": np.arange(16 * CHUNK_BYTES // 4, dtype=np.float32)}
    manifest = describe(tensors)
    read = stored(tensors, manifest)
    lazy = Stored(manifest, lambda sha: bytes(bytearray(read(sha))))  # a copy, as from a disk
    tracemalloc.start()
    found = lazy["w"]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, tensors["w"])
    assert not found.flags.writeable
    assert most < tensors["w"].nbytes * 1.5


def test_a_manifest_that_fits_its_schema_passes():
    check(describe(SMALL), {"a": (1,), "b": (2, 3)})
    check(describe({}), {})


@pytest.mark.parametrize(
    ("manifest", "schema", "error"),
    [
        (describe(SMALL), {"a": (1,)}, UnknownTensor),
        (describe(SMALL), {"a": (1,), "b": (2, 3), "c": (1,)}, UnknownTensor),
        (describe(SMALL), {"a": (1,), "b": (3, 2)}, WrongShape),
        (with_tensor(describe(SMALL), dtype="float64"), {"a": (1,), "b": (2, 3)}, WrongDtype),
        (with_tensor(describe(SMALL), chunks=("0" * 64,) * 2), {"a": (1,), "b": (2, 3)}, TooLarge),
        (with_tensor(describe(SMALL), chunks=()), {"a": (1,), "b": (2, 3)}, BadRequest),
        (replace(describe(SMALL), tensors=describe(SMALL).tensors * 2), {"a": (1,), "b": (2, 3)}, BadRequest),
        (replace(describe(SMALL), chunk_bytes=CHUNK_BYTES_MIN - 1), {"a": (1,), "b": (2, 3)}, BadRequest),
        (replace(describe(SMALL), chunk_bytes=CHUNK_BYTES + 1), {"a": (1,), "b": (2, 3)}, BadRequest),
        (with_tensor(describe(SMALL), shape=(1 << 60,)), {"a": (1,), "b": (2, 3)}, WrongShape),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_before_a_byte_is_read(manifest, schema, error):
    with pytest.raises(error):
        check(manifest, schema)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused(value):
    bad = {"a": np.float32([1, value])}
    manifest = describe(bad)
    with pytest.raises(NotFinite, match="a holds"):
        verify(manifest, stored(bad, manifest))


def test_the_largest_values_that_are_finite_are_taken_unless_the_norm_has_a_limit():
    large = {"a": np.full(4, np.finfo(np.float32).max)}
    manifest = describe(large)
    verify(manifest, stored(large, manifest))
    verify(manifest, stored(large, manifest), 1e39)
    with pytest.raises(NormTooLarge, match="above 1e"):
        verify(manifest, stored(large, manifest), 1e38)


def test_chunks_that_hold_something_else_are_refused():
    other = {**SMALL, "a": np.float32([2.5])}
    lying = replace(describe(other), digest=describe(SMALL).digest)
    with pytest.raises(DigestMismatch):
        assemble(lying, stored(other, lying))
    short = with_tensor(describe(SMALL), shape=(2,))
    with pytest.raises(DigestMismatch, match="its shape needs 8"):
        verify(short, stored(SMALL, describe(SMALL)))
    for size in (CHUNK_BYTES // 4 + 1, CHUNK_BYTES):  # of two chunks that hold half of the one
        other = with_tensor(describe(LARGE), shape=(size,))
        with pytest.raises(
            DigestMismatch, match=f"its chunks hold {2 * CHUNK_BYTES} bytes, its shape needs {4 * size}"
        ):
            verify(other, stored(LARGE, describe(LARGE)))


def test_only_chunks_that_are_not_held_are_counted():
    both = describe({**SMALL, **LARGE})
    assert both.bytes_beyond(frozenset()) == both.size_bytes
    assert both.bytes_beyond(describe(LARGE).chunks) == describe(SMALL).size_bytes
    assert both.bytes_beyond(both.chunks) == 0
    twice = describe({"x": SMALL["b"], "y": SMALL["b"]})
    assert twice.bytes_beyond(frozenset()) == SMALL["b"].nbytes
