"""Runs a piece of work once for all callers that ask for it at the same time."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    """The work in progress by its key. It is for use on one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    async def __call__(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Returns the result of the work, or raises its error. A caller that gives up leaves the others their result.

        Args:
            key: What the work is for.
            make: Makes the work, if none is in progress for the key.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(make())
            task.add_done_callback(lambda done: self._forget(key, done))
        result: T = await asyncio.shield(task)
        return result

    def _forget(self, key: Hashable, done: "asyncio.Task[Any]") -> None:
        del self._tasks[key]
        if not done.cancelled():
            done.exception()  # marks it as retrieved, in case nobody waits any more
