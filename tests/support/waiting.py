"""Waiting for a condition, instead of sleeping for a fixed time."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Polls until the condition is true and returns its value; fails the test with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(pause)
        pause = min(0.05, 1.5 * pause)
    pytest.fail(f"not within {seconds} s: {what}")


async def until(condition: Callable[[], Any], what: str = "the condition", seconds: float = 20.0) -> None:
    """Polls until the condition, which may be a coroutine function, is true; fails the test with `what` otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)
