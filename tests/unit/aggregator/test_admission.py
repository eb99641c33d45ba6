"""Admission, polls and pace on an event loop of their own."""

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest

from deerfield.errors import TooBusy
from services.aggregator.bounds import Bounds
from services.aggregator.rpc.admission import Admission
from services.aggregator.rpc.pace import paced
from services.aggregator.rpc.polls import Polls
from tests import virtual_time

BOUNDS = Bounds(uploads=2, queue=3)


def entered(admission, site, order):
    """A task that holds a turn until it is told to let go, and the event that tells it."""
    let_go = asyncio.Event()

    async def hold():
        async with admission.turn(site):
            order.append(site)
            await let_go.wait()

    return asyncio.create_task(hold()), let_go


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def test_turns_are_taken_in_the_order_of_asking_and_what_is_beyond_the_queue_is_told_so_at_once():
    async def main():
        admission, order = Admission(BOUNDS), []
        held = []
        for site in "abcde":
            held.append(entered(admission, site, order))
            await settle()
        assert (order, admission.admitted, admission.waiting) == (["a", "b"], 2, 3)
        with pytest.raises(TooBusy, match=r"2 uploads are under way and 3 wait; the limits are 2 and 3"):
            await admission.turn("f").__aenter__()
        for task, let_go in held:
            let_go.set()
            await task
        assert order == list("abcde")
        assert (admission.admitted, admission.waiting) == (0, 0)

    virtual_time.run(main())


def test_a_site_has_one_upload_whether_it_is_admitted_or_waits():
    async def main():
        admission, order = Admission(BOUNDS), []
        held = [entered(admission, site, order) for site in "abc"]
        await settle()
        for site in ("a", "c"):
            with pytest.raises(TooBusy, match="the limit is 1 for each site"):
                await admission.turn(site).__aenter__()
        for task, let_go in held:
            let_go.set()
            await task

    virtual_time.run(main())


def test_who_gives_up_waiting_leaves_no_trace_and_the_next_one_gets_the_turn():
    async def main():
        admission, order = Admission(Bounds(uploads=1, queue=3)), []
        (first, let_go), (second, _), (third, end) = [entered(admission, site, order) for site in "abc"]
        await settle()
        second.cancel()
        with suppress(asyncio.CancelledError):
            await second
        assert admission.waiting == 1
        let_go.set()
        await first
        await settle()
        assert order == ["a", "c"]
        end.set()
        await third

    virtual_time.run(main())


def test_nobody_waits_for_a_turn_longer_than_the_limit():
    async def main():
        admission = Admission(Bounds(uploads=1, queue=3, queue_s=60))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(admission.turn("a"))
            with pytest.raises(TooBusy, match=r"no turn came within 60 s; the limit is 1 uploads") as caught:
                await stack.enter_async_context(admission.turn("b"))
        assert caught.value.retry_s >= 1
        assert (admission.admitted, admission.waiting) == (0, 0)

    virtual_time.run(main())


def test_a_site_is_heard_for_as_long_as_it_waits_and_no_longer():
    async def main():
        heard, loop = [], asyncio.get_running_loop()
        admission = Admission(Bounds(uploads=1, queue=3), lambda site: heard.append((site, round(loop.time()))))
        (first, let_go), (second, end) = [entered(admission, site, []) for site in "ab"]
        await asyncio.sleep(3.5)
        let_go.set()
        await first
        await asyncio.sleep(10)
        assert heard == [("b", second) for second in range(4)]
        end.set()
        await second

    virtual_time.run(main())


def test_at_the_end_who_waits_is_sent_away_and_who_is_in_may_finish():
    async def main():
        admission, order = Admission(BOUNDS), []
        held = [entered(admission, site, order) for site in "abc"]
        await settle()
        admission.close()
        with pytest.raises(TooBusy, match="is ending"):
            await held[2][0]
        assert (order, admission.admitted, admission.waiting) == (["a", "b"], 2, 0)
        with pytest.raises(TooBusy, match="is ending"):
            await admission.turn("d").__aenter__()
        for task, let_go in held[:2]:
            let_go.set()
            await task
        assert admission.admitted == 0

    virtual_time.run(main())


def test_a_newer_poll_answers_the_older_one_with_nothing():
    async def main():
        polls, never = Polls(), asyncio.Event()
        older = asyncio.create_task(polls.newest("north", "run", never.wait()))
        await settle()
        other = asyncio.create_task(polls.newest("north", "another run", never.wait()))
        await settle()
        assert await polls.newest("north", "run", asyncio.sleep(0, "task")) == "task"
        assert await older is None
        assert not other.done()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):  # a caller that hangs up is no newer poll
            await other
        assert polls._waiting == {}

    virtual_time.run(main())


def chunk(number, size=1 << 20):
    return f"{number:064x}", bytes(size)


def count_until_too_slow(chunks):
    """How many chunks are taken until the stream ends for its slowness, and when that is."""

    async def main():
        count = 0

        async def taken():
            nonlocal count
            async for _ in paced(chunks(), 120.0):
                count += 1

        with pytest.raises(TooBusy, match="the limit is one chunk of 1048576 bytes in that time"):
            await taken()
        return count, asyncio.get_running_loop().time()

    return virtual_time.run(main())


def test_a_stream_that_stops_ends_after_the_idle_limit():
    async def stops():
        yield chunk(0)
        await asyncio.Event().wait()

    assert count_until_too_slow(stops) == (1, pytest.approx(120))


@pytest.mark.parametrize(
    ("crumb", "count"), [(lambda n: chunk(n, 10), 11), (lambda n: chunk(1), 22)], ids=["small ones", "the same again"]
)
def test_a_stream_that_lives_on_crumbs_ends_though_it_never_pauses_for_long(crumb, count):
    async def crumbs():
        for number in range(200):
            await asyncio.sleep(11)
            yield crumb(number)

    taken, after_s = count_until_too_slow(crumbs)
    assert taken < count
    assert after_s < 250


def test_whole_chunks_may_take_their_time_for_ever():
    async def main():
        async def slow():
            for number in range(20):
                await asyncio.sleep(110)
                yield chunk(number)

        return [len(data) async for _, data in paced(slow(), 120.0)]

    assert virtual_time.run(main()) == [1 << 20] * 20
