"""The laws of the gauge; design of the regulator in deerfield/gauge.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deerfield.gauge import regauge, regauged
from deerfield.tensors import digest
from tests.adapters import adapter, products

MOVING = ("A", "B")


@st.composite
def factors(draw):
    """(B, A) in float32 of any shape: plain, with B = 0, rank-deficient, or of condition 1e8."""
    rank = draw(st.integers(1, 5))
    d_out, d_in = draw(st.integers(rank, 12)), draw(st.integers(rank, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    B, A = rng.normal(size=(d_out, rank)), rng.normal(size=(rank, d_in))
    match draw(st.sampled_from(["plain", "zero", "deficient", "ill"])):
        case "zero":
            B = np.zeros_like(B)
        case "deficient":
            A[-1], B[:, -1] = A[0], B[:, 0]
        case "ill":
            A, B = A * np.geomspace(1, 1e-8, rank)[:, None], B * np.geomspace(1e-8, 1, rank)
    return B.astype(np.float32), A.astype(np.float32)


def layer(B, A):
    return {"x.lora_A.weight": A, "x.lora_B.weight": B, "head.bias": np.ones(3, np.float32)}


def frozen_gram(B, A, moving):
    return A @ A.T if moving == "B" else B.T @ B


@given(factors(), st.sampled_from(MOVING))
def test_product_is_preserved_in_float32(pair, moving):
    B, A = pair
    before, after = products(layer(B, A))["x"], products(regauge(layer(B, A), moving))["x"]
    assert np.linalg.norm(after - before) <= 1e-6 * np.linalg.norm(before)


@given(factors(), st.sampled_from(MOVING))
def test_frozen_factor_is_orthonormal(pair, moving):
    gram = frozen_gram(*regauged(*pair, moving), moving)
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


@given(factors(), st.sampled_from(MOVING))
def test_map_is_idempotent_and_deterministic(pair, moving):
    once, twin = regauge(layer(*pair), moving), regauge(layer(*pair), moving)
    assert digest(once) == digest(twin)
    for name, value in regauge(once, moving).items():
        np.testing.assert_allclose(value, once[name], atol=1e-6 * max(1.0, float(np.abs(once[name]).max())))


@pytest.mark.parametrize("moving", MOVING)
def test_head_and_argument_are_untouched(moving):
    start = adapter(3)
    before = digest(start)
    after = regauge(start, moving)
    assert digest(start) == before
    assert after["head.weight"] is start["head.weight"]
    assert {name: (v.shape, v.dtype) for name, v in after.items()} == {
        name: (v.shape, v.dtype) for name, v in start.items()
    }


@given(factors(), st.sampled_from(MOVING))
def test_change_of_the_moving_factor_has_the_norm_of_its_effect(pair, moving):
    B, A = regauged(*pair, moving)
    change = np.random.default_rng(0).normal(size=(B if moving == "B" else A).shape)
    effect = change @ A if moving == "B" else B @ change
    assert np.linalg.norm(effect) == pytest.approx(np.linalg.norm(change))


@pytest.mark.parametrize("moving", MOVING)
def test_one_step_is_the_clipped_scaled_step_with_regulated_noise(moving):
    """One DP-SGD step in the gauge against the paper's form in the old coordinates, where it pulls back to W.

    The paper, on B: per-unit gradients G_i A^T (A A^T)^-1, clipped by the norm of their effect G_i P_A, plus noise
    xi_W A^T (A A^T)^-1. The step on A is that on the first factor of the transposed layer.
    """
    rng = np.random.default_rng(5)
    B, A = rng.normal(size=(7, 3)), 5 * rng.normal(size=(3, 9))
    gradients, noise_W = [size * rng.normal(size=(7, 9)) for size in (0.1, 0.5, 2, 9)], rng.normal(size=(7, 9))
    clip, scale, noise_multiplier, rate = 1.2, 0.25, 1.1, 0.3
    B_, A_ = regauged(B, A, moving)
    if moving == "A":
        B, A, B_, A_ = A.T, B.T, A_.T, B_.T
        gradients, noise_W = [G.T for G in gradients], noise_W.T

    ours = [scale * G @ A_.T for G in gradients]
    sizes = [np.linalg.norm(g) for g in ours]
    step = sum(g * min(1, clip / size) for g, size in zip(ours, sizes, strict=True))
    step += noise_multiplier * clip * noise_W @ A_.T

    pull = A.T @ np.linalg.inv(A @ A.T)
    effects = [np.linalg.norm(scale * G @ pull @ A) for G in gradients]
    paper = sum(scale * G @ pull * min(1, clip / size) for G, size in zip(gradients, effects, strict=True))
    paper += noise_multiplier * clip * noise_W @ pull

    assert min(sizes) < clip < max(sizes)  # some are clipped and some are not
    np.testing.assert_allclose((B_ - rate * step) @ A_, (B - rate * paper) @ A, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1.0, 10.0])
def test_noise_on_the_product_has_covariance_tau_squared_times_the_projection(size):
    """Rows of xi_B A are N(0, tau^2 P_A): the frozen factor's size has no say."""
    rng, tau = np.random.default_rng(6), 0.7
    B, A = rng.normal(size=(4, 2)), rng.normal(size=(2, 6))
    _, frozen = regauged(B, size * A, "B")
    rows = tau * rng.normal(size=(200_000, 2)) @ frozen
    expected = tau**2 * A.T @ np.linalg.inv(A @ A.T) @ A
    np.testing.assert_allclose(rows.T @ rows / len(rows), expected, atol=0.01 * tau**2)


def test_rescaling_the_frozen_factor_changes_nothing_but_the_moving_one():
    start = adapter(7)
    larger = {name: np.float32(8) * v if ".lora_A." in name else v for name, v in start.items()}
    one, other = regauge(start, "B"), regauge(larger, "B")
    for name in one:
        expected = 8 * one[name] if ".lora_B." in name else one[name]
        np.testing.assert_allclose(other[name], expected, atol=1e-6 * float(np.abs(expected).max()))


def test_mean_of_the_moving_factor_is_the_mean_of_the_products():
    rng = np.random.default_rng(8)
    B, A = regauged(rng.normal(size=(5, 2)), rng.normal(size=(2, 6)), "B")
    sites, weights = B + rng.normal(size=(3, 5, 2)), np.array([0.5, 0.3, 0.2])
    mean = np.tensordot(weights, sites, axes=1).astype(np.float32) @ A.astype(np.float32)
    exact = np.tensordot(weights, sites @ A, axes=1)
    assert np.linalg.norm(mean - exact) <= 1e-6 * np.linalg.norm(exact)
