"""How often a caller may call, how much at once, and how long its message may take: asked before a byte is read.

Every method is served as one that takes a stream, which a caller cannot see: so the message of a call that is refused
is never read, and one that does not come ends the call.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from deerfield.errors import BadRequest, NotMember, TooBusy
from services.aggregator.bounds import Bounds
from services.aggregator.rpc.handlers import Details, Handler, Proceed, streamed
from services.aggregator.rpc.identity import Context, Identify
from services.aggregator.rpc.log_context import log_context
from services.aggregator.rpc.translation import abort

BUCKETS = (
    16_384  # callers times kinds of calls to remember; whoever was silent longest is forgotten, with a full bucket
)
WATCH = "/deerfield.wire.v1.Runs/Watch"
HEALTH = "/grpc.health.v1.Health/"  # whoever tries a site's certificate is not the site at work
Caller: TypeAlias = tuple[str, str]  # role, and name or host


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rates:
    """Token buckets: `burst` calls at once, `rate` a second in the long run, for each caller and kind of call."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float], size: int = BUCKETS) -> None:
        self._bounds = bounds
        self._clock = clock
        self._size = size
        self._buckets: OrderedDict[tuple[Caller, str], _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: Caller, call: str) -> None:
        """Takes a token; raises TooBusy, saying when there will be one, where there is none."""
        rate, burst, now = self._bounds.rate, self._bounds.burst, self._clock()
        bucket = self._buckets.setdefault((caller, call), _Bucket(burst, now))
        self._buckets.move_to_end((caller, call))
        if len(self._buckets) > self._size:
            self._buckets.popitem(last=False)
        bucket.tokens = min(burst, bucket.tokens + max(0.0, now - bucket.at) * rate)
        bucket.at = now
        if bucket.tokens < 1:
            raise TooBusy(
                f"more than {burst} calls of {call.rpartition('/')[2]} at once, and {rate:g} a second after that; the "
                "limit is for each caller",
                (1 - bucket.tokens) / rate,
            )
        bucket.tokens -= 1


class Throttle(grpc.aio.ServerInterceptor):
    """Refuses with TOO_BUSY what is more than the bounds allow; `heard` is told each site that calls, even so."""

    def __init__(
        self, bounds: Bounds, identify: Identify, clock: Callable[[], float], heard: Callable[[str], None]
    ) -> None:
        self._bounds = bounds
        self._identify = identify
        self._heard = heard
        self._rates = Rates(bounds, clock)
        self._calls: Counter[Caller] = Counter()
        self._watches: Counter[Caller] = Counter()

    async def intercept_service(self, continuation: Proceed, handler_call_details: Details) -> Handler:
        """The handler of the call, behind the bounds."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        call = handler_call_details.method
        return streamed(handler, _Bounded(self, call, handler.request_streaming, self._bounds.request_s))

    @contextmanager
    def admitted(self, call: str, context: Context) -> Iterator[str]:
        """Counts the call while the block runs, and hands it the name of the site; raises TooBusy without room."""
        caller = self._caller(context)
        site = _site(caller)
        if site and not call.startswith(HEALTH):
            self._heard(site)
        self._check(self._calls.total(), self._bounds.calls, "calls are under way")
        self._check(self._calls[caller], self._bounds.calls_each, "calls of yours are under way")
        if call == WATCH:
            self._check(self._watches[caller], self._bounds.watches_each, "Watch streams of yours are open")
        self._rates.take(caller, call)
        counters = (self._calls, self._watches) if call == WATCH else (self._calls,)
        for counter in counters:
            counter[caller] += 1
        try:
            yield site
        finally:
            for counter in counters:
                counter[caller] -= 1
                if not counter[caller]:
                    del counter[caller]

    def site(self, context: Context) -> str:
        """The site that calls; empty for anybody else."""
        return _site(self._caller(context))

    def _check(self, count: int, limit: int, what: str) -> None:
        if count >= limit:
            raise TooBusy(f"{count} {what}; the limit is {limit}")

    def _caller(self, context: Context) -> Caller:
        try:
            identity = self._identify(context)
        except NotMember:  # without TLS somebody may call without a name: health probes, and tools
            return "", context.peer().rpartition(":")[0]
        return identity.role, identity.site or identity.name


def _site(caller: Caller) -> str:
    role, name = caller
    return name if role == "site" else ""


@dataclass(frozen=True, slots=True)
class _Bounded:
    """The guard of one method."""

    throttle: Throttle
    call: str
    streams: bool  # whether the method itself takes a stream
    request_s: float

    def one(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
        """Asks for room, then reads, then calls."""

        async def bounded(messages: AsyncIterator[Any], context: Context) -> Any:
            try:
                with self.throttle.admitted(self.call, context) as site:
                    request = await self._read(messages)
                    with log_context(self.call, request, site):
                        return await behaviour(request, context)
            except (TooBusy, BadRequest) as error:
                await self._refuse(context, error)

        return bounded

    def many(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[[Any, Context], AsyncIterator[Any]]:
        """As `one`, for a stream of replies."""

        async def bounded(messages: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            try:
                with self.throttle.admitted(self.call, context) as site:
                    request = await self._read(messages)
                    with log_context(self.call, request, site):
                        async for reply in behaviour(request, context):
                            yield reply
            except (TooBusy, BadRequest) as error:
                await self._refuse(context, error)

        return bounded

    async def _refuse(self, context: Context, error: TooBusy | BadRequest) -> None:
        with log_context(self.call, None, self.throttle.site(context)):
            await abort(context, self.call.rpartition("/")[2], error)

    async def _read(self, messages: AsyncIterator[Any]) -> Any:
        """The message of a call that has one, or the stream itself."""
        if self.streams:
            return messages
        try:
            async with asyncio.timeout(self.request_s):
                return await anext(aiter(messages))
        except TimeoutError:
            raise TooBusy(f"the call's message did not come within {self.request_s:g} s") from None
        except StopAsyncIteration:
            raise BadRequest("the call ended without its message") from None
