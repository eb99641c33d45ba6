"""Updates that no honest site sends: refused, recorded, and the round goes on without them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deerfield.errors import (
    AlreadySealed,
    BadAttestation,
    BadRequest,
    DigestMismatch,
    NormTooLarge,
    NotFinite,
    Refusal,
    RoundClosed,
    StaleBase,
    WrongShape,
)
from deerfield.exchange import announce
from deerfield.manifest import CHUNK_BYTES, Manifest, assemble, describe, pieces, verify
from deerfield.plan import schedule
from deerfield.runspec import Privacy
from deerfield.strategies import make
from deerfield.tensors import digest
from services.aggregator.rounds.norms import norm_limit
from tests.attesting import again
from tests.fakes import PullTrainer, TeachingSite, adapter, run_spec
from tests.integration.aggregator.audited import logged
from tests.integration.aggregator.conftest import served
from tests.integration.aggregator.teaching import kinds, last, sites

SITE = Privacy(unit="site", epsilon=3.0, clip=0.5, sample_rate=0.5)


def events(aggregator, run, kind):
    return [event.detail for event in aggregator.runs.events(run, 0) if event.kind == kind]


def with_value(update, value):
    """The update with one entry of its head changed."""
    bad = {name: array.copy() for name, array in update.delta.items()}
    bad["head.bias"][0] = value
    return again(replace(update, delta=bad))


def finish(aggregator, run, *honest):
    """The others do the rest of the run."""
    while aggregator.runs.get(run).state == "RUNNING":
        for site in honest:
            site.step()
        assert aggregator.coordinator.close_due()
    return aggregator.runs.get(run).state


def test_what_is_not_finite_is_refused_and_nobody_waits_for_its_site(aggregator):
    run = aggregator.runs.start(run_spec("east", "north", "south", quorum=2, rounds=1), "once")
    east, north, south = sites(aggregator, run, "east", "north", "south")
    assignment = south.link.next_task()
    bad = with_value(south.update(assignment), np.nan)
    for error in (NotFinite, RoundClosed):  # the task is answered by then
        with pytest.raises(error):
            south.link.send(assignment, bad)
    assert events(aggregator, run, "update_refused") == [
        {"round": 0, "phase": 0, "site": "south", "reason": reason} for reason in ("NOT_FINITE", "ROUND_CLOSED")
    ]
    assert south.link.next_task() is None  # it keeps polling, and is not waited for
    south.link.decline(assignment, "NOT_FINITE", "as an honest site would")
    assert "declined" not in kinds(aggregator, run)
    east.step()
    north.step()
    assert aggregator.coordinator.close_due() == 1
    assert last(aggregator, run, "phase_published")["sites"] == ["east", "north"]
    assert south.link.next_task() is not None  # asked again in the next phase
    assert finish(aggregator, run, east, north, south) == "FINISHED"
    changed = [entry.what for entry in logged(aggregator.desk.store, "edge")]
    assert changed.count("update_refused") == 2
    assert changed.count("task_declined") == 1


def test_a_site_that_declines_first_may_not_send_after_all(aggregator):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1), "once")
    _, south = sites(aggregator, run, "north", "south")
    assignment = south.link.next_task()
    update = south.update(assignment)
    south.link.decline(assignment, "NOT_MAPPED", "no such population here")
    with pytest.raises(RoundClosed, match=r"south has declined round 0, phase 0 \(NOT_MAPPED"):
        south.link.send(assignment, update)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_refused_update_is_the_answer_over_the_wire_too_and_the_client_may_decline_beside_it(aggregator, value):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1, rounds=1), "once")
    with served(aggregator) as server:
        north = TeachingSite("north", server.site("north", run), adapter(0))
        bad = TeachingSite("south", server.site("south", run), adapter(1))
        assignment = bad.link.next_task()
        with pytest.raises(NotFinite):
            bad.link.send(assignment, with_value(bad.update(assignment), value))
        bad.link.decline(assignment, "NOT_FINITE", "as an honest site does")
        north.step()
        watching = server.runs.watch(run)
        told = next(event for event in watching if event.kind == "phase_published")
        assert told.detail["sites"] == ["north"]


def test_chunks_that_do_not_make_up_the_announced_tensors_are_refused_and_end_the_task(aggregator):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1, rounds=1), "once")
    north, south = sites(aggregator, run, "north", "south")
    assignment = south.link.next_task()
    update, lied = south.update(assignment), {**adapter(5)}
    announced = announce(update)
    lies = describe({name: lied[name] for name in update.delta})
    mixed = Manifest(tensors=lies.tensors, digest=announced.manifest.digest, chunk_bytes=CHUNK_BYTES)
    missing = aggregator.intake.begin("south", assignment.key, replace(announced, manifest=mixed))
    for sha, data in pieces({name: lied[name] for name in update.delta}, lies, missing):
        aggregator.intake.put(missing, sha, data)
    with pytest.raises(DigestMismatch):
        aggregator.intake.commit("south", assignment.key, mixed.digest)
    assert [each["reason"] for each in events(aggregator, run, "update_refused")] == ["DIGEST_MISMATCH"]
    assert finish(aggregator, run, north, south) == "FINISHED"
    assert events(aggregator, run, "phase_published")[0]["sites"] == ["north"]


def replayed(kind, aggregator, clock, north, south):
    """What south sends to which task, and how that is refused."""
    assignment = south.link.next_task()
    if kind == "stale base":
        return StaleBase, assignment, again(replace(south.update(assignment), base="0" * 64))
    if kind == "another site's":
        return BadAttestation, assignment, replace(north.update(assignment), site="south")
    if kind == "under another key":
        first = south.update(assignment)
        south.link.send(assignment, first)
        north.step()
        aggregator.coordinator.close_due()
        return BadAttestation, south.link.next_task(), first
    if kind == "of an older phase":
        north.step()
        clock.advance(51)
        aggregator.coordinator.close_due()
        return RoundClosed, assignment, south.update(assignment)
    if kind == "another one for a sealed task":
        south.step()
        return AlreadySealed, assignment, TeachingSite("south", south.link, adapter(9)).update(assignment)
    bad = {**south.update(assignment).delta}
    bad["head.bias"] = np.zeros(7, np.float32)
    return WrongShape, assignment, again(replace(south.update(assignment), delta=bad))


REPLAYS = (
    "stale base", "another site's", "under another key", "of an older phase", "another one for a sealed task", "shape"
)  # fmt: skip


@pytest.mark.parametrize("kind", REPLAYS)
def test_what_was_sent_before_or_elsewhere_is_refused_and_recorded_once_and_the_run_finishes(aggregator, clock, kind):
    run = aggregator.runs.start(run_spec("north", "south", quorum=1, rounds=1, deadline_s=50), "once")
    north, south = sites(aggregator, run, "north", "south")
    error, assignment, update = replayed(kind, aggregator, clock, north, south)
    sealed = kinds(aggregator, run).count("update_sealed")
    for _ in range(3):
        with pytest.raises(error):
            south.link.send(assignment, update)
    (told,) = events(aggregator, run, "update_refused")
    assert (told["site"], told["reason"]) == ("south", error.reason)
    assert kinds(aggregator, run).count("update_sealed") == sealed
    while aggregator.runs.get(run).state == "RUNNING":  # at the deadlines that the bad site lets pass
        north.step()
        clock.advance(51)
        assert aggregator.coordinator.close_due() == 1
    assert aggregator.runs.get(run).state == "FINISHED"
    assert [entry.what for entry in logged(aggregator.desk.store, "edge")].count("update_refused") == 1


def test_nothing_is_written_down_for_strangers_or_for_a_run_that_is_over(aggregator):
    run = aggregator.runs.start(run_spec("north", "south"), "once")
    _, south = sites(aggregator, run, "north", "south")
    assignment = south.link.next_task()
    update = south.update(assignment)
    with pytest.raises(Refusal):
        aggregator.intake.begin("west", assignment.key, announce(update))
    with pytest.raises(BadRequest):
        aggregator.intake.commit("south", assignment.key, "0" * 64)
    aggregator.runs.abort(run, "enough")
    with pytest.raises(Refusal):
        south.link.send(assignment, update)
    assert [each["reason"] for each in events(aggregator, run, "update_refused")] == ["BAD_REQUEST"]
    assert kinds(aggregator, run)[-1] == "run_aborted"


# --- the norm ---


def private_run(**changes):
    return run_spec("north", "south", rounds=1, privacy=SITE, strategy="ffa", **changes)


def test_under_unit_site_an_update_that_was_not_clipped_is_refused_and_its_norm_is_told_to_nobody(aggregator):
    spec = private_run()
    run = aggregator.runs.start(spec, "once")
    z = schedule(spec, make(spec).declares).noise_multiplier
    north, south = sites(aggregator, run, "north", "south", noise_multiplier=z)
    assignment = south.link.next_task()
    honest = south.update(assignment)
    twice = {name: np.float32(2) * array for name, array in honest.delta.items()}
    with pytest.raises(NormTooLarge, match=r"is above 0.5, which") as refused:
        south.link.send(assignment, again(replace(honest, delta=twice)))
    assert "1" not in str(refused.value).replace("L2", "")
    assert events(aggregator, run, "update_refused") == [
        {"round": 0, "phase": 0, "site": "south", "reason": "NORM_TOO_LARGE"}
    ]
    north.step()
    assert aggregator.coordinator.close_due() == 1
    assert aggregator.runs.get(run).state == "FINISHED"


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=200)
@given(
    change=st.fixed_dictionaries(
        {
            "head.weight": arrays(np.float32, (2, 4), elements=finite),
            "head.bias": arrays(np.float32, 2, elements=finite),
        }
    ),
    clip=st.one_of(st.floats(1e-45, 1e30), st.sampled_from([1e-40, 0.5, 1.0, 1e4])),
)
def test_what_the_sites_own_mechanism_releases_is_never_refused(change, clip):
    spec = private_run()
    spec = spec.model_copy(update={"privacy": SITE.model_copy(update={"clip": clip})})
    strategy = make(spec)
    released = strategy.release(change, strategy.plan(strategy.init(adapter(0)), "north"))
    manifest = describe(released)
    chunks = dict(pieces(released, manifest, manifest.chunks))
    verify(manifest, chunks.__getitem__, norm_limit(spec, manifest))
    assert digest(assemble(manifest, chunks.__getitem__)) == manifest.digest


def test_the_teaching_mechanism_reaches_the_clip_and_not_more():
    spec = private_run()
    strategy = make(spec)
    task = strategy.plan(strategy.init(adapter(0)), "north")
    released = strategy.release(strategy.train(PullTrainer(adapter(1)), task), task)
    manifest = describe(released)
    chunks = dict(pieces(released, manifest, manifest.chunks))
    verify(manifest, chunks.__getitem__, norm_limit(spec, manifest))
    with pytest.raises(NormTooLarge):
        verify(manifest, chunks.__getitem__, 0.4999)


@pytest.mark.parametrize(("unit", "limit"), [("none", 3.0), ("none", None), ("site", 0.25), ("site", 7.0)])
def test_the_limit_is_the_clip_or_what_the_run_names_if_that_is_less(unit, limit):
    privacy = SITE if unit == "site" else Privacy(unit="none")
    spec = run_spec("north", strategy="ffa", privacy=privacy)
    spec = spec.model_copy(update={"federation": spec.federation.model_copy(update={"norm_limit": limit})})
    found = norm_limit(spec, describe(adapter(0)))
    if unit == "none":
        assert found == (limit or np.inf)
    else:
        assert found == pytest.approx(min(limit, 0.5), rel=2e-6)


def test_a_run_that_names_a_limit_keeps_it(aggregator):
    raw = run_spec("north", "south", quorum=1, rounds=1).model_dump()
    raw["federation"]["norm_limit"] = 1e3
    run = aggregator.runs.start(type(run_spec()).model_validate(raw), "once")
    north, south = sites(aggregator, run, "north", "south")
    assignment = south.link.next_task()
    with pytest.raises(NormTooLarge):
        south.link.send(assignment, with_value(south.update(assignment), 1e20))
    assert finish(aggregator, run, north, south) == "FINISHED"
    (told,) = (entry for entry in logged(aggregator.desk.store, "edge") if entry.what == "update_refused")
    assert json.loads(told.detail)["reason"] == "NORM_TOO_LARGE"


def test_a_median_run_with_one_bad_site_of_five_ends_where_the_honest_ones_agree(aggregator):
    names = ("a", "b", "c", "d", "e")
    raw = run_spec(*names, rounds=1, strategy="ffa").model_dump()
    raw["federation"]["robust"] = "median"
    run = aggregator.runs.start(type(run_spec()).model_validate(raw), "once")
    honest = sites(aggregator, run, *names)[:4]
    same = [TeachingSite(site.name, site.link, adapter(0)) for site in honest]
    bad = sites(aggregator, run, *names)[4]
    assignment = bad.link.next_task()
    bad.link.send(assignment, with_value(bad.update(assignment), -1e30))
    expected = same[0].update(same[0].link.next_task()).delta["head.bias"]
    for site in same:
        site.step()
    assert aggregator.coordinator.close_due() == 1
    model = assemble(aggregator.runs.get(run).model, aggregator.desk.published.get)
    np.testing.assert_allclose(model["head.bias"], expected, rtol=1e-6)
    assert last(aggregator, run, "phase_published")["deviation"] is None
