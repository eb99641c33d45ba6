"""Gradients that are clipped one by one: what the engines are held against."""

import torch

from services.client.training.mechanism import clip_factors


def norm(gradients):
    return torch.cat([g.flatten() for g in gradients]).norm()


def norms(each):
    return torch.stack([norm(one) for one in each])


def clipped(each, clip):
    scales = clip_factors(norms(each), clip)
    return [sum(c * one[k] for c, one in zip(scales, each, strict=True)) for k in range(len(each[0]))]


def assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).norm()) <= tolerance * float(other.norm())
