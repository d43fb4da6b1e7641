"""What a way to tell a gateway has to have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Sample:
    """What one machine says at one moment: sensor → value."""

    machine_id: str
    at_us: int
    values: Mapping[str, float]


class Peer(Protocol):
    """One way to tell a gateway."""

    async def open(self, sensors: Mapping[str, Sequence[str]]) -> None:
        """sensors: of each machine."""

    async def tell(self, samples: Sequence[Sample]) -> None:
        """Waits while nobody takes more."""

    async def close(self) -> None: ...

    def inputs(self) -> dict[str, Any]:
        """How a gateway listens to it (an input of its file)."""
