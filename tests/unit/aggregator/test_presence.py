"""What the aggregator remembers of who was heard, and of when a phase last got on."""

from deerfield.exchange import Key
from services.aggregator.rounds.presence import Presence

KEY = Key(run="r", incarnation=1, round=0, phase=0)
NEXT = Key(run="r", incarnation=1, round=0, phase=1)


def test_a_phase_that_is_not_known_begins_when_it_is_first_looked_at():
    presence = Presence()
    assert presence.watched(KEY, 10.0).moved_at == 10.0
    presence.moved(KEY, 15.0)
    assert (presence.watched(KEY, 20.0).since, presence.watched(KEY, 20.0).moved_at) == (10.0, 15.0)
    assert presence.watched(NEXT, 30.0).moved_at == 30.0
    assert presence.is_open(NEXT)
    assert not presence.is_open(KEY)


def test_a_run_that_stood_still_by_order_begins_anew_when_it_goes_on():
    presence = Presence()
    presence.moved(KEY, 10.0)
    presence.watch_only(set())
    assert presence.watched(KEY, 1e6).moved_at == 1e6
    presence.watch_only({"r"})
    assert presence.watched(KEY, 2e6).moved_at == 1e6


def test_only_steps_beyond_the_furthest_are_progress():
    presence = Presence()
    told = [presence.report(KEY, "north", steps, 9) for steps in (0, 0, 3, 2, 3, 4)]
    assert told == [True, False, True, False, False, True]
    assert presence.progress("r") == {"north": (4, 9)}
    presence.forget("r")
    assert presence.report(KEY, "north", 0, 9)


def test_after_a_restart_nobody_is_silent_for_what_nobody_could_hear():
    presence = Presence()
    presence.saw("north", 10.0)
    presence.watched(KEY, 10.0)
    presence.restart()
    assert presence.last_seen("north", 500.0) == 500.0
    assert presence.watched(KEY, 500.0).since == 500.0
