"""How long the recorder waits for a tracking server that is away, by a clock that stands still between attempts."""

import threading

import pytest

from services.aggregator.rounds.patience import Patience
from services.aggregator.rounds.recorder import Recorder, Registered, TrackingAway
from tests.fakes import run_spec
from tests.integration.aggregator.conftest import open_aggregator
from tests.integration.aggregator.teaching import finish, kinds, last

SPEC = run_spec("north", rounds=1, strategy="fedavg")
QUICK = [1.0, 2.0, 4.0]


class Refused(Exception):
    """What no other attempt mends."""


class Flaky:
    """Tracking that is told events; those of the kinds in `fails` raise, while the clock is before `until`."""

    models = None

    def __init__(self, clock, fails=(), until=float("inf"), error=TrackingAway):
        self.clock, self.fails, self.until, self.error = clock, fails, until, error
        self.told, self.refused = [], threading.Event()

    def record(self, event):
        if event.kind in self.fails and self.clock() < self.until:
            self.refused.set()
            raise self.error("503 from the tracking server")
        self.told.append((event.run, event.kind))
        return Registered(name="lungs", version="1") if event.kind == "phase_published" else None


@pytest.fixture
def aggregator(tmp_path, clock):
    opened = open_aggregator(tmp_path, clock)
    yield opened
    opened.desk.store.close()


@pytest.fixture
def pauses():
    """Those that the recorder made, in seconds."""
    return []


@pytest.fixture
def record(aggregator, clock, pauses):
    def make(tracking, patience_s=600.0):
        def wait(seconds):
            pauses.append(seconds)
            clock.advance(seconds)
            return False

        return Recorder(aggregator.desk.store, tracking, clock, patience=Patience(patience_s=patience_s, wait=wait))

    return make


def test_a_tracking_server_that_comes_back_within_the_patience_costs_a_run_nothing(aggregator, clock, pauses, record):
    run = finish(aggregator, SPEC)
    record(Flaky(clock, {"run_started", "phase_published"}, until=clock() + 90)).drain()
    assert pauses == [*QUICK, 8, 16, 30, 30]
    found = kinds(aggregator, run)
    assert "tracking_failed" not in found
    assert found[-3:] == ["tracking_waits", "registered", "run_finished"]
    assert last(aggregator, run, "tracking_waits") == {
        "event": "run_started",
        "reason": "503 from the tracking server",
    }


def test_a_short_outage_is_not_worth_an_event(aggregator, clock, pauses, record):
    run = finish(aggregator, SPEC)
    record(Flaky(clock, {"phase_published"}, until=clock() + 7)).drain()
    assert pauses == QUICK
    assert kinds(aggregator, run)[-2:] == ["registered", "run_finished"]
    assert "tracking_waits" not in kinds(aggregator, run)


def test_a_record_is_given_up_when_the_patience_is_used_up_and_not_before(aggregator, clock, pauses, record):
    run = finish(aggregator, SPEC)
    record(tracking := Flaky(clock, {"phase_published"}), patience_s=100).drain()
    assert pauses == [*QUICK, 8, 16, 30, 30, 9]
    assert sum(pauses) == 100
    assert kinds(aggregator, run)[-2:] == ["tracking_failed", "run_finished"]
    assert last(aggregator, run, "tracking_failed")["event"] == "phase_published"
    assert tracking.told[-1] != (run, "run_finished"), "nothing more of the run is told"


def test_what_no_attempt_mends_is_given_up_after_the_quick_ones(aggregator, clock, pauses, record):
    run = finish(aggregator, SPEC)
    record(Flaky(clock, {"phase_published"}, error=Refused)).drain()
    assert pauses == QUICK
    assert kinds(aggregator, run)[-2:] == ["tracking_failed", "run_finished"]
    assert last(aggregator, run, "tracking_failed")["reason"] == "Refused: 503 from the tracking server"


def test_a_patience_of_seconds_keeps_the_quick_attempts(aggregator, clock, pauses, record):
    finish(aggregator, SPEC)
    record(Flaky(clock, {"phase_published"}), patience_s=0.5).drain()
    assert pauses == QUICK


def test_runs_that_end_in_one_outage_wait_together(aggregator, clock, pauses, record):
    runs = [finish(aggregator, SPEC, request) for request in ("one", "two", "three")]
    record(Flaky(clock, {"phase_published"})).drain()
    assert [kinds(aggregator, run)[-1] for run in runs] == ["run_finished"] * 3
    assert sum(pauses) == 600 + 2 * sum(QUICK)


def test_an_outage_that_begins_late_in_a_long_run_has_its_whole_patience(aggregator, clock, pauses, record):
    run = aggregator.runs.start(SPEC, "once")
    recorder = record(Flaky(clock, {"phase_published"}, until=clock() + 3600 + 500))
    recorder.drain()
    clock.advance(3600)
    assert finish(aggregator, SPEC) == run
    recorder.drain()
    assert 500 <= sum(pauses) <= 530
    assert kinds(aggregator, run)[-2:] == ["registered", "run_finished"]


def test_a_stop_does_not_wait_for_the_patience_and_the_next_start_goes_on(aggregator, clock, record):
    run = finish(aggregator, SPEC)
    tracking = Flaky(clock, {"phase_published"})
    stopped = Recorder(aggregator.desk.store, tracking, clock, patience=Patience(quick_s=(600.0,)))
    stopped.start()
    assert tracking.refused.wait(10)
    stopped.stop(10)
    assert stopped.over.done()
    assert kinds(aggregator, run)[-1] == "phase_published"
    clock.advance(3600)
    tracking.until = clock() + 60
    record(tracking).drain()  # with a patience of its own, though the event is old
    assert kinds(aggregator, run)[-2:] == ["registered", "run_finished"]
