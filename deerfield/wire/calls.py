"""How calls are made: one deadline each, failures as deerfield's own errors, streams watched for silence."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc

from deerfield.wire.status import from_rpc

Item = TypeVar("Item")


def unary(method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
    """One call with a deadline.

    Raises:
        DeerfieldError: what the other side refused with; Unreachable where it did not answer.
    """
    try:
        return method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise from_rpc(error) from None


def downstream(method: Callable[..., Any], request: Any, idle_s: float) -> Iterator[Any]:
    """A server stream without a total deadline, given up after `idle_s` without a message; raises as `unary`."""
    call = method(request)
    watch = _Silence(idle_s, call.cancel)
    try:
        for message in call:
            watch.heard()
            yield message
    except grpc.RpcError as error:
        raise from_rpc(error) from None
    finally:
        watch.stop()
        call.cancel()


def upstream(method: Callable[..., Any], messages: Iterable[Item], idle_s: float) -> Any:
    """A client stream without a total deadline, given up after `idle_s` without progress; raises as `unary`."""

    def told() -> Iterator[Item]:
        for message in messages:
            watch.heard()
            yield message
        watch.heard()

    call = method.future(told())  # type: ignore[attr-defined]  # a grpc.StreamUnaryMultiCallable
    watch = _Silence(idle_s, call.cancel)
    try:
        return call.result()
    except grpc.RpcError as error:
        raise from_rpc(error) from None
    except grpc.FutureCancelledError:
        raise from_rpc(call) from None
    finally:
        watch.stop()


class _Silence:
    """Calls `give_up` once nothing has been heard for `limit_s`."""

    def __init__(self, limit_s: float, give_up: Callable[[], object]) -> None:
        self._limit_s = limit_s
        self._give_up = give_up
        self._timer = self._start()

    def _start(self) -> threading.Timer:
        timer = threading.Timer(self._limit_s, self._give_up)
        timer.daemon = True
        timer.start()
        return timer

    def heard(self) -> None:
        self._timer.cancel()
        self._timer = self._start()

    def stop(self) -> None:
        self._timer.cancel()
