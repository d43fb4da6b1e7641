"""What an input is to the gateway: something that runs until it is cancelled, and puts what it hears into the spool."""

from typing import Protocol

from aurum.edge.inputs.collecting import Collector


class Input(Protocol):
    @property
    def collector(self) -> Collector: ...

    @property
    def problem(self) -> str | None:
        """Why nothing can be heard at the moment."""

    async def run(self) -> None:
        """Connects, listens, and connects again, for as long as it runs."""
