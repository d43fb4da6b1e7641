"""Work that several callers ask for at the same time."""

import asyncio
import logging
from typing import Any

import pytest

from aurum.ingestion.cassandra.single_flight import SingleFlight


async def test_work_is_done_once_for_all_that_wait() -> None:
    """Callers with the same key share one piece of work; the next one begins anew."""
    once, made = SingleFlight(), []

    async def work() -> int:
        made.append(None)
        await asyncio.sleep(0.01)
        return len(made)

    assert await asyncio.gather(*(once("a", work) for _ in range(3)), once("b", work)) == [2, 2, 2, 2]
    assert await once("a", work) == 3


async def test_caller_that_gives_up_leaves_others_their_result() -> None:
    once, go = SingleFlight(), asyncio.Event()
    first, second = (asyncio.create_task(once("a", go.wait)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await second is True
    assert first.cancelled()


@pytest.mark.parametrize("ends", ["error", "cancelled"])
async def test_work_that_fails_is_told_to_those_that_wait_only(ends: str, caplog: pytest.LogCaptureFixture) -> None:
    """Work that fails or is cancelled ends for whoever waits, and is no error of the event loop."""
    once, told = SingleFlight(), []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    inner: list[asyncio.Task[Any]] = []

    async def work() -> None:
        task = asyncio.current_task()
        assert task
        inner.append(task)
        await asyncio.sleep(0.01)
        if ends == "error":
            raise OSError("it is gone")
        await asyncio.sleep(60)

    waiting, gone = (asyncio.create_task(once("a", work)) for _ in range(2))
    await asyncio.sleep(0.001)
    gone.cancel()
    if ends == "cancelled":
        inner[0].cancel()
    with pytest.raises(OSError if ends == "error" else asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert told == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert await once("a", lambda: asyncio.sleep(0, "new")) == "new"
