"""Micro-batches: answers go to whom they belong, nothing waits for nothing, and what waits has a limit."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from aurum.prediction.serving import batching
from aurum.prediction.serving.batching import BatchLimits, MicroBatcher
from aurum.runtime.errors import ResourceExhaustedError


class Work:
    """Doubles numbers, and remembers how many it was given at a time. A negative one is an error."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.gate.wait(5)
        self.sizes.append(len(items))
        if min(items) < 0:
            raise ValueError("negative")
        return [2 * item for item in items]


@pytest.fixture
async def thread() -> AsyncIterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_requests_during_a_run_form_the_next_batches(thread: ThreadPoolExecutor) -> None:
    work = Work()
    batcher = MicroBatcher[int, int](work, thread, BatchLimits(most=50))
    work.gate.clear()
    first = asyncio.create_task(batcher([0]))
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(batcher([number, number + 1000])) for number in range(1, 40)]
    await asyncio.sleep(0.05)
    work.gate.set()
    assert await first == [0]
    assert await asyncio.gather(*others) == [[2 * number, 2 * number + 2000] for number in range(1, 40)]
    assert work.sizes[0] == 1
    assert max(work.sizes) == 50
    assert len(work.sizes) == 3
    assert await batcher([]) == []
    batcher.close()


async def test_single_request_does_not_wait_for_a_batch(thread: ThreadPoolExecutor) -> None:
    work = Work()
    batcher = MicroBatcher[int, int](work, thread, BatchLimits(longest=1.0))
    for number in range(12):
        started = time.monotonic()
        assert await batcher([number]) == [2 * number]
        assert time.monotonic() - started < 0.5
        await asyncio.sleep(0.01)
    assert work.sizes == [1] * 12
    batcher.close()


async def test_error_fails_only_its_own_batch(thread: ThreadPoolExecutor) -> None:
    batcher = MicroBatcher[int, int](Work(), thread)
    with pytest.raises(ValueError, match="negative"):
        await batcher([-1])
    assert await batcher([4]) == [8]
    batcher.close()


async def test_full_queue_rejects_and_skips_cancelled_requests(thread: ThreadPoolExecutor) -> None:
    work = Work()
    batcher = MicroBatcher[int, int](work, thread, BatchLimits(most=2, waiting=3))
    work.gate.clear()
    running = asyncio.create_task(batcher([0]))
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(batcher([number])) for number in (1, 2, 3)]
    await asyncio.sleep(0.05)
    with pytest.raises(ResourceExhaustedError, match="3 predictions wait for the model, and at most 3 may wait"):
        await batcher([4])
    waiting[0].cancel()
    work.gate.set()
    assert await running == [0]
    assert await asyncio.gather(*waiting[1:]) == [[4], [6]]
    assert sum(work.sizes) == 3
    batcher.close()


async def _thread_of(batcher: MicroBatcher[int, str], count: int) -> str:
    return (await batcher(list(range(count))))[0]


async def test_short_rare_calls_run_on_the_event_loop(
    thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=lambda: now))

    def work(items: Sequence[int]) -> list[str]:
        nonlocal now
        now += 1e-5 * len(items)
        return [threading.current_thread().name for _ in items]

    async def thread_of(count: int) -> str:
        nonlocal now
        now += 1.0
        return await _thread_of(batcher, count)

    batcher = MicroBatcher[int, str](work, thread, exclusive=threading.Lock())
    here = threading.current_thread().name
    assert await thread_of(1) != here  # how long it takes is not known yet
    assert await thread_of(1) == here
    assert await thread_of(1_000_000) != here
    batcher.close()


async def test_no_call_runs_beside_an_exclusive_computation(thread: ThreadPoolExecutor) -> None:
    exclusive = threading.Lock()
    work = Work()
    batcher = MicroBatcher[int, int](work, thread, exclusive=exclusive)
    await batcher([1])
    with exclusive:
        waiting = asyncio.create_task(batcher([2]))
        await asyncio.sleep(0.02)
        assert work.sizes == [1]
    assert await waiting == [4]
    batcher.close()
