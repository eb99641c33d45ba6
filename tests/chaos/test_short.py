"""The short form of `make chaos`: the aggregator killed at points that stand for the others, within a minute."""

import pytest

from tests.chaos.edges import undisturbed
from tests.chaos.site import spec

POINTS = (  # of one start after another
    ("run_started:before_commit", "upload_announced:after_commit", "phase_aggregating:after_commit"),
    (
        "uploads:after_rename",
        "task_sealed:after_commit#2",
        "phase_published:before_commit",
        "run_finished:after_commit",
    ),
)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    return undisturbed(folder, lambda place: f"sqlite:///{place / 'a.db'}", spec("north", "south", rounds=1))


@pytest.mark.parametrize("points", POINTS, ids=lambda points: points[-1])
def test_a_killed_aggregator_ends_with_the_same_hash_and_counts_nothing_twice(calm, note, points):
    course = calm.killed(points[-1].replace(":", "-"), *points)
    assert course.kills == course.restarts == len(points)
    note("short", course)
