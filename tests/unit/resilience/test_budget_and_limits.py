"""Retry budgets and concurrency limits: reference models, cancellation, criticality, and adaptive limits under load."""

import asyncio
import math
import random
import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aurum.resilience import (
    ConcurrencyLimit,
    Criticality,
    LimitConfig,
    LimitExceededError,
    RetryBudget,
    criticality_scope,
)
from aurum.resilience.limit_algorithms import Aimd, LimitAlgorithm, Vegas
from aurum.resilience.virtual_time import VirtualLoop


class BudgetMachine(RuleBasedStateMachine):
    """Over any history no more is granted than each second's larger one of floor and share, and what was saved."""

    @initialize(ratio=st.sampled_from([0.0, 0.1, 0.2, 1.0]), floor=st.sampled_from([0.0, 1.0, 5.0]))
    def begin(self, ratio: float, floor: float) -> None:
        self.now = 0.0
        self.budget = RetryBudget("m", ratio, floor, capacity=20.0, clock=lambda: self.now)
        self.calls: dict[int, int] = {}
        self.granted = 0

    @rule(count=st.integers(1, 40))
    def deposit(self, count: int) -> None:
        for _ in range(count):
            self.budget.deposit()
        second = math.floor(self.now)
        self.calls[second] = self.calls.get(second, 0) + count

    @rule(count=st.integers(1, 30))
    def withdraw(self, count: int) -> None:
        self.granted += sum(self.budget.withdraw() for _ in range(count))

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 7.0]))
    def pass_time(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 6)

    @invariant()
    def never_too_much(self) -> None:
        if not hasattr(self, "budget"):
            return
        earned = sum(
            max(self.budget.floor, self.budget.ratio * self.calls.get(second, 0))
            for second in range(math.floor(self.now) + 1)
        )
        assert self.granted <= earned + 1e-6
        assert 0.0 <= self.budget.tokens <= 20.0


BudgetMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestBudgetMachine = BudgetMachine.TestCase


def test_retry_budget_limits_amplification_of_an_outage() -> None:
    now = [0.0]
    budget = RetryBudget("outage", 0.2, 1.0, clock=lambda: now[0])
    retries = 0
    for _ in range(10_000):
        now[0] += 0.002
        budget.deposit()
        retries += budget.withdraw() + budget.withdraw()
    assert retries <= 2000


class LimitMachine(RuleBasedStateMachine):
    """Calls of all classes come, wait, are cancelled and end; nobody is let in above the ceiling of its class, nobody
    waits beside a free place, and every place comes back."""

    @initialize(limit=st.integers(1, 5), queue=st.integers(0, 4), shares=st.booleans())
    def begin(self, limit: int, queue: int, shares: bool) -> None:
        config = LimitConfig(limit, queue, 1000.0, (1.0, 0.8, 0.6, 0.4) if shares else (1.0, 1.0, 1.0, 1.0))
        self.loop = VirtualLoop()
        self.limit = ConcurrencyLimit("m", config, self.loop.time)
        self.ceilings = [max(1, int(limit * share)) for share in config.shares]
        self.held = 0
        self.waiting: list[tuple[Criticality, asyncio.Task[None]]] = []

    @rule(criticality=st.sampled_from(Criticality))
    def arrive(self, criticality: Criticality) -> None:
        before = self.held
        task = self.loop.create_task(self.limit.acquire_async(criticality=criticality))
        self.waiting.append((criticality, task))
        self.settle()
        if task.done() and task.exception() is None:
            assert before < self.ceilings[criticality]

    @precondition(lambda self: self.held)
    @rule()
    def end(self) -> None:
        first = min((criticality for criticality, _ in self.waiting), default=None)
        self.limit.release()
        self.held -= 1
        admitted = self.settle()
        if first is not None and self.held < self.ceilings[first]:
            assert not admitted or min(admitted) == first  # the most critical first

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 100))
    def cancel(self, which: int) -> None:
        self.waiting[which % len(self.waiting)][1].cancel()
        self.settle()

    @rule(limit=st.integers(1, 5))
    def reconfigure(self, limit: int) -> None:
        config = self.limit.config
        self.limit.configure(LimitConfig(limit, config.max_queued, config.max_wait, config.shares))
        self.ceilings = [max(1, int(limit * share)) for share in config.shares]
        self.settle()

    def settle(self) -> list[Criticality]:
        self.loop.advance(until=self.loop.time())
        admitted = []
        for criticality, task in list(self.waiting):
            if task.done():
                self.waiting.remove((criticality, task))
                if not task.cancelled() and task.exception() is None:
                    self.held += 1
                    admitted.append(criticality)
        return admitted

    @invariant()
    def places_are_accounted_for(self) -> None:
        if hasattr(self, "limit"):
            assert self.limit.in_flight == self.held
            assert self.limit.queued == len(self.waiting) <= self.limit.config.max_queued
            for criticality, _ in self.waiting:
                assert self.held >= self.ceilings[criticality]

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for _, task in self.waiting:
                task.cancel()
            self.loop.advance()


LimitMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestLimitMachine = LimitMachine.TestCase


def test_wait_for_limit_times_out() -> None:
    loop = VirtualLoop()

    async def main() -> float:
        limit = ConcurrencyLimit("w", LimitConfig(1, 5, 0.25), loop.time)
        assert limit.try_acquire()
        with pytest.raises(LimitExceededError, match="the limit is 1"):
            await limit.acquire_async()
        assert limit.queued == 0
        return loop.time()

    assert loop.run(main()) == 0.25


def test_full_queue_evicts_less_critical_call() -> None:
    loop = VirtualLoop()

    async def main() -> list[str]:
        limit = ConcurrencyLimit("q", LimitConfig(1, 1, 10.0), loop.time)
        assert limit.try_acquire()
        ended: list[str] = []

        async def call(criticality: Criticality) -> None:
            with criticality_scope(criticality):
                try:
                    await limit.acquire_async()
                    ended.append(f"{criticality.name} in")
                except LimitExceededError:
                    ended.append(f"{criticality.name} out")

        tasks = []
        for criticality in (Criticality.BATCH, Criticality.ALARM, Criticality.QUERY):
            tasks.append(asyncio.create_task(call(criticality)))
            await asyncio.sleep(0)
        limit.release()
        await asyncio.gather(*tasks)
        return ended

    assert sorted(loop.run(main())) == ["ALARM in", "BATCH out", "QUERY out"]


def test_threads_never_exceed_shared_limit() -> None:
    limit = ConcurrencyLimit("t", LimitConfig(3, 100, 30.0))
    most, now, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal most, now
        for _ in range(20):
            limit.acquire()
            with lock:
                now += 1
                most = max(most, now)
            with lock:
                now -= 1
            limit.release()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 3
    assert (limit.in_flight, limit.queued) == (0, 0)


async def test_cancelled_waits_leak_no_slots() -> None:
    limit = ConcurrencyLimit("c", LimitConfig(2, 1000, 30.0))
    chance = random.Random(3)

    async def call() -> None:
        await limit.acquire_async()
        try:
            await asyncio.sleep(0)
        finally:
            limit.release()

    for _ in range(100):
        tasks = [asyncio.create_task(call()) for _ in range(20)]
        await asyncio.sleep(0)
        for task in chance.sample(tasks, 15):
            task.cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (limit.in_flight, limit.queued) == (0, 0)


