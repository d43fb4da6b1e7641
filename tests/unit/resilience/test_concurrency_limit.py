"""The concurrency limit: bounds, criticality, queueing, waiting in threads and coroutines, and events."""

import asyncio
import threading
from typing import Any

import pytest

from aurum.resilience import ConcurrencyLimit, Criticality, LimitConfig, LimitExceededError, criticality_scope
from aurum.resilience.virtual_time import VirtualLoop
from tests.support.resilience import Clock, listening

ALARM, TELEMETRY, QUERY, BATCH = Criticality
BOUNDS = "concurrency limit x: the limit must be at least 1, not {}; queue and wait at least 0"
SHARES = "concurrency limit x: shares must be above 0 and up to 1"


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"limit": 0}, BOUNDS.format(0)),
        ({"limit": 3, "max_queued": -1}, BOUNDS.format(3)),
        ({"limit": 3, "max_wait": -0.1}, BOUNDS.format(3)),
        ({"limit": 3, "shares": (1.0, 1.0, 1.0, 0.0)}, SHARES),
        ({"limit": 3, "shares": (1.01, 1.0, 1.0, 1.0)}, SHARES),
    ],
)
def test_invalid_limit_is_rejected_with_reason(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="concurrency limit") as caught:
        ConcurrencyLimit("x", LimitConfig(**wrong))
    assert str(caught.value) == problem


def test_smallest_limit_is_accepted() -> None:
    limit = ConcurrencyLimit("x", LimitConfig(1, 0, 0.0, (1.0, 0.5, 0.5, 0.01)))
    assert (limit.name, limit.limit, limit.in_flight, limit.queued) == ("x", 1, 0, 0)
    assert [limit.try_acquire(BATCH), limit.try_acquire(ALARM)] == [True, False]
    assert ConcurrencyLimit("x", 1).config == LimitConfig(1)


def test_each_class_has_its_share_of_the_limit() -> None:
    limit = ConcurrencyLimit("x", LimitConfig(10, shares=(1.0, 0.75, 0.5, 0.3)))
    admitted = [sum(limit.try_acquire(each) for _ in range(20)) for each in (BATCH, QUERY, TELEMETRY, ALARM)]
    assert admitted == [3, 2, 2, 3]
    assert limit.in_flight == 10


def test_limit_uses_criticality_of_scope() -> None:
    limit = ConcurrencyLimit("x", LimitConfig(2, shares=(1.0, 1.0, 0.5, 0.5)))
    assert [limit.try_acquire(), limit.try_acquire()] == [True, False]
    with criticality_scope(ALARM):
        assert [limit.try_acquire(BATCH), limit.try_acquire(), limit.try_acquire()] == [False, True, False]


def test_limit_rejection_reports_limit_and_criticality() -> None:
    limit = ConcurrencyLimit("x", 2)
    assert limit.try_acquire()
    assert limit.try_acquire()
    with listening() as told:
        with pytest.raises(LimitExceededError) as caught:
            limit.acquire()
        with criticality_scope(ALARM), pytest.raises(LimitExceededError):
            limit.acquire()
    assert str(caught.value) == "x: 2 calls are in progress; the limit is 2"
    assert told == [("limit_rejection", "x", "query"), ("limit_rejection", "x", "alarm")]
    limit.release()
    assert limit.in_flight == 1
    limit.acquire()
    assert limit.in_flight == 2


def test_raised_limit_emits_event_and_admits_waiting_calls() -> None:
    loop = VirtualLoop()
    with listening() as told:
        limit = ConcurrencyLimit("x", LimitConfig(1, 5, 9.0))
        assert limit.try_acquire()
        tasks = [loop.create_task(limit.acquire_async()) for _ in range(3)]
        loop.advance(until=1.0)
        assert (limit.in_flight, limit.queued) == (1, 3)
        limit.configure(LimitConfig(3, 5, 9.0))
        loop.advance(until=1.0)
    assert [task.done() for task in tasks] == [True, True, False]
    assert (limit.in_flight, limit.queued) == (3, 1)
    assert told == [("limit_change", "x", "1"), ("limit_change", "x", "3")]
    tasks[2].cancel()
    loop.advance()
    assert limit.queued == 0


