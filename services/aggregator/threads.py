"""Work that takes long, on threads that the end of the process does not wait for."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

Answer = TypeVar("Answer")


async def on_a_thread(compute: Callable[[], Answer], name: str) -> Answer:
    """As asyncio.to_thread, on a thread of its own; whoever waits may be cancelled, and the thread goes on."""
    done: Future[Answer] = Future()
    done.set_running_or_notify_cancel()  # whoever waits may be cancelled, this may not

    def work() -> None:
        try:
            done.set_result(compute())
        except BaseException as error:  # handed to whoever waits
            done.set_exception(error)

    here = copy_context()  # what the log says of the work, and whose call it is
    threading.Thread(target=here.run, args=(work,), name=name, daemon=True).start()
    return await asyncio.wrap_future(done)
