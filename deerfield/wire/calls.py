"""How calls are made: one deadline each, failures as deerfield's own errors, streams watched for silence."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from time import monotonic
from typing import Any, TypeVar

import grpc

from deerfield.wire.channel import TURN_KEY
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
    silence = _Silence(idle_s)
    call = method(request)
    silence.ends(call.cancel)
    try:
        for message in call:
            silence.broken()
            yield message
    except grpc.RpcError as error:
        raise from_rpc(error) from None
    finally:
        silence.over()
        call.cancel()


def upstream(method: Any, messages: Iterable[Item], idle_s: float) -> Any:
    """A client stream without a total deadline, given up after `idle_s` without progress; raises as `unary`.

    Nothing is sent before the other side has said that it is the caller's turn. What `messages` itself raises comes out
    as it is.
    """
    silence, broken, made = _Silence(idle_s), [], Future[Any]()

    def told() -> Iterator[Item]:  # on a thread of gRPC's, which would keep an exception to itself
        if TURN_KEY not in dict(made.result().initial_metadata()):  # which comes in any case, also with a refusal
            return
        try:
            for message in messages:
                silence.broken()
                yield message
        except Exception as error:
            broken.append(error)
            raise

    call = method.future(told())
    made.set_result(call)
    silence.ends(call.cancel)
    try:
        return call.result()
    except grpc.RpcError as error:
        raise (broken[0] if broken else from_rpc(error)) from None
    except grpc.FutureCancelledError:
        raise from_rpc(call) from None
    finally:
        silence.over()


class _Silence:
    """Ends a call once nothing has been heard for `limit_s`; one thread, however many messages there are."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._heard_at = monotonic()
        self._over = threading.Event()

    def ends(self, end: Callable[[], object]) -> None:
        """Begins to listen; `end` is what to do about silence."""
        self.broken()
        threading.Thread(target=self._listen, args=(end,), name="silence", daemon=True).start()

    def broken(self) -> None:
        """Something was heard."""
        self._heard_at = monotonic()

    def over(self) -> None:
        """Stops listening."""
        self._over.set()

    def _listen(self, end: Callable[[], object]) -> None:
        while (left_s := self._limit_s - (monotonic() - self._heard_at)) > 0:
            if self._over.wait(left_s):
                return
        end()
