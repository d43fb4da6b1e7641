"""Hedged attempts: who waits for whom, and what becomes of those that lose."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from aurum.resilience import Pipeline, Policy
from aurum.resilience.virtual_time import VirtualLoop

Answer = Callable[[int], Any]


class Hedged:
    """A pipeline with hedges, whose attempts are numbered. ended: when each has cleaned up."""

    def __init__(self, behaviour: Callable[[int], Any], **parts: Any) -> None:
        self.loop = VirtualLoop()  # type: ignore[abstract]
        retry = {"maxAttempts": 1, "budgetFloor": 9}
        policy = {"target": "a/b/C", "hedge": {"delay": "100ms", "maxAttempts": 3}, "retry": retry, **parts}
        self.pipeline = Pipeline("h", Policy.model_validate(policy), clock=self.loop.time)
        self.behaviour = behaviour
        self.began: list[float] = []
        self.ended: dict[int, float] = {}

    async def attempt(self, timeout: float) -> Any:
        self.began.append(round(self.loop.time(), 6))
        number = len(self.began)
        try:
            return await self.behaviour(number)
        finally:
            self.ended[number] = round(self.loop.time(), 6)

    def call(self) -> tuple[Any, float]:
        """The answer, and when it was there."""

        async def main() -> tuple[Any, float]:
            answer = await self.pipeline.call_async(self.attempt)
            return answer, round(self.loop.time(), 6)

        return self.loop.run(main())


async def slow_to_clean_up(number: int) -> int:
    try:
        await asyncio.sleep(5.0 if number < 3 else 0.05)
    except asyncio.CancelledError:
        await asyncio.sleep(1.0)
        raise
    return number


def test_answer_does_not_wait_for_clean_up_of_losers() -> None:
    hedged = Hedged(slow_to_clean_up)
    places: list[int] = []
    hedged.loop.call_at(0.9, lambda: places.append(hedged.pipeline.limit.in_flight))
    assert hedged.call() == (3, 0.25)
    assert places == [2], "a loser has its place until it has cleaned up"
    assert hedged.ended == {3: 0.25, 1: 1.25, 2: 1.25}
    assert hedged.pipeline.limit.in_flight == 0
    assert not hedged.pipeline._losing_attempts


def test_losers_are_kept_until_they_end() -> None:
    hedged = Hedged(slow_to_clean_up)

    async def main() -> int:
        await hedged.pipeline.call_async(hedged.attempt)
        gc.collect()  # an event loop alone does not keep its tasks
        return len(hedged.pipeline._losing_attempts)

    assert hedged.loop.run(main()) == 2
    assert sorted(hedged.ended) == [1, 2, 3]


@pytest.mark.parametrize("error", [OSError("clean-up"), asyncio.CancelledError()])
def test_errors_of_losers_are_dropped(error: BaseException) -> None:
    async def behaviour(number: int) -> int:
        try:
            await asyncio.sleep(5.0 if number == 1 else 0.05)
        except asyncio.CancelledError:
            raise error from None
        return number

    hedged = Hedged(behaviour)
    assert hedged.call() == (2, 0.15)  # the loop raises what nobody has looked at
    gc.collect()
    hedged.loop.advance()


def test_loser_that_answers_after_all_is_ignored() -> None:
    async def behaviour(number: int) -> int:
        try:
            await asyncio.sleep(5.0 if number == 1 else 0.05)
        except asyncio.CancelledError:
            return -1
        return number

    assert Hedged(behaviour).call() == (2, 0.15)


@pytest.mark.parametrize("cancelled", [1, 2])
def test_cancelled_attempt_leaves_its_twin_alone(cancelled: int) -> None:
    async def behaviour(number: int) -> int:
        await asyncio.sleep(0.15)
        if number == cancelled:
            raise asyncio.CancelledError
        await asyncio.sleep(0.2)
        return number

    hedged = Hedged(behaviour, hedge={"delay": "100ms", "maxAttempts": 2})
    assert hedged.call()[0] == 3 - cancelled
    assert hedged.pipeline.limit.in_flight == 0


def test_error_counts_more_than_cancelled_attempt() -> None:
    def behaviour(last: type[BaseException]) -> Callable[[int], Any]:
        async def both(number: int) -> None:
            await asyncio.sleep(0.3 - 0.1 * number)  # both at 0.2 s
            raise (OSError if (number == 1) == (last is OSError) else asyncio.CancelledError)

        return both

    for last in (OSError, asyncio.CancelledError):
        hedged = Hedged(behaviour(last), hedge={"delay": "100ms", "maxAttempts": 2})
        with pytest.raises(OSError):  # noqa: PT011 - it has no message
            hedged.call()


def test_call_ends_cancelled_if_each_attempt_does() -> None:
    async def behaviour(number: int) -> None:
        await asyncio.sleep(0.15)
        raise asyncio.CancelledError

    hedged = Hedged(behaviour)
    with pytest.raises(asyncio.CancelledError):
        hedged.call()
    assert hedged.pipeline.limit.in_flight == 0


def test_cancelled_call_waits_for_clean_up_of_its_attempts() -> None:
    hedged = Hedged(slow_to_clean_up, hedge={"delay": "100ms", "maxAttempts": 2})

    async def main() -> float:
        call = asyncio.create_task(hedged.pipeline.call_async(hedged.attempt))
        await asyncio.sleep(0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return hedged.loop.time()

    assert hedged.loop.run(main()) == 1.5
    assert hedged.ended == {1: 1.5, 2: 1.5}
    assert hedged.pipeline.limit.in_flight == 0


def test_call_cancelled_twice_leaves_nothing_behind() -> None:
    hedged = Hedged(slow_to_clean_up, hedge={"delay": "100ms", "maxAttempts": 2})

    async def main() -> float:
        call = asyncio.create_task(hedged.pipeline.call_async(hedged.attempt))
        await asyncio.sleep(0.5)
        call.cancel()
        await asyncio.sleep(0.2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return round(hedged.loop.time(), 6)

    assert hedged.loop.run(main()) == 0.7
    assert sorted(hedged.ended) == [1, 2]
    assert hedged.pipeline.limit.in_flight == 0
    assert not hedged.pipeline._losing_attempts


def test_failed_attempts_beside_an_answer_are_looked_at() -> None:
    async def behaviour(number: int) -> int:
        await asyncio.sleep(0.4 - 0.1 * number)
        if number == 1:
            raise OSError("at the same time")
        return number

    hedged = Hedged(behaviour)
    assert hedged.call()[0] in (2, 3)
    gc.collect()
    hedged.loop.advance()
