"""Acknowledges messages in order when their readings are durable."""

import asyncio
import collections
from collections.abc import Awaitable, Callable
from typing import Any

_MAX_PENDING = 8  # batches; with more, an input stops reading


class AckTracker:
    """Tracks messages that wait for their acknowledgement.

    Args:
        acknowledge: Sends the acknowledgement of messages, given their numbers.
    """

    def __init__(self, acknowledge: Callable[[list[int]], None]) -> None:
        self._acknowledge = acknowledge
        self._pending: collections.deque[tuple[Awaitable[Any] | None, list[int]]] = collections.deque()

    async def track(self, durable: Awaitable[Any] | None, numbers: list[int]) -> None:
        """Adds messages, and waits for older ones if too many are pending.

        Args:
            durable: Completes when the batch with their readings is durable. None if they had no readings.
            numbers: The numbers of the messages.

        Raises:
            Exception: The error of a failed write. Those messages, and all later ones, are then not acknowledged.
        """
        self._pending.append((durable, numbers))
        self.acknowledge_durable()
        while len(self._pending) > _MAX_PENDING:
            await self._wait_for_oldest()

    async def wait_for_all(self) -> None:
        """Waits for and acknowledges all messages."""
        while self._pending:
            await self._wait_for_oldest()

    async def _wait_for_oldest(self) -> None:
        durable, numbers = self._pending[0]
        if durable is not None:
            await asyncio.shield(asyncio.ensure_future(durable))
        self._pending.popleft()
        self._acknowledge(numbers)

    def acknowledge_durable(self) -> None:
        """Acknowledges the messages whose readings are durable now."""
        while self._pending:
            durable, numbers = self._pending[0]
            if durable is not None:
                future = asyncio.ensure_future(durable)
                if not future.done():
                    return
                future.result()
            self._pending.popleft()
            self._acknowledge(numbers)
