"""The interface of the protocols by which simulated devices send."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of a machine's sensors at one moment, in µs since 1970."""

    machine_id: str
    at_us: int
    values: Mapping[str, float]


class Peer(Protocol):
    """A protocol by which simulated devices send to a gateway."""

    async def open(self, sensors: Mapping[str, Sequence[str]]) -> None:
        """Starts the client or server. sensors: The sensors of each machine."""

    async def tell(self, samples: Sequence[Sample]) -> None:
        """Sends samples. Waits while the receiver accepts no more."""

    async def close(self) -> None: ...

    def inputs(self) -> dict[str, Any]:
        """Returns the matching input of a gateway's inputs file."""
