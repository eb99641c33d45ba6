import tracemalloc

import numpy as np
import pytest

from deerfield.tensors import BLOCK, add, digest, factor, layers, norm, peer, plus_weighted, shapes, subtract, trained
from tests.adapters import adapter


def test_every_entry_is_a_factor_or_of_the_head():
    start = adapter()
    assert {name: factor(name) for name in start} == {
        "block.0.lora_A.weight": "A",
        "block.0.lora_B.weight": "B",
        "block.1.lora_A.weight": "A",
        "block.1.lora_B.weight": "B",
        "head.bias": "head",
        "head.weight": "head",
    }
    assert peer("block.0.lora_A.weight") == "block.0.lora_B.weight"
    assert peer(peer("block.0.lora_A.weight")) == "block.0.lora_A.weight"
    assert layers(start) == layers(shapes(start)) == ("block.0", "block.1")


@pytest.mark.parametrize(("factors", "count"), [("", 2), ("A", 4), ("B", 4), ("AB", 6)])
def test_an_exchange_trains_its_factors_and_the_head(factors, count):
    names = set(trained(adapter(), factors))
    assert len(names) == count
    assert {factor(name) for name in names} == {"head", *factors}


def test_arithmetic_goes_there_and_back_and_leaves_the_rest_alone():
    x, y = adapter(1), trained(adapter(2), "B")
    moved = add(x, y)
    assert moved["block.0.lora_A.weight"] is x["block.0.lora_A.weight"]
    for name, value in subtract(trained(moved, "B"), x).items():
        np.testing.assert_allclose(value, y[name], atol=1e-6)
    assert norm({"a": np.float32([3]), "b": np.float32([[4]])}) == 5


@pytest.mark.parametrize("shape", [(), (0,), (3, 2), (2, BLOCK - 1), (BLOCK + 1,)], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_weighted_sum_in_blocks_has_the_bits_of_one_over_whole_arrays(shape, order):
    rng = np.random.default_rng(7)
    start = np.asarray(rng.standard_normal(shape), np.float64, order=order)
    arrays = [np.asarray(rng.standard_normal(shape), np.float32, order=order) for _ in range(3)]
    weights, kept = (0.1, 0.7, 0.2), start.copy()
    total = start
    for weight, array in zip(weights, arrays, strict=True):
        total = total + np.multiply(array, weight, dtype=np.float64)
    found = plus_weighted(start, zip(weights, arrays, strict=True))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, total, strict=True)
    np.testing.assert_array_equal(start, kept)


def test_a_weighted_sum_takes_no_memory_for_products():
    shape, zeros = (64, BLOCK), np.zeros((64, BLOCK))
    arrays = [np.ones(shape, np.float32)] * 3
    tracemalloc.start()
    plus_weighted(zeros, ((0.5, array) for array in arrays))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < zeros.nbytes + 4 * 8 * BLOCK


def test_digest_sees_names_shapes_and_bits_and_no_memory_layout():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    one = digest({"x": x, "y": x})
    assert digest({"y": x, "x": np.asfortranarray(x)}) == one
    others = [{"x": x}, {"x": x, "z": x}, {"x": x.reshape(3, 2), "y": x}, {"x": np.nextafter(x, 9), "y": x}]
    assert len({one, *map(digest, others)}) == 5