def test_limit_events_go_only_to_given_emitter() -> None:
    told: list[tuple[str, str, str]] = []
    with listening() as all_told:
        limit = ConcurrencyLimit("x", 4, emit=lambda kind, policy, value="": told.append((kind, policy, value)))
    assert limit.limit == 4
    assert told == [("limit_change", "x", "4")]
    assert all_told == []


@pytest.mark.parametrize(("given", "waits"), [(None, 2.0), (0.5, 0.5), (9.0, 2.0), (0.0, 0.0)])
def test_shorter_of_two_waits_applies(given: float | None, waits: float) -> None:
    loop = VirtualLoop()
    limit = ConcurrencyLimit("x", LimitConfig(1, 5, 2.0))
    assert limit.try_acquire()
    with pytest.raises(LimitExceededError):
        loop.run(limit.acquire_async(given))
    assert loop.time() == waits
    assert (limit.in_flight, limit.queued) == (1, 0)


@pytest.mark.parametrize(("given", "most"), [(None, 0.002), (0.001, 60.0)])
def test_thread_is_refused_after_its_wait(given: float | None, most: float) -> None:
    limit = ConcurrencyLimit("x", LimitConfig(1, 5, most))
    assert limit.try_acquire()
    with pytest.raises(LimitExceededError, match="x: 1 calls"):
        limit.acquire(given)
    assert (limit.in_flight, limit.queued) == (1, 0)


def test_waiting_thread_gets_released_slot() -> None:
    limit = ConcurrencyLimit("x", LimitConfig(1, 5, 30.0))
    assert limit.try_acquire()
    got: list[bool] = []

    def work() -> None:
        with criticality_scope(BATCH):
            limit.acquire(30.0)
        got.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    while not limit.queued:
        thread.join(0.001)
    assert not got
    limit.release()
    thread.join(10.0)
    assert got == [True]
    assert (limit.in_flight, limit.queued) == (1, 0)


def arrivals(limit: ConcurrencyLimit, loop: VirtualLoop, classes: list[Criticality]) -> list[asyncio.Task[None]]:
    tasks = []
    for each in classes:
        tasks.append(loop.create_task(limit.acquire_async(criticality=each)))
        loop.advance(until=loop.time())
    return tasks


def states(tasks: list[asyncio.Task[None]]) -> str:
    """For each w if it waits, i if it is in, r if it was refused."""
    return "".join("w" if not task.done() else "r" if task.exception() else "i" for task in tasks)


def test_most_critical_waiting_call_is_served_first() -> None:
    loop = VirtualLoop()
    limit = ConcurrencyLimit("x", LimitConfig(1, 9, 9.0))
    assert limit.try_acquire()
    tasks = arrivals(limit, loop, [BATCH, QUERY, ALARM, QUERY, TELEMETRY])
    order = []
    for _ in range(5):
        limit.release()
        loop.advance(until=loop.time())
        order.append(states(tasks))
    assert order == ["wwiww", "wwiwi", "wiiwi", "wiiii", "iiiii"]
    assert (limit.in_flight, limit.queued) == (1, 0)


def test_full_queue_evicts_latest_least_critical_call() -> None:
    loop = VirtualLoop()
    limit = ConcurrencyLimit("x", LimitConfig(1, 3, 9.0))
    assert limit.try_acquire()
    with listening() as told:
        tasks = arrivals(limit, loop, [QUERY, BATCH, BATCH, TELEMETRY, ALARM, QUERY, BATCH, ALARM, TELEMETRY])
    assert states(tasks) == "rrrwwrrwr"
    assert limit.queued == 3
    refused = [value for kind, _, value in told if kind == "limit_rejection"]
    assert refused == ["batch", "batch", "query", "batch", "query", "telemetry"]
    loop.advance(until=20.0)
    assert states(tasks) == "r" * 9
    assert (limit.in_flight, limit.queued) == (1, 0)


