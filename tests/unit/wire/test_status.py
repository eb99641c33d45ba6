from concurrent import futures

import grpc
import pytest

from deerfield import errors
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import unary
from deerfield.wire.status import REASONS, TABLE, to_status


def call_that_ends_with(act):
    """Makes a real call to a server whose handler does `act(context)`, and answers the client's error."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: act(context))
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", {"M": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(errors.DeerfieldError) as raised:
            unary(channel.unary_unary("/t/M"), b"", 5.0)
    finally:
        server.stop(None).wait()
    return raised.value


@pytest.mark.parametrize("kind", sorted(TABLE, key=lambda kind: kind.__name__))
def test_every_error_of_the_table_arrives_as_itself(kind):
    arrived = call_that_ends_with(lambda context: context.abort_with_status(to_status(kind("round 3 is closed"))))
    assert type(arrived) is kind
    assert str(arrived) == "round 3 is closed"


@pytest.mark.parametrize("kind", [errors.Superseded, errors.Unreachable])
def test_an_aggregator_without_its_database_is_asked_again(kind):
    arrived = call_that_ends_with(lambda context: context.abort_with_status(to_status(kind("taken over"))))
    assert type(arrived) is errors.Unreachable


def test_the_table_the_tree_and_the_protocol_name_the_same_refusals():
    assert set(TABLE) == {*errors.REFUSALS.values(), errors.InvalidInput, errors.NoRoom}
    assert set(REASONS) == set(pb.Reason.keys()) - {"REASON_UNSPECIFIED"}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unreachable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.Unreachable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.TooLarge),
        (grpc.StatusCode.UNIMPLEMENTED, errors.VersionMismatch),
        (grpc.StatusCode.INTERNAL, errors.Malfunction),
    ],
)
def test_a_status_without_error_info_becomes_the_nearest_error(code, kind):
    assert type(call_that_ends_with(lambda context: context.abort(code, "why"))) is kind


def test_details_that_are_no_error_info_do_not_hide_the_status():
    def act(context):
        context.set_trailing_metadata((("deerfield-note", "unrelated"),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    assert type(call_that_ends_with(act)) is errors.Unreachable


def test_a_busy_side_says_when_to_come_again():
    busy = errors.TooBusy("4 uploads are under way; the limit is 4", 7.25)
    arrived = call_that_ends_with(lambda context: context.abort_with_status(to_status(busy)))
    assert (type(arrived), arrived.retry_s) == (errors.TooBusy, 7.25)


def test_gRPCs_own_limit_on_calls_is_worth_another_try():
    words = "Concurrent RPC limit exceeded!"
    arrived = call_that_ends_with(lambda context: context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, words))
    assert type(arrived) is errors.TooBusy


@pytest.mark.parametrize("letter", ["a", "\N{DEER}"])
def test_a_sentence_that_fits_into_no_metadata_is_cut_and_keeps_its_reason(letter):
    long = errors.RunEnded(letter * 100_000)
    arrived = call_that_ends_with(lambda context: context.abort_with_status(to_status(long)))
    assert type(arrived) is errors.RunEnded
    assert str(arrived).startswith(letter * 200)
    assert str(arrived).endswith("...")


class Days:
    """A clock that sleeping moves."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self):
        return self.now


def failing(times):
    left = iter(range(times))

    def attempt():
        if next(left, None) is not None:
            raise errors.Unreachable("away")
        return "answer"

    return attempt


def test_pauses_double_up_to_the_longest_with_jitter_below():
    days = Days()
    backoff = Backoff(sleep=days.sleep, clock=days, uniform=lambda low, high: low)
    assert backoff.retry(failing(9)) == "answer"
    assert days.slept == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_pause_is_at_least_what_a_busy_side_asks_for_and_at_most_the_longest():
    days, asked = Days(), iter([0.1, 20.0, 600.0])

    def attempt():
        if (retry_s := next(asked, None)) is not None:
            raise errors.TooBusy("no room", retry_s)
        return "answer"

    backoff = Backoff(sleep=days.sleep, clock=days, uniform=lambda low, high: high)
    assert backoff.retry(attempt) == "answer"
    assert days.slept == [1, 20, 60]


def test_the_cause_of_each_pause_is_told():
    days, told = Days(), []
    failures = iter([errors.TooBusy("64 runs are running", 5.0), errors.NoRoom("the disk is full"), None])

    def attempt():
        if (failure := next(failures)) is not None:
            raise failure
        return "answer"

    backoff = Backoff(sleep=days.sleep, clock=days, tell=lambda cause, wait_s: told.append((str(cause), wait_s)))
    assert backoff.retry(attempt) == "answer"
    assert told == list(zip(["64 runs are running", "the disk is full"], days.slept, strict=True))


def test_patience_ends_with_the_error_itself():
    days = Days()
    backoff = Backoff(sleep=days.sleep, clock=days, uniform=lambda low, high: high, patience_s=10)
    with pytest.raises(errors.Unreachable, match="away"):
        backoff.retry(failing(99))
    assert days.now <= 10


def test_a_refusal_is_not_asked_again():
    calls = []

    def attempt():
        calls.append(1)
        raise errors.RoundClosed("closed")

    with pytest.raises(errors.RoundClosed):
        Backoff().retry(attempt)
    assert len(calls) == 1
