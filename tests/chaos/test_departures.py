"""`make chaos`: the edges that no run without trouble passes: sites that decline, leave or are lost, runs that end."""

import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from deerfield.wire.channel import connect
from deerfield.wire.client import RunsClient, SiteClient
from tests.chaos.consortium import PATIENT, Aggregator, Course
from tests.chaos.test_edges import KINDS
from tests.fakes import TeachingSite, adapter, run_spec

SITES = ("east", "north", "south", "west")
TROUBLE = {"task_declined", "site_left", "site_lost", "site_back", "run_failed", "run_aborted"}
WAIT_S = 120.0


def until(holds):
    """Waits, in the calls themselves, until something holds."""
    end = time.monotonic() + WAIT_S
    while not (answer := holds()):
        assert time.monotonic() < end, "waited in vain"
    return answer


def story(aggregator):
    """Three runs: one from which sites decline, leave, and are lost, one that so fails, and one that is aborted."""
    with ExitStack() as stack:
        runs = RunsClient(stack.enter_context(connect(aggregator.address, role="operator")), backoff=PATIENT)

        def site(name, run):
            channel = stack.enter_context(connect(aggregator.address, role="site", site=name))
            link = SiteClient(channel, run=run, backoff=PATIENT)
            link.hello()
            return TeachingSite(name, link, adapter(SITES.index(name)))

        spec = run_spec(*SITES, rounds=1, quorum=2, strategy="fedavg")
        run = runs.start(spec, "trouble")
        east, north, south, west = (site(name, run) for name in SITES)
        lost = west.link.next_task()
        east.link.decline(until(east.link.next_task), "NOT_MAPPED", "no such population here")
        north.link.leave(run, "maintenance")
        assert any(event.kind == "lost" and event.detail["site"] == "west" for event in runs.watch(run))
        assert until(west.link.next_task).key == lost.key
        west.link.send(lost, west.update(lost))
        until(south.step)
        failing = runs.start(run_spec(*SITES[:2], rounds=1), "fails")
        declining = site("east", failing)
        declining.link.decline(until(declining.link.next_task), "BUDGET_EXHAUSTED", "")
        aborted = runs.start(run_spec("north"), "aborted")
        runs.abort(aborted, "enough")
        told = {each: list(runs.watch(each)) for each in (run, failing, aborted)}
        model = runs.get(run).model.digest
    return model, [_plain(told[each]) for each in (run, failing, aborted)]


def _plain(events):
    """What happened, but for who else was silent meanwhile: everything else happens once."""
    kept = Counter(
        (event.kind, str(event.detail.get("site"))) for event in events if event.kind not in ("lost", "progress")
    )
    assert max(kept.values()) == 1, kept
    return set(kept)


def told(tmp_path, name, database, point):
    """The story over an aggregator that dies at `point` and is started again."""
    folder = tmp_path / name
    folder.mkdir()
    aggregator, course, box = Aggregator(folder, database(folder), ["--lost-after", "1"]), Course(), {}

    def tell():
        try:
            box["told"] = story(aggregator)
        except BaseException as error:
            box["error"] = error

    began = time.monotonic()
    try:
        aggregator.start(point)
        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        while teller.is_alive():
            assert time.monotonic() - began < 300
            if (code := aggregator.died()) is not None:
                assert code == -signal.SIGKILL, aggregator.log()
                aggregator.kill()
                aggregator.start()
                course.kills, course.restarts = course.kills + 1, course.restarts + 1
            teller.join(0.05)
    finally:
        aggregator.kill()
    if "error" in box:
        raise AssertionError(aggregator.log()) from box["error"]
    course.seconds = time.monotonic() - began
    return box["told"], course


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_kill_at_every_edge_of_trouble_changes_nothing(database, tmp_path, note, subtests):
    points = tmp_path / "points"
    calm, _ = told(tmp_path, "calm", database, f"record:{points}")
    passed = set(points.read_text().split())
    assert {point.partition(":")[0] for point in passed} == TROUBLE | KINDS
    for point in sorted(point for point in passed if point.partition(":")[0] in TROUBLE):
        with subtests.test(point=point):
            found, course = told(tmp_path, point.replace(":", "-"), database, point)
            assert course.kills == 1
            course.same = found[0] == calm[0]
            assert found == calm
            note("edges of trouble", course)
