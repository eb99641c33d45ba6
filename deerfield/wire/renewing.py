"""A channel that takes a renewed certificate into use while calls go on, and drains the connection of the old one."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from deerfield.certificates import Credentials
from deerfield.errors import DeerfieldError, InvalidInput, Unreachable
from deerfield.renewal import Held

LOOK_S = 2.0  # a look costs three stats

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Whom to tell what is worth a line in a log."""

    renewed: Say
    warned: Say


@dataclass(slots=True)
class _Line:
    """One connection, by one certificate."""

    channel: grpc.Channel
    calls: int = 0  # in flight
    methods: dict[tuple[str, str], Any] = field(default_factory=dict)


class Renewing(grpc.Channel):
    """Each call goes over the newest certificate; a call that has begun ends where it began."""

    def __init__(
        self,
        held: Held,
        connect: Callable[[Credentials], grpc.Channel],
        told: Told,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._held, self._connect, self._told, self._clock = held, connect, told, clock
        self._lock = threading.Lock()
        self._line, self._old = _Line(connect(held.own)), list[_Line]()
        self._looked, self._closed = clock(), False
        for warning in held.due_warnings():
            told.warned(warning)

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        """As `grpc.Channel`."""
        return _Method(self, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        """As `grpc.Channel`."""
        return _Method(self, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        """As `grpc.Channel`."""
        return _Method(self, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        """As `grpc.Channel`."""
        return _Method(self, "stream_stream", arguments, options)

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        """As `grpc.Channel`, of the connection of this moment."""
        self._line.channel.subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """As `grpc.Channel`, of the connection of this moment."""
        self._line.channel.unsubscribe(callback)

    def close(self) -> None:
        """Ends every call and connection."""
        with self._lock:
            self._closed = True
        for line in (self._line, *self._old):
            line.channel.close()

    def __enter__(self) -> "Renewing":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def take(self, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[_Line, Any]:
        """The connection for a call that begins now, and its method; `give_back` ends it."""
        self._look(self._clock())
        with self._lock:
            if self._closed:  # gRPC crashes where a method is asked of a closed channel
                raise ValueError("the channel is closed")
            taken, key = self._line, (kind, str(arguments[0]))
            if key not in taken.methods:
                taken.methods[key] = getattr(taken.channel, kind)(*arguments, **options)
            taken.calls += 1
            drained = [line for line in self._old if line.calls == 0]
            self._old = [line for line in self._old if line.calls]
        for line in drained:  # here, because a channel cannot be closed from the thread that ends its calls
            line.channel.close()
        return taken, taken.methods[key]

    def give_back(self, line: _Line) -> None:
        """Notes that a call has ended."""
        with self._lock:
            line.calls -= 1

    def judged(self, error: grpc.RpcError, line: _Line) -> grpc.RpcError | DeerfieldError:
        """The error of a call; one that only its old certificate was to blame for is worth another try."""
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            return error
        self._look(self._clock() + LOOK_S)
        return error if line is self._line else Unreachable("this certificate was renewed during the call")

    def _look(self, now: float) -> None:
        with self._lock:
            if now - self._looked < LOOK_S:
                return
            self._looked = self._clock()
            try:
                if renewed := self._held.reread():
                    self._old.append(self._line)
                    self._line = _Line(self._connect(self._held.own))
            except InvalidInput as error:  # half of a new pair: the old one serves until the other half is there
                self._told.warned(f"the certificate stays as it was: {error}")
                return
            warnings = self._held.due_warnings()
        if renewed:
            own = self._held.own
            self._told.renewed(f"the certificate of {own.peer.uri} was renewed, until {own.ends:%Y-%m-%d %H:%M} UTC")
        for warning in warnings:
            self._told.warned(warning)


@dataclass(frozen=True, slots=True)
class _Method:
    """What a stub calls: the method of whichever connection there is."""

    owner: Renewing
    kind: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def __call__(self, request: Any, **options: Any) -> Any:
        """Calls, and waits for the answer where there is one."""
        if self.kind.endswith("_stream"):
            line, method = self._take()
            return self._under_way(line, method(request, **options))
        answer, _ = self.with_call(request, **options)
        return answer

    def with_call(self, request: Any, **options: Any) -> Any:
        """Calls, and waits; the answer, and the call that it came by."""
        line, method = self._take()
        try:
            return method.with_call(request, **options)
        except grpc.RpcError as error:
            raise self.owner.judged(error, line) from None
        finally:
            self.owner.give_back(line)

    def future(self, request: Any, **options: Any) -> "_Call":
        """Calls, and does not wait."""
        line, method = self._take()
        return self._under_way(line, method.future(request, **options))

    def _take(self) -> tuple[_Line, Any]:
        return self.owner.take(self.kind, self.arguments, self.options)

    def _under_way(self, line: _Line, call: Any) -> "_Call":
        if not call.add_callback(lambda: self.owner.give_back(line)):  # it has ended already
            self.owner.give_back(line)
        return _Call(self.owner, line, call)


class _Call:
    """A call under way; what gRPC offers, with its errors judged."""

    def __init__(self, owner: Renewing, line: _Line, call: Any) -> None:
        self._owner, self._line, self._call = owner, line, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> "_Call":
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise self._owner.judged(error, self._line) from None

    def result(self, timeout: float | None = None) -> Any:
        """The answer, waited for."""
        try:
            return self._call.result(timeout)
        except grpc.RpcError as error:
            raise self._owner.judged(error, self._line) from None
