"""What the resilience policies cost and what they hold, beside other libraries in the same, interleaved rounds.

Times are of a call that does nothing, through each library, in microseconds; the median of all rounds counts. Peers:
pybreaker, aiobreaker, purgatory and hyx for breakers; tenacity or stamina with aiobreaker and asyncio.timeout, and hyx,
for the whole chain; tenacity and stamina for a call that is retried. The other figures are counts: probes admitted,
places leaked, attempts in an outage, answers in overload.
"""

import argparse
import asyncio
import gc
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiobreaker
import purgatory
import pybreaker
import stamina
import tenacity
from hyx.circuitbreaker import consecutive_breaker
from hyx.circuitbreaker.exceptions import BreakerFailing
from hyx.retry import retry as hyx_retry
from hyx.timeout import timeout as hyx_timeout
from purgatory.domain.model import OpenedState

from aurum.resilience import (
    BreakerConfig,
    CircuitBreakerError,
    ConcurrencyLimit,
    LimitConfig,
    Pipeline,
    Policy,
    ResilientCircuitBreaker,
    RetryPolicy,
)
from aurum.resilience.outcomes import Outcome, read_outcomes
from aurum.resilience.policy import PolicyDocument
from aurum.resilience.simulation import simulate
from aurum.resilience.virtual_time import VirtualLoop
from benchmarks.harness import Goal, report, spread

FAR = 1e9  # failures that no benchmark reaches
US = 1e6


def work() -> int:
    return 1


async def async_work() -> int:
    return 1


def fail() -> None:
    raise ConnectionError


async def async_fail() -> None:
    raise ConnectionError


def sync_round(calls: dict[str, Callable[[], Any]], times: int, found: dict[str, list[float]]) -> None:
    """Times each once, in an order drawn anew."""
    for name in random.sample(list(calls), len(calls)):
        call = calls[name]
        gc.collect()
        started = time.perf_counter()
        for _ in range(times):
            call()
        found.setdefault(name, []).append((time.perf_counter() - started) / times * US)


async def async_round(
    calls: dict[str, Callable[[], Awaitable[Any]]], times: int, found: dict[str, list[float]]
) -> None:
    for name in random.sample(list(calls), len(calls)):
        call = calls[name]
        gc.collect()
        started = time.perf_counter()
        for _ in range(times):
            await call()
        found.setdefault(name, []).append((time.perf_counter() - started) / times * US)


def closed_breakers() -> dict[str, Callable[[], Any]]:
    ours = ResilientCircuitBreaker("bench")
    count = ResilientCircuitBreaker("count", config=BreakerConfig(mode="count"))
    window = ResilientCircuitBreaker("time", config=BreakerConfig(mode="time", slow_seconds=1.0))
    py = pybreaker.CircuitBreaker(fail_max=5)
    aio = aiobreaker.CircuitBreaker(fail_max=5)
    purgatories = purgatory.SyncCircuitBreakerFactory(default_threshold=5)

    def through_purgatory() -> int:
        with purgatories.get_breaker("bench"):
            return work()

    return {
        "ours": lambda: ours.call(work),
        "ours, count window": lambda: count.call(work),
        "ours, time window and slow calls": lambda: window.call(work),
        "pybreaker": lambda: py.call(work),
        "aiobreaker": lambda: aio.call(work),
        "purgatory": through_purgatory,
        "none": work,
    }


def open_breakers() -> dict[str, Callable[[], Any]]:
    ours = ResilientCircuitBreaker("bench", 1, 3600.0)
    py = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=3600)
    aio = aiobreaker.CircuitBreaker(fail_max=1, timeout_duration=timedelta(hours=1))

    def refused(breaker: Any, errors: type[Exception]) -> Callable[[], Any]:
        call = breaker.call

        def ask() -> None:
            try:
                call(work)
            except errors:
                return
            raise AssertionError("it was not open")

        return ask

    for breaker in (ours, py, aio):
        try:
            breaker.call(fail)
        except (ConnectionError, pybreaker.CircuitBreakerError, aiobreaker.CircuitBreakerError):
            continue
    return {
        "ours": refused(ours, CircuitBreakerError),
        "pybreaker": refused(py, pybreaker.CircuitBreakerError),
        "aiobreaker": refused(aio, aiobreaker.CircuitBreakerError),
    }


