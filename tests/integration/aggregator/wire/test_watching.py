"""Runs as they are watched over gRPC: from any event, while they go on and when they are over."""

import threading
from contextlib import suppress

import numpy as np
import pytest

from deerfield.errors import (
    RunEnded,
    UnknownRun,
)
from tests.fakes import TeachingSite, adapter


def work(site):
    """Answers tasks until the run has ended."""
    with suppress(RunEnded):
        while True:
            site.step()


def test_two_sites_finish_a_run_that_can_be_watched_from_any_event(server, run):
    sites = [TeachingSite(name, server.site(name, run), adapter(seed)) for seed, name in enumerate(("north", "south"))]
    threads = [threading.Thread(target=work, args=(site,)) for site in sites]
    for thread in threads:
        thread.start()
    watched = list(server.runs.watch(run))
    for thread in threads:
        thread.join(10)
    assert watched[0].kind == "run_started"
    assert watched[-1].kind == "run_finished"
    kept = [event for event in watched if event.number]
    assert list(server.runs.watch(run)) == kept
    assert list(server.runs.watch(run, after=kept[3].number)) == kept[4:]
    assert list(server.runs.watch(run, after=kept[-1].number)) == []
    view = server.runs.get(run)
    assert view.state == "FINISHED"
    (last,) = server.runs.published(run, [event for event in kept if event.kind == "phase_published"][-1])
    np.testing.assert_equal(last, server.runs.model(run))
    assert [each.run for each in server.runs.list()] == [run]


def test_the_past_of_a_run_is_told_without_waiting_for_its_end(server, run, north):
    assert [event.kind for event in server.runs.past(run)] == ["run_started"]
    assignment = north.link.next_task()
    assert north.link.heartbeat(assignment, 3, 8)  # progress is not past
    assert [event.kind for event in server.runs.past(run)] == ["run_started", "task_taken"]
    server.runs.abort(run, "seen enough")
    assert server.runs.past(run) == tuple(server.runs.watch(run))
    with pytest.raises(UnknownRun):
        server.runs.past("no-such-run")


def test_progress_is_watched_while_it_happens_and_is_not_kept(server, run, north):
    assignment = north.link.next_task()
    watching = server.runs.watch(run)
    for event in watching:
        if event.kind == "task_taken":
            break
    assert north.link.heartbeat(assignment, 3, 8)
    event = next(watching)
    assert (event.number, event.kind) == (0, "progress")
    assert event.detail == {"site": "north", "steps_done": 3, "steps": 8}
    server.runs.abort(run, "seen enough")
    assert [event.kind for event in watching] == ["run_aborted"]
    assert not north.link.heartbeat(assignment, 4, 8)


def test_whoever_was_told_more_than_has_happened_hears_what_happens_next(server, run):
    """A database that a backup has replaced knows fewer events than a watcher of the one before."""
    watching = server.runs.watch(run, after=10_000)
    paused = threading.Timer(0.2, server.runs.pause, (run, "lunch"))
    paused.start()
    assert next(watching).kind == "run_paused"
    paused.join()
    server.runs.abort(run, "seen enough")
    assert [event.kind for event in watching] == ["run_aborted"]
