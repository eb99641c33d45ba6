"""Runs that are too large or too many are refused before anything is made for them."""

import pytest

from deerfield.errors import InvalidInput, TooBusy, TooLarge, UnknownRun
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import limits
from deerfield.wire.calls import unary
from deerfield.wire.channel import connect
from deerfield.wire.federation_pb2_grpc import RunsStub
from tests.fakes import run_spec


def test_a_run_that_is_too_large_is_refused_before_anything_is_drawn(bounded):
    server = bounded(sites=2)
    with pytest.raises(TooLarge, match="3 sites in a run; the limit is 2"):
        server.runs.start(run_spec("a", "b", "c"), "sites")

    def start(**adapter_of):
        spec = run_spec("a")
        return server.runs.start(spec.model_copy(update={"adapter": {**spec.adapter, **adapter_of}}), "adapter")

    with pytest.raises(TooLarge, match=r"4000000000000 bytes in head.huge; the limit is 268435456"):
        start(**{"head.huge": (1_000_000, 1_000_000)})
    with pytest.raises(TooLarge, match="bytes in an adapter; the limit is 4294967296"):
        start(**{f"head.{i}": (8000, 8000) for i in range(20)})
    with pytest.raises(TooLarge, match="20006 tensors in an adapter; the limit is 20000"):
        start(**{f"h{i}": (1,) for i in range(20_000)})
    with pytest.raises(TooLarge, match=r"9 dimensions in head\.deep; the limit is 8"):
        start(**{"head.deep": (1,) * 9})
    with pytest.raises(InvalidInput, match="every side is at least 1"):
        start(**{"head.odd": (-3, 2)})


def test_a_text_of_a_run_over_the_limit_is_not_parsed(bounded):
    with (
        connect(bounded().ports.listening, role="operator") as channel,
        pytest.raises(TooLarge, match="characters in a run"),
    ):
        unary(RunsStub(channel).Start, pb.StartRequest(request_id="once", spec=" " * (limits.SPEC_BYTES + 1)), 20)


def test_runs_at_once_have_a_limit_and_the_same_start_again_is_still_the_same_run(bounded):
    server = bounded(runs=1)
    run = server.runs.start(run_spec("north"), "once")
    with connect(server.ports.listening, role="operator") as channel:
        second = pb.StartRequest(request_id="second", spec=run_spec("south").canonical())
        with pytest.raises(TooBusy, match="1 runs are running; the limit is 1"):
            unary(RunsStub(channel).Start, second, 5)
        assert server.runs.start(run_spec("north"), "once") == run
        server.runs.abort(run, "make room")
        assert unary(RunsStub(channel).Start, second, 5).run


def test_a_run_that_was_paused_goes_on_once_there_is_room_for_it(bounded):
    server = bounded(runs=1)
    paused = server.runs.start(run_spec("north"), "once")
    server.runs.pause(paused, "let another run first")
    other = server.runs.start(run_spec("south"), "second")
    with connect(server.ports.listening, role="operator") as channel:
        resume = pb.ResumeRequest(run=paused)
        with pytest.raises(TooBusy, match="1 runs are running; the limit is 1: wait for one, or pause or abort one"):
            unary(RunsStub(channel).Resume, resume, 5)
        assert server.runs.get(paused).state == "PAUSED"
        assert server.runs.resume(other).state == "RUNNING"  # it runs already, and takes no more room
        server.runs.pause(other, "")
        unary(RunsStub(channel).Resume, resume, 5)
    assert server.runs.get(paused).state == "RUNNING"


def test_more_runs_than_fit_into_a_message_are_listed_page_by_page(bounded):
    server, plain = bounded(), run_spec("north")
    wide = plain.model_copy(update={"model": plain.model.model_copy(update={"base": "b" * (limits.SPEC_BYTES - 4096)})})
    started = [server.runs.start(wide, f"{number}") for number in range(2 * limits.LIST_BYTES // limits.SPEC_BYTES + 1)]
    assert {view.run for view in server.runs.list()} == set(started)
    with connect(server.ports.listening, role="operator") as channel:
        listed = unary(RunsStub(channel).List, pb.ListRequest(), 5)
        assert listed.more
        assert listed.ByteSize() <= limits.LIST_BYTES + 100
        assert not unary(RunsStub(channel).List, pb.ListRequest(after=server.runs.list()[-1].run), 5).runs
        with pytest.raises(UnknownRun):
            unary(RunsStub(channel).List, pb.ListRequest(after="nobody"), 5)


def test_more_runs_than_an_answer_has_time_for_are_listed_page_by_page(bounded):
    server = bounded(runs=limits.RUNS_PER_CALL + 1)
    started = {server.runs.start(run_spec("north"), f"{number}") for number in range(limits.RUNS_PER_CALL + 1)}
    listed = [view.run for view in server.runs.list()]
    assert set(listed) == started
    with connect(server.ports.listening, role="operator") as channel:
        first = unary(RunsStub(channel).List, pb.ListRequest(), 5)
        assert [run.run for run in first.runs] == listed[:-1]
        assert first.more
        last = unary(RunsStub(channel).List, pb.ListRequest(after=first.runs[-1].run), 5)
        assert [run.run for run in last.runs] == listed[-1:]
        assert not last.more
