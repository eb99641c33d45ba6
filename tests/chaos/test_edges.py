"""`make chaos`: the aggregator killed at every named edge, over each database, with and without noise."""

import re

import pytest

from tests import s3
from tests.chaos.edges import undisturbed
from tests.chaos.site import spec

BUCKET = {  # that a run over a bucket passes, of each kind of blob; a kill at `#2` of these is in mid run
    f"{kind}:{point}" for kind in ("uploads", "published") for point in ("before_part", "after_put", "after_stat")
}
SITES = ("east", "north", "west")
KINDS = {  # that a run without trouble passes: those that a list of points must have, or it is not the list of all
    "run_started", "phase_open", "task_taken", "phase_collecting", "key_pinned", "head_recorded", "upload_announced",
    "upload_sealed", "task_sealed", "phase_aggregating", "phase_published", "run_finished", "cursor_moved", "uploads",
    "published", "site_reported",
}  # fmt: skip


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_kill_at_every_named_edge_changes_no_bit(database, tmp_path, note, request, subtests):
    calm = undisturbed(tmp_path, database, spec(*SITES, rounds=1))
    assert {point.partition(":")[0] for point in calm.points} == KINDS
    kind = request.node.callspec.params["database"]
    for point, times in calm.points.items():
        for each in (point, f"{point}#2") if times > 1 else (point,):
            with subtests.test(point=each):
                course = calm.killed(re.sub(r"\W", "-", each), each)
                assert (course.kills, course.restarts) == (1, 1)
                note(f"every edge, {kind}{', second time' if '#' in each else ''}", course)


@pytest.mark.parametrize("times", ["", "#2"], ids=["first", "second"])
def test_a_kill_inside_a_put_into_a_bucket_changes_no_bit(database, tmp_path, note, subtests, times):
    with s3.serving() as server:
        asked = spec("north", "south", rounds=1)
        how = {"bucket": lambda: server.url(server.bucket()), "environment": s3.ENVIRONMENT}
        calm = undisturbed(tmp_path, database, asked, **how)
        assert {point for point in calm.points if point.startswith(("uploads:", "published:"))} == BUCKET
        for point in sorted(BUCKET):
            with subtests.test(point=point):
                course = calm.killed(re.sub(r"\W", "-", point), f"{point}{times}")
                assert (course.kills, course.restarts) == (1, 1)
                note("every edge of a put into a bucket", course)
