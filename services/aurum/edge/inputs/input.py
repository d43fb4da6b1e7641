"""What an input is to the gateway: something that runs until it is cancelled, and puts what it hears into the spool."""

from typing import Protocol


class Input(Protocol):
    async def run(self) -> None:
        """Connects, listens, and connects again, for as long as it runs."""