def pipelines() -> dict[str, Callable[[], Awaitable[Any]]]:
    """The whole chain: deadline, retry, bulkhead, breaker, and an attempt timeout where the name says so."""
    ours = Pipeline("bench", Policy(target="a/b/C"))
    aio = aiobreaker.CircuitBreaker(fail_max=5)
    hyx_breaker = consecutive_breaker(failure_threshold=5, recovery_time_secs=60, recovery_threshold=1)

    async def attempt(timeout: float) -> int:
        return await async_work()

    async def stack() -> int:
        async for tried in tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_random_exponential(0.1, 2.0), reraise=True
        ):
            with tried:
                async with asyncio.timeout(2.0):
                    return await aio.call_async(async_work)
        raise AssertionError

    @tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_random_exponential(0.1, 2.0), reraise=True)
    @aio
    async def decorated() -> int:
        async with asyncio.timeout(2.0):
            return await async_work()

    @stamina.retry(on=ConnectionError, attempts=3, wait_initial=0.1, wait_max=2.0)
    @aio
    async def through_stamina() -> int:
        async with asyncio.timeout(2.0):
            return await async_work()

    @hyx_retry(on=ConnectionError, attempts=3)
    @hyx_breaker
    @hyx_timeout(2.0)
    async def through_hyx() -> int:
        return await async_work()

    return {
        "ours": lambda: ours.call_async(attempt, timed=False),
        "ours, with attempt timeout": lambda: ours.call_async(attempt),
        "tenacity + aiobreaker + asyncio.timeout": decorated,
        "the same, not decorated": stack,
        "stamina + aiobreaker + asyncio.timeout": through_stamina,
        "hyx": through_hyx,
        "none": async_work,
    }


def retries() -> dict[str, Callable[[], Awaitable[Any]]]:
    """A call that fails twice, then succeeds; nobody waits in between."""
    left = 0

    async def flaky() -> int:
        nonlocal left
        left = left - 1 if left else 2
        if left:
            raise ConnectionError
        return 1

    ours = RetryPolicy(3, 0.0, 0.0)
    strategies = RetryPolicy(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_none(),
        retry=tenacity.retry_if_exception_type(ConnectionError),
    )
    by_tenacity = tenacity.retry(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_none(),
        retry=tenacity.retry_if_exception_type(ConnectionError),
        reraise=True,
    )(flaky)
    by_stamina = stamina.retry(on=ConnectionError, attempts=3, wait_initial=0.0, wait_max=0.0, wait_jitter=0.0)(flaky)
    return {
        "ours": lambda: ours.call_async(flaky),
        "ours, with tenacity's strategies": lambda: strategies.call_async(flaky),
        "tenacity": by_tenacity,
        "stamina": by_stamina,
    }


def threads(breaker: Any) -> float:
    """Seconds that 64 threads take to call something of 100 ms once each."""
    together = threading.Barrier(65)

    def call() -> None:
        together.wait()
        breaker.call(time.sleep, 0.1)

    running = [threading.Thread(target=call) for _ in range(64)]
    for thread in running:
        thread.start()
    together.wait()
    started = time.perf_counter()
    for thread in running:
        thread.join()
    return time.perf_counter() - started


async def probes(call: Callable[[Callable[[], Awaitable[None]]], Awaitable[Any]], errors: type[Exception]) -> int:
    """How many of 1,000 calls at once a half-open breaker lets through."""
    admitted = 0
    release = asyncio.Event()

    async def probe() -> None:
        nonlocal admitted
        admitted += 1
        await release.wait()

    calls = [asyncio.create_task(_quiet(call(probe), errors)) for _ in range(1000)]
    await asyncio.sleep(0.05)
    seen = admitted
    release.set()
    await asyncio.gather(*calls)
    return seen


async def _quiet(call: Awaitable[Any], errors: type[Exception]) -> None:
    try:
        await call
    except errors:
        return


