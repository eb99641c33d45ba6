"""Unit "site": how much one site can move what is published, and what hides it."""

from dataclasses import replace
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from deerfield.central import Mechanism, clipped, noise_key, noise_of, privatised
from deerfield.randomness import KeyedRandomness
from deerfield.tensors import digest, norm, shapes, trained
from deerfield.types import Spend, Task, Update
from tests.adapters import adapter

ROOT = Path(__file__).parents[3]
TASK = Task(round=2, phase=1, factors="B", epochs=1, start=adapter(0))
SCHEMA = shapes(trained(TASK.start, "B"))
SIZE = sum(int(np.prod(shape)) for shape in SCHEMA.values())
CLIP = 0.5
SPEND = Spend(unit="site", noise_multiplier=4.0, sample_rate=1.0, steps=8, clip=CLIP)
ALMOST_NEVER = 1e-9


class Silence:
    """No noise at all, so that the sum beneath it can be seen."""

    def normal(self, n):
        return np.zeros(n)


def update(site, scale=1.0, seed=1, **changes):
    delta = {name: np.float32(scale) * v for name, v in trained(adapter(seed), "B").items()}
    return Update(site=site, round=2, phase=1, base=digest(TASK.start), delta={**delta, **changes})


def published(updates, noise=None, sites=3, spend=SPEND):
    found = privatised(TASK, SCHEMA, updates, Mechanism(spend=spend, sites=sites, noise=noise or Silence()))
    assert shapes(found.delta) == SCHEMA
    return found


def flat(found):
    return np.concatenate([found.delta[name].astype(float).ravel() for name in sorted(found.delta)])


@settings(deadline=None, max_examples=60)
@given(
    others=st.lists(st.tuples(st.floats(0, 1e6, width=32), st.integers(0, 5)), max_size=4),
    scale=st.sampled_from([0.0, 1e-30, 0.01, 1.0, 1e3, 1e18, inf, nan]),
)
def test_adding_or_removing_a_site_moves_the_sum_by_at_most_the_clip(others, scale):
    sites = 5
    rest = [update(f"site{number}", *each) for number, each in enumerate(others)]
    with np.errstate(all="ignore"):
        added = update("the one", scale, 7)
    both = flat(published(rest, sites=sites)), flat(published([*rest, added], sites=sites))
    moved = sites * np.linalg.norm(both[1] - both[0])
    # what is left above it is rounding of what was noised, to the grid and to float32, and costs nothing
    assert moved <= CLIP * (1 + 1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e18])
def test_a_long_update_keeps_its_direction_and_counts_as_one_of_length_clip(scale):
    whole = flat(published([update("north", scale)], sites=1))
    assert np.linalg.norm(whole) == pytest.approx(CLIP, rel=1e-4)
    direction = np.concatenate([v.ravel() for _, v in sorted(trained(adapter(1), "B").items())])
    np.testing.assert_allclose(whole / CLIP, direction / np.linalg.norm(direction), atol=1e-4)


def test_what_a_site_releases_is_clipped_over_all_its_tensors_together():
    change = trained(adapter(3), "AB")
    assert norm(clipped(change, CLIP)) == pytest.approx(CLIP, rel=1e-6)
    assert clipped(change, norm(change) * 1.001) is change
    assert all(v.dtype == np.float32 for v in clipped(change, CLIP).values())
    broken = {**change, "head.bias": np.array([inf, 0, nan], np.float32)}
    assert norm(clipped(broken, CLIP)) == 0
    assert norm(clipped({name: 0 * v for name, v in change.items()}, CLIP)) == 0


def test_every_coordinate_carries_the_same_noise_and_whoever_answers_changes_nothing_of_it():
    sites, draws = 3, 4000
    deviation = SPEND.noise_multiplier * CLIP / sites
    empty = np.array([flat(published([], noise_of(noise_key()), sites)) for _ in range(draws)])
    assert empty.shape == (draws, SIZE)
    # 4000 draws: a deviation is known to 1.1 %, so six of those are hardly ever seen among so few coordinates
    np.testing.assert_allclose(empty.std(axis=0), deviation, rtol=0.07)
    assert kstest(empty.ravel() / deviation, "norm").pvalue > ALMOST_NEVER
    assert np.abs(np.corrcoef(empty.T) - np.eye(SIZE)).max() < 0.12
    key = noise_key()
    with_one = flat(published([update("north")], noise_of(key), sites)) - flat(published([], noise_of(key), sites))
    np.testing.assert_allclose(with_one, flat(published([update("north")], None, sites)), atol=1e-5)


def test_the_denominator_is_the_number_of_sites_of_the_run_and_never_of_those_that_answered():
    one, three = (flat(published([update("north")], sites=sites)) for sites in (1, 3))
    np.testing.assert_allclose(three, one / 3, rtol=1e-4, atol=1e-7)


def test_equal_keys_and_equal_content_give_equal_bits_and_anything_else_gives_other_noise():
    key, updates = noise_key(), [update("north"), update("south", 2.0, 4)]
    digests = {
        digest(published(order, noise_of(key, "run", "1")).delta) for order in (updates, updates[::-1]) for _ in "ab"
    }
    assert len(digests) == 1
    streams = {
        noise_of(*each).normal(4).tobytes() for each in ((key, "a", "b"), (key, "ab"), (key,), (noise_key(), "a", "b"))
    }
    assert len(streams) == 4
    assert KeyedRandomness(key).uniform(5).tobytes() == KeyedRandomness(key).uniform(5).tobytes()


@pytest.mark.parametrize("changes", [{"noise_multiplier": 0.0}, {"clip": inf}, {"clip": 0.0}])
def test_nothing_is_published_without_noise(changes):
    with pytest.raises(ValueError, match="no privacy"):
        published([update("north")], spend=replace(SPEND, **changes))


def test_nothing_but_the_central_noise_is_drawn_from_a_key_that_is_kept():
    naming = {
        str(path.relative_to(ROOT))
        for folder in ("deerfield", "services", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        if "KeyedRandomness" in path.read_text() or "noise_of(" in path.read_text()
    }
    assert naming == {"deerfield/randomness.py", "deerfield/central.py", "services/aggregator/rounds/phase.py"}
