"""Who took part in a phase, of the events between two publications."""

from pipelines.runs.attendance import LATE, NEVER_CAME, Attendance
from pipelines.runs.result import Result
from tests import run_story
from tests.run_story import BEGAN, SITES, event, story

AT = {"round": 0, "phase": 0}


def seen(*events):
    found = Attendance(began=BEGAN)
    for each in events:
        found.seen(each)
    return found


def test_each_site_that_is_missing_has_a_reason():
    found = seen(
        *(event(0, 1.0, "task_taken", **AT, site=site) for site in ("north", "south", "west", "east")),
        event(0, 2.0, "declined", **AT, site="south", reason="ENGINE_FAULT", detail="no GPU"),
        event(0, 3.0, "left", **AT, site="west", detail="closed for the night"),
        event(0, 9.0, "update_sealed", **AT, site="north", bytes=10),
    )
    closed = found.close(("north", "south", "west", "east", "far"), ["north"])
    assert closed["sites"] == {"north": [1.0, 9.0]}
    assert closed["missing"] == {
        "south": "declined: ENGINE_FAULT: no GPU",
        "west": "left: closed for the night",
        "east": LATE,
        "far": NEVER_CAME,
    }


def test_a_site_that_was_lost_and_took_its_task_again_is_not_called_lost():
    lost = event(0, 2.0, "lost", **AT, site="north", silent_s=61.0)
    taken = event(0, 3.0, "task_taken", **AT, site="north")
    assert seen(lost).close(("north",), [])["missing"] == {"north": "lost: silent for 61 s"}
    assert seen(lost, taken).close(("north",), [])["missing"] == {"north": LATE}


def test_a_phase_begins_with_nobody():
    found = seen(event(0, 1.0, "task_taken", **AT, site="north"))
    found.close(("north",), ["north"])
    assert found.open() == {}
    assert found.close(("north",), [])["missing"] == {"north": NEVER_CAME}


def test_the_result_says_of_every_phase_who_answered_and_of_a_failed_run_where_it_stood():
    result = Result(run_story.spec(*SITES), run_story.RUN)
    for each in story(phases=2, ending="run_failed"):
        result.seen(each)
    document = result.json()
    first, second = document["rounds"]
    assert set(first["sites"]) == set(SITES)
    assert first["missing"] == {}
    assert second["missing"] == {"ucl": "declined: ENGINE_FAULT: the GPU is gone"}
    assert first["sites"]["charite"] == [4.0, 64.0]
    assert document["open"] == {"round": 9, "phase": 0, "sites": {"charite": [184.0, None]}, "missing": {}}
    assert [each["kind"] for each in document["incidents"]] == ["declined"]
    assert document["started"] == BEGAN
