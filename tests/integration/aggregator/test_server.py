"""What a server does about its parts that fail."""

import asyncio
import gc
from concurrent.futures import Future
from types import SimpleNamespace

from services.aggregator.server import _until_over


def test_a_recorder_that_fails_after_the_server_has_begun_to_end_is_no_traceback():
    reported = []

    async def ends() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        recorder = SimpleNamespace(over=Future())
        waiting = asyncio.create_task(_until_over(recorder))
        await asyncio.sleep(0)
        waiting.cancel()  # as the server does when its driver has failed
        await asyncio.sleep(0)
        recorder.over.set_exception(RuntimeError("the database failed"))
        await asyncio.sleep(0.01)
        del waiting, recorder
        gc.collect()

    asyncio.run(ends())
    assert reported == []
