"""What has been read and is on its way to the disk: acknowledged in order, when it is durable, and never before."""

import asyncio
import collections
from collections.abc import Awaitable, Callable
from typing import Any

_UNDER_WAY = 8  # batches; with more, an input reads no further


class Acknowledgements:
    """acknowledge: tells the sender, by the numbers of its messages."""

    def __init__(self, acknowledge: Callable[[list[int]], None]) -> None:
        self._acknowledge = acknowledge
        self._under_way: collections.deque[tuple[Awaitable[Any] | None, list[int]]] = collections.deque()

    async def follow(self, durable: Awaitable[Any] | None, numbers: list[int]) -> None:
        """Of messages whose readings are in a batch (None if they had none). Waits for older ones if too many are under
        way. Raises what the disk raises; those messages, and later ones, are then not acknowledged."""
        self._under_way.append((durable, numbers))
        self.settle_done()
        while len(self._under_way) > _UNDER_WAY:
            await self._oldest()

    async def settle(self) -> None:
        """All of them."""
        while self._under_way:
            await self._oldest()

    async def _oldest(self) -> None:
        durable, numbers = self._under_way[0]
        if durable is not None:
            await asyncio.shield(asyncio.ensure_future(durable))
        self._under_way.popleft()
        self._acknowledge(numbers)

    def settle_done(self) -> None:
        """Those that are durable by now."""
        while self._under_way:
            durable, numbers = self._under_way[0]
            if durable is not None:
                future = asyncio.ensure_future(durable)
                if not future.done():
                    return
                future.result()
            self._under_way.popleft()
            self._acknowledge(numbers)
