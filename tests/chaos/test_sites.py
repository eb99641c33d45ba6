"""`make chaos`: a site killed while the others work: what it had stored it sends again, else it misses the phase."""

import pytest

from tests.chaos.checks import found
from tests.chaos.consortium import Consortium
from tests.chaos.site import spec

SITES = ("east", "north", "west")
TRAINED_AGAIN = ("open:before_fsync", "open:after_fsync", "run:before_fsync", "run:after_fsync")  # nothing is reserved
MISSED = (
    "task:before_fsync",
    "task:after_fsync",
    "train",
    "vault:before_fsync",
    "vault:after_fsync",
    "vault:after_link",
    "vault:after_folder_fsync",
)
SENT_AGAIN = ("commit:before_fsync", "commit:after_fsync", "send", "sent")


def run(tmp_path, database, *, point, **options):
    asked = spec(*SITES, noise=True, rounds=1, federation={"sites": SITES, "quorum": 2})
    consortium = Consortium(tmp_path, database(tmp_path), asked, site_points={"north": point}, **options)
    course = consortium.complete()
    left = found(tmp_path, consortium.database, course.run)
    assert left.state == "FINISHED"
    published = [detail["sites"] for detail in _details(course, "phase_published")]
    return course, published


def _details(course, kind):
    return [event.detail for event in course.events if event.kind == kind]


@pytest.mark.parametrize("point", [*TRAINED_AGAIN, *SENT_AGAIN])
def test_a_site_killed_before_it_reserves_or_after_it_has_stored_is_in_the_phase(tmp_path, database, note, point):
    course, published = run(tmp_path, database, point=point)
    assert (course.kills, published) == (1, [[*SITES], [*SITES]])
    note("sites, not missed", course)


@pytest.mark.parametrize("point", MISSED)
def test_a_site_killed_between_reserving_and_storing_misses_the_phase_and_joins_the_next(
    tmp_path, database, note, point
):
    course, published = run(tmp_path, database, point=point)
    assert (course.kills, published) == (1, [["east", "west"], [*SITES]])
    (declined,) = _details(course, "declined")
    assert (declined["site"], declined["reason"]) == ("north", "ALREADY_SEALED")
    note("sites, phase missed", course)


@pytest.mark.parametrize("point", ["train", "commit:after_fsync"])
def test_a_site_that_stays_dead_holds_a_quorum_up_until_it_is_lost(tmp_path, database, note, point):
    course, published = run(tmp_path, database, point=point, stays_dead=True, flags=["--lost-after", "2"])
    assert published == [["east", "west"], ["east", "west"]]
    assert "north" in {each["site"] for each in _details(course, "lost")}  # others are silent while they wait
    note("sites, dead for good", course)


def test_aggregator_and_site_killed_in_the_same_phase(tmp_path, database, note):
    asked = spec(*SITES, noise=True, rounds=1, federation={"sites": SITES, "quorum": 2})
    consortium = Consortium(tmp_path, database(tmp_path), asked, site_points={"north": "send"})
    course = consortium.complete("upload_announced:before_commit", "phase_aggregating:after_commit")
    assert found(tmp_path, consortium.database, course.run).state == "FINISHED"
    assert course.kills == 3
    note("sites, and the aggregator", course)