def test_waiting_call_precedes_its_class_and_below() -> None:
    loop = VirtualLoop()
    limit = ConcurrencyLimit("x", LimitConfig(4, 9, 9.0, (1.0, 0.5, 0.5, 0.5)))
    for _ in range(2):
        assert limit.try_acquire(QUERY)
    (task,) = arrivals(limit, loop, [TELEMETRY])
    assert limit.try_acquire(ALARM), "a higher class passes by"
    limit.release()
    limit.release()  # the waiting one gets it
    loop.advance(until=loop.time())
    assert states([task]) == "i"
    assert limit.in_flight == 2
    assert [limit.try_acquire(each) for each in (TELEMETRY, QUERY, BATCH)] == [False] * 3
    limit.release()
    assert limit.try_acquire(BATCH)


@pytest.mark.parametrize("granted", [False, True])
def test_cancelled_wait_passes_its_slot_on(granted: bool) -> None:
    loop = VirtualLoop()
    limit = ConcurrencyLimit("x", LimitConfig(1, 9, 9.0))
    assert limit.try_acquire()
    first, second = arrivals(limit, loop, [QUERY, QUERY])
    if granted:
        limit.release()  # it is the first one's, which has not run yet
    first.cancel()
    if not granted:
        loop.advance(until=loop.time())
        assert limit.queued == 1
        limit.release()
    loop.advance(until=loop.time())
    assert first.cancelled()
    assert second.done()
    assert (limit.in_flight, limit.queued) == (1, 0)


class Told:
    """An algorithm that notes what it is told, and has the limit that it is given."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.next = limit
        self.told: list[tuple[float, float, int, bool]] = []

    def ended(self, now: float, seconds: float, in_flight: int, dropped: bool) -> bool:
        self.told.append((now, seconds, in_flight, dropped))
        changed = int(self.next) != int(self.limit)
        self.limit = self.next
        return changed


def test_adaptive_limit_receives_ended_calls() -> None:
    clock, algorithm = Clock(50.0), Told(3.9)
    limit = ConcurrencyLimit("x", LimitConfig(99, algorithm=algorithm), clock)
    assert limit.limit == 3
    assert [limit.try_acquire() for _ in range(4)] == [True, True, True, False]
    limit.release(0.25)
    clock.now = 51.0
    limit.release(0.5, dropped=True)
    limit.release()
    assert algorithm.told == [(50.0, 0.25, 3, False), (51.0, 0.5, 2, True)]
    assert limit.in_flight == 0


def test_growing_limit_admits_waiting_calls_and_emits_event() -> None:
    loop, algorithm = VirtualLoop(), Told(1.0)
    limit = ConcurrencyLimit("x", LimitConfig(1, 5, 9.0, (1.0, 1.0, 0.5, 0.5), algorithm), loop.time)
    assert limit.try_acquire()
    with listening() as told:
        tasks = arrivals(limit, loop, [ALARM, ALARM, ALARM, QUERY])
        algorithm.next = 3.2
        limit.release(0.1)
        loop.advance(until=loop.time())
        assert states(tasks) == "iiiw"
        algorithm.next = 3.8
        limit.release(0.1)
        limit.release(0.1)
        loop.advance(until=loop.time())
    assert told == [("limit_change", "x", "3")]
    assert states(tasks) == "iiiw", "half of three is one"
    limit.release(0.1)
    loop.advance(until=loop.time())
    assert states(tasks) == "iiii"
    assert (limit.in_flight, limit.queued) == (1, 0)


def test_reconfigured_limit_starts_at_limit_of_algorithm() -> None:
    limit = ConcurrencyLimit("x", LimitConfig(5))
    limit.configure(LimitConfig(7, algorithm=Told(2.5)))
    assert limit.limit == 2
    limit.configure(LimitConfig(7))
    assert limit.limit == 7
    assert limit.try_acquire()
    limit.release(0.5)  # a fixed limit does not look at it
    assert limit.in_flight == 0
