"""The interface of the protocols by which simulated devices send."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of a machine's sensors at one time.

    Attributes:
        machine_id: The machine.
        at_us: The time in µs since the epoch.
        values: The value of each sensor.
    """

    machine_id: str
    at_us: int
    values: Mapping[str, float]


class Peer(Protocol):
    """A protocol by which simulated devices send to a gateway."""

    async def open(self, sensors: Mapping[str, Sequence[str]]) -> None:
        """Starts the client or server.

        Args:
            sensors: The sensors of each machine.
        """

    async def send(self, samples: Sequence[Sample]) -> None:
        """Sends samples. Waits while the receiver accepts no more."""

    async def close(self) -> None:
        """Stops the client or server."""

    def inputs(self) -> dict[str, Any]:
        """Returns the matching input of a gateway's inputs file."""