async def half_open(k: int) -> dict[str, int]:
    """Probes admitted: ours is asked for k, the others for one, as they know no more."""
    ours = ResilientCircuitBreaker("bench", 1, 0.05, probes=k)
    aio = aiobreaker.CircuitBreaker(fail_max=1, timeout_duration=timedelta(seconds=0.05))
    purgatories = purgatory.AsyncCircuitBreakerFactory(default_threshold=1, default_ttl=0.05)
    purgatory_breaker = await purgatories.get_breaker("bench")
    hyx_breaker = consecutive_breaker(failure_threshold=1, recovery_time_secs=0.05, recovery_threshold=1)

    async def through_purgatory(func: Callable[[], Awaitable[None]]) -> None:
        async with purgatory_breaker:
            await func()

    async def through_hyx(func: Callable[[], Awaitable[None]]) -> None:
        await hyx_breaker(func)()

    breakers: dict[str, tuple[Callable[..., Awaitable[Any]], type[Exception]]] = {
        f"ours, {k} wanted": (ours.call_async, CircuitBreakerError),
        "aiobreaker, 1 wanted": (aio.call_async, aiobreaker.CircuitBreakerError),
        "purgatory, 1 wanted": (through_purgatory, OpenedState),
        "hyx, 1 wanted": (through_hyx, BreakerFailing),
    }
    for call, _ in breakers.values():
        await _quiet(call(async_fail), Exception)
    await asyncio.sleep(0.1)
    return {name: await probes(call, errors) for name, (call, errors) in breakers.items()}


async def cancellations(count: int) -> int:
    """Places that are missing after so many calls were cancelled, while they waited for one or held one."""
    limit = ConcurrencyLimit("bench", LimitConfig(8, 1000, 60.0))
    pipeline = Pipeline("bench", Policy.model_validate({"target": "a/b/C", "bulkhead": {"maxConcurrent": 8}}))
    chance = random.Random(1)

    async def direct() -> None:
        await limit.acquire_async()
        try:
            await asyncio.sleep(0)
        finally:
            limit.release()

    async def attempt(timeout: float) -> None:
        await asyncio.sleep(0)

    cancelled = 0
    while cancelled < count:
        tasks = [asyncio.create_task(direct()) for _ in range(100)]
        tasks += [asyncio.create_task(pipeline.call_async(attempt)) for _ in range(8)]
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 100):
            cancelled += task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return limit.in_flight + limit.queued + pipeline.limit.in_flight


def outage(breaker: bool) -> float:
    """Attempts per call with three retries, at 200 calls/s for a minute in which each fails; virtual time."""
    loop = VirtualLoop()  # type: ignore[abstract]
    pipeline = Pipeline(
        "outage",
        Policy.model_validate(
            {"target": "a/b/C", "retry": {"maxAttempts": 4}, "circuitBreaker": {"enabled": breaker, "open": "2s"}}
        ),
        clock=loop.time,
    )
    attempts = calls = 0

    async def attempt(timeout: float) -> None:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0.005)
        raise ConnectionError

    async def call() -> None:
        await _quiet(pipeline.call_async(attempt), Exception)

    async def main() -> None:
        nonlocal calls
        tasks = set()
        while loop.time() < 60.0:
            calls += 1
            task = asyncio.create_task(call())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)

    loop.run(main())
    return attempts / calls


