"""The interface of an input: it runs until it is cancelled, and puts readings into the spool."""

from typing import Protocol


class Input(Protocol):
    """A running input of a gateway."""

    async def run(self) -> None:
        """Connects, listens, and reconnects, until cancelled."""