def serve(algorithm: LimitAlgorithm, servers: int, arrivals_per_second: float, seconds: float) -> dict[str, Any]:
    """A simulated target: `servers` calls at a time take 20 ms each, the others queue in it for up to a second."""
    loop = VirtualLoop()
    limit = ConcurrencyLimit("a", LimitConfig(int(algorithm.limit), algorithm=algorithm), loop.time)
    chance = random.Random(5)
    durations: list[float] = []
    ended: list[float] = []

    async def call(places: asyncio.Semaphore) -> None:
        try:
            await limit.acquire_async()
        except LimitExceededError:
            return
        began = loop.time()
        dropped = False
        try:
            async with asyncio.timeout(1.0), places:
                await asyncio.sleep(0.02 * chance.uniform(0.8, 1.2))
        except TimeoutError:
            dropped = True
        took = loop.time() - began
        limit.release(took, dropped)
        if not dropped:
            durations.append(took)
            ended.append(loop.time())

    async def main() -> None:
        places = asyncio.Semaphore(servers)
        tasks = set()
        while loop.time() < seconds:
            task = asyncio.create_task(call(places))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(chance.expovariate(arrivals_per_second))
        await asyncio.gather(*tasks)

    loop.run(main())
    late = [took for took, at in zip(durations, ended, strict=True) if at > seconds / 2]
    return {
        "limit": limit.limit,
        "goodput": len(late) / (seconds / 2),
        "median": sorted(late)[len(late) // 2],
        "in_flight": limit.in_flight,
    }


@pytest.mark.parametrize(
    ("algorithm", "slowest"), [(Vegas(20, 4, 400), 0.06), (Aimd(20, 4, 400, slow_seconds=0.04), 0.08)]
)
def test_adaptive_limit_finds_capacity_of_target(algorithm: LimitAlgorithm, slowest: float) -> None:
    capacity = 10 / 0.02  # 500 calls a second
    result = serve(algorithm, 10, 5 * capacity, 40.0)
    assert result["goodput"] >= 0.9 * capacity
    assert result["median"] <= slowest
    assert 8 <= result["limit"] <= 40
    assert result["in_flight"] == 0


def test_aimd_limit_decreases_when_calls_are_dropped() -> None:
    result = serve(Aimd(300, 4, 400), 2, 1000.0, 30.0)
    assert result["limit"] < 200


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1, "max_queued": -1}, {"limit": 1, "shares": (0, 1, 1, 1)}])
def test_invalid_limit_configuration_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="concurrency limit x"):
        ConcurrencyLimit("x", LimitConfig(**wrong))


def test_call_that_cannot_wait_displaces_nobody() -> None:
    loop = VirtualLoop()  # type: ignore[abstract]
    limit = ConcurrencyLimit("l", LimitConfig(1, 1, 1.0), loop.time)

    async def waits() -> float:
        await limit.acquire_async(criticality=Criticality.BATCH)
        return loop.time()

    async def main() -> None:
        await limit.acquire_async()
        waiting = asyncio.create_task(waits())
        await asyncio.sleep(0.1)
        for refused in (0.0, -1.0):
            with pytest.raises(LimitExceededError):
                await limit.acquire_async(refused, Criticality.ALARM)
            with criticality_scope(Criticality.ALARM), pytest.raises(LimitExceededError):
                limit.acquire(refused)
        assert limit.queued == 1
        loop.call_later(0.2, limit.release)
        assert await waiting == pytest.approx(0.3)

    loop.run(main())
    assert limit.in_flight == 1


def test_call_with_no_time_takes_a_free_place() -> None:
    loop = VirtualLoop()  # type: ignore[abstract]
    limit = ConcurrencyLimit("l", LimitConfig(2, 1, 1.0), loop.time)
    loop.run(limit.acquire_async(0.0))
    limit.acquire(0.0)
    assert limit.in_flight == 2


def test_more_critical_call_with_time_displaces_a_lesser_one() -> None:
    loop = VirtualLoop()  # type: ignore[abstract]
    limit = ConcurrencyLimit("l", LimitConfig(1, 1, 1.0), loop.time)

    async def main() -> None:
        await limit.acquire_async()
        lesser = asyncio.create_task(limit.acquire_async(criticality=Criticality.BATCH))
        await asyncio.sleep(0.1)
        loop.call_later(0.2, limit.release)
        await limit.acquire_async(0.001 + 0.2, Criticality.ALARM)
        assert loop.time() == pytest.approx(0.3)
        with pytest.raises(LimitExceededError):
            await lesser

    loop.run(main())


def test_idle_budget_saves_at_most_its_capacity() -> None:
    now = [0.0]
    budget = RetryBudget("idle", 0.25, 1.0, clock=lambda: now[0])
    now[0] = 3600.0
    for _ in range(1000):
        budget.deposit()
    granted = [budget.withdraw() for _ in range(200)]
    assert sum(granted) == 100
    now[0] += 1.0
    for _ in range(100):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == 25, "from then on it is a share of the calls"