def replays(calls: int, rounds: int) -> list[float]:
    """Recorded calls replayed a second, decoding included, as `aurum policy simulate` does it."""
    chance = random.Random(1)
    now = 1e9
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.jsonl"
        with trace.open("w") as file:
            for _ in range(calls):
                now += chance.expovariate(300)
                code = "UNAVAILABLE" if 300 < now - 1e9 < 330 else "OK"
                file.write(Outcome(now, "api/prediction/Predict", chance.random() * 0.03, code).line())
        found = []
        for _ in range(rounds):
            started = time.perf_counter()
            with trace.open("rb") as recorded:
                results = simulate(PolicyDocument(), Policy(target="*/*/*"), read_outcomes(recorded))
            found.append(calls / (time.perf_counter() - started))
            assert results["api/prediction"].calls == calls
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-overload", action="store_true", help="leave out what needs the services to run")
    arguments = parser.parse_args()
    rounds, times = (5, 2000) if arguments.quick else (31, 10_000)
    closed: dict[str, list[float]] = {}
    opened: dict[str, list[float]] = {}
    chains: dict[str, list[float]] = {}
    retried: dict[str, list[float]] = {}
    rates: list[float] = []
    waits: dict[str, list[float]] = {"ours": [], "pybreaker": []}
    sync_calls, refusals = closed_breakers(), open_breakers()

    stamina.instrumentation.set_on_retry_hooks([])  # nobody listens to the others either

    async def measure_chains() -> None:
        calls = pipelines()
        await async_round(calls, 100, {})
        again = retries()
        await async_round(again, 10, {})
        for _ in range(rounds):
            await async_round(calls, times // 2, chains)
            await async_round(again, times // 20, retried)

    for _ in range(rounds):
        sync_round(sync_calls, times, closed)
        sync_round(refusals, times, opened)
    asyncio.run(measure_chains())
    for _ in range(1 if arguments.quick else 3):
        waits["ours"].append(threads(ResilientCircuitBreaker("bench")))
        waits["pybreaker"].append(threads(pybreaker.CircuitBreaker(fail_max=5)))
    admitted = asyncio.run(half_open(5))
    leaked = asyncio.run(cancellations(20_000 if arguments.quick else 100_000))
    rates = replays(50_000 if arguments.quick else 300_000, 2 if arguments.quick else 7)
    amplified = {"without breaker": outage(False), "with breaker": outage(True)}

    median = {name: statistics.median(values) for name, values in chains.items()}
    chain = median["tenacity + aiobreaker + asyncio.timeout"]
    goals = {
        "closed_breaker_us": Goal(statistics.median(closed["ours"]), 1.5, at_most=True),
        "open_breaker_us": Goal(statistics.median(opened["ours"]), 2.0, at_most=True),
        "pipeline_us": Goal(median["ours"], 10.0, at_most=True),
        "pipeline_with_timeout_us": Goal(median["ours, with attempt timeout"], 25.0, at_most=True),
        "times_less_than_tenacity_aiobreaker_timeout": Goal(chain / median["ours, with attempt timeout"], 3.0),
        "64_threads_of_100_ms_seconds": Goal(statistics.median(waits["ours"]), 0.15, at_most=True),
        "half_open_probes_beside_5": Goal(abs(admitted["ours, 5 wanted"] - 5), 0, at_most=True),
        "places_leaked_by_cancellations": Goal(leaked, 0, at_most=True),
        "outage_amplification": Goal(max(amplified.values()), 1.2, at_most=True),
        "replayed_calls_per_second": Goal(statistics.median(rates), 100_000),
    }
    details: dict[str, Any] = {
        "closed_us": {name: spread(values) for name, values in closed.items()},
        "open_us": {name: spread(values) for name, values in opened.items()},
        "pipeline_us": {name: spread(values) for name, values in chains.items()},
        "two_retries_us": {name: spread(values) for name, values in retried.items()},
        "64_threads_seconds": {name: spread(values) for name, values in waits.items()},
        "half_open_admitted_of_1000": admitted,
        "outage_attempts_per_call": amplified,
        "replayed_calls_per_second": spread(rates),
    }
    # Only now, since with it come the platform's metrics and traces, which listen to the policies
    from benchmarks import overload

    listened: dict[str, list[float]] = {}
    for _ in range(rounds):
        sync_round({"ours, with metrics and spans": open_breakers()["ours"]}, times, listened)
    details["open_us"] |= {name: spread(values) for name, values in listened.items()}
    if not arguments.no_overload:
        found = overload.run(*((1, 4.0) if arguments.quick else (3, 8.0)))
        goals |= overload.goals(found)
        details["overload"] = found
    for section in ("closed_us", "open_us", "pipeline_us", "two_retries_us"):
        for name, values in details[section].items():
            print(f"resilience: {section} {name}: {values['median']:.2f} ({values['min']:.2f}-{values['max']:.2f})")
    print(f"resilience: half-open, of 1,000 admitted: {json.dumps(admitted)}")
    report("resilience", goals, details)


if __name__ == "__main__":
    main()
