import tracemalloc
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deerfield.deviation import deviation
from tests.adapters import adapter, products


def naive(start, deltas, shares, published):
    """The definition, with every product written out."""
    models = [{name: v.astype(float) + delta.get(name, 0) for name, v in start.items()} for delta in deltas]
    mean = {
        path: sum(w * products(model)[path] for w, model in zip(shares, models, strict=True))
        for path in products(start)
    }
    apart = sum(np.sum((mean[path] - product) ** 2) for path, product in products(published).items())
    return np.sqrt(apart / sum(np.sum(m**2) for m in mean.values()))


def scalars(B, A):
    return {"x.lora_B.weight": np.float32([[B]]), "x.lora_A.weight": np.float32([[A]])}


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 99), st.sampled_from(["A", "B", "AB"]))
def test_it_is_its_definition_whether_factors_are_stacked_or_products_added(sites, seed, factors):
    start, published = adapter(seed, d_out=20, d_in=30), adapter(seed + 1, d_out=20, d_in=30)
    deltas = [
        {name: v for name, v in adapter(seed + 2 + i, d_out=20, d_in=30).items() if name[-8] in factors}
        for i in range(sites)
    ]
    shares = np.random.default_rng(seed).dirichlet(np.ones(sites))
    assert deviation(start, deltas, shares, published) == pytest.approx(
        naive(start, deltas, shares, published), rel=1e-9
    )


def test_worked_by_hand():
    """B = 1 and 3, A = 2 and 6: the mean product is (2 + 18) / 2 = 10, the product of the means 2 x 4 = 8."""
    deltas = [scalars(1, 2), scalars(3, 6)]
    assert deviation(scalars(0, 0), deltas, [0.5, 0.5], scalars(2, 4)) == pytest.approx(0.2)


def test_equal_factors_are_sufficient_but_not_necessary():
    """r = 1, B = (-1, 0, 1), A = (1, -2, 1): every factor differs, and yet the mean product is that of the means."""
    second = {"y.lora_B.weight": np.float32([[2]]), "y.lora_A.weight": np.float32([[3]])}  # so that the mean is not 0
    start = scalars(0, 0) | second
    deltas = [scalars(B, A) for B, A in ((-1, 1), (0, -2), (1, 1))]
    assert deviation(start, deltas, [1 / 3] * 3, start) == pytest.approx(0, abs=1e-15)
    assert deviation(start, deltas[:2], [1 / 2] * 2, scalars(-0.5, -0.5) | second) > 0.05


def test_no_product_is_no_deviation():
    zero = scalars(0, 5)
    assert deviation(zero, [{}, {}], [0.5, 0.5], zero) == 0
    assert deviation({}, [{}], [1.0], {}) == 0


class Lazy(Mapping):
    """Makes a tensor anew each time that it is asked for, and counts."""

    def __init__(self, make, names):
        self.make, self.names, self.reads = make, names, []

    def __getitem__(self, name):
        self.reads.append(name)
        return self.make(name)

    def __contains__(self, name):
        return name in self.names

    def __iter__(self):
        return iter(self.names)

    def __len__(self):
        return len(self.names)


@pytest.mark.parametrize("sites", [2, 40])
def test_each_tensor_is_read_once(sites):
    start = adapter(0, d_out=20, d_in=30)
    names = [name for name in start if "lora" in name]
    deltas = [Lazy(start.__getitem__, names) for _ in range(sites)]
    deviation(start, deltas, [1 / sites] * sites, start)
    assert all(sorted(delta.reads) == sorted(names) for delta in deltas)


def test_memory_does_not_grow_with_the_sites():
    def peak(sites):
        start = adapter(0, layers=1, d_out=150, d_in=150, rank=4)
        deltas = [Lazy(lambda name: start[name].copy(), list(start)) for _ in range(sites)]
        tracemalloc.start()
        deviation(start, deltas, [1 / sites] * sites, start)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(400) < 1.2 * max(peak(30), peak(50))  # 30 are stacked, 50 and 400 are added up
