"""Acknowledges messages in order when their readings are durable."""

import asyncio
import collections
from collections.abc import Awaitable, Callable
from typing import Any

_UNDER_WAY = 8  # batches; with more, an input stops reading


class AckTracker:
    """Messages that wait for their acknowledgement. `acknowledge` sends it, given the numbers of the messages."""

    def __init__(self, acknowledge: Callable[[list[int]], None]) -> None:
        self._acknowledge = acknowledge
        self._under_way: collections.deque[tuple[Awaitable[Any] | None, list[int]]] = collections.deque()

    async def follow(self, durable: Awaitable[Any] | None, numbers: list[int]) -> None:
        """Adds messages, and waits for older ones if too many are pending.

        Args:
            durable: Completes when the batch with their readings is durable. None if they had no readings.
            numbers: The numbers of the messages.

        Raises:
            Exception: The error of a failed write. Those messages, and all later ones, are then not acknowledged.
        """
        self._under_way.append((durable, numbers))
        self.settle_done()
        while len(self._under_way) > _UNDER_WAY:
            await self._oldest()

    async def settle(self) -> None:
        """Waits for and acknowledges all messages."""
        while self._under_way:
            await self._oldest()

    async def _oldest(self) -> None:
        durable, numbers = self._under_way[0]
        if durable is not None:
            await asyncio.shield(asyncio.ensure_future(durable))
        self._under_way.popleft()
        self._acknowledge(numbers)

    def settle_done(self) -> None:
        """Acknowledges the messages whose readings are durable now."""
        while self._under_way:
            durable, numbers = self._under_way[0]
            if durable is not None:
                future = asyncio.ensure_future(durable)
                if not future.done():
                    return
                future.result()
            self._under_way.popleft()
            self._acknowledge(numbers)
