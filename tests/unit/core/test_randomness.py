import os
import pickle

import numpy as np
import pytest
from scipy.stats import kstest

from deerfield.randomness import SeededRandomness, SystemRandomness

ALMOST_NEVER = 1e-9  # p-value below which a sound generator would fail once in a billion runs


@pytest.mark.parametrize("source", [SystemRandomness(), SeededRandomness(1)])
def test_draws_follow_their_laws(source):
    assert kstest(source.uniform(20_000), "uniform").pvalue > ALMOST_NEVER
    assert kstest(source.normal(20_000), "norm").pvalue > ALMOST_NEVER
    assert source.uniform(3).dtype == source.normal(3).dtype == np.float64
    assert source.uniform(0).shape == (0,)


def test_uniform_has_53_bits_and_stays_below_one():
    draws = SystemRandomness().uniform(10_000)
    assert draws.max() < 1
    np.testing.assert_array_equal(draws * 2.0**53, np.floor(draws * 2.0**53))
    assert (draws * 2.0**52 % 1 == 0.5).any()


def test_no_draw_is_handed_out_twice():
    source = SystemRandomness()
    draws = np.concatenate([source.uniform(1000), source.uniform(1000), source.uniform(1000)])
    assert len(np.unique(draws)) == 3000


def test_every_instance_has_a_key_of_its_own():
    assert not np.array_equal(SystemRandomness().uniform(4), SystemRandomness().uniform(4))


def test_system_randomness_takes_no_seed_and_gives_no_key_away():
    with pytest.raises(TypeError):
        SystemRandomness(0)
    with pytest.raises(TypeError):
        pickle.dumps(SystemRandomness())


def test_a_forked_child_draws_other_numbers_than_its_parent():
    source = SystemRandomness()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, source.uniform(4).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = np.frombuffer(os.read(reading, 32))
    os.close(reading)
    os.close(writing)
    assert len(theirs) == 4
    assert not np.isin(source.uniform(4), theirs).any()


def test_normal_is_finite_and_symmetric_at_the_extreme_words():
    class Extremes(SystemRandomness):
        def _words(self, n):
            return np.array([0, 2**64 - 1], dtype=np.uint64)

    low, high = Extremes().normal(2)
    assert low == -high
    assert 8 < high < 9


def test_equal_keys_draw_equally_and_parts_of_a_key_do_not_run_together():
    np.testing.assert_array_equal(SeededRandomness(1, "a", 2).normal(5), SeededRandomness(1, "a", 2).normal(5))
    streams = [SeededRandomness(*key).uniform(4).tobytes() for key in ((12,), (1, 2), ("12",), (1, "2"), ("1", "2"))]
    assert len(set(streams)) == 5
