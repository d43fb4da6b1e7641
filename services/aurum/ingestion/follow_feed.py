"""What followers are sent: the latest durable readings, in order, and the registrations of machines."""

import asyncio
import secrets

import numpy as np

from aurum.ingestion import metrics
from aurum.ingestion.feed_machines import FeedMachines
from aurum.ingestion.feed_series import FeedSeries
from aurum.ingestion.gateways import Gateways
from aurum.ingestion.reading_ring import ReadingRing
from aurum.ingestion.registrations import Registrations
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.store import MachineRecord
from aurum.readings.batch import Batch
from aurum.runtime.errors import InvalidArgumentError

_EPOCH_BYTES = 8
_DIGITS = 19  # of a position


class FollowFeed:
    """Holds the latest readings for all followers, for one event loop.

    A reading has a position: the number of readings before it since the start of the process. Positions on the wire
    contain the epoch of the process too, because another process counts anew.

    Attributes:
        ring: The readings.
        machines: The machines by number.
        series: The series of the readings.
        registrations: The registrations of the machines.
        gateways: The gateways, and from which one the readings of a machine come.
    """

    def __init__(self, max_bytes: int, series: SeriesIndex | None = None) -> None:
        """Starts without readings.

        Args:
            max_bytes: Bytes of readings that are held.
            series: The numbers of the store's series. None for numbers that are used only here.
        """
        self.ring = ReadingRing(max_bytes)
        self.machines = FeedMachines()
        self.series = FeedSeries(SeriesIndex() if series is None else series, self.machines)
        self.registrations = Registrations()
        self.gateways = Gateways(self._note_gateway_of, self.wake)
        self._epoch = secrets.token_hex(_EPOCH_BYTES)
        self._changed = asyncio.Event()

    def append_batch(self, batch: Batch) -> None:
        """Appends the readings of a batch that has become durable and can be queried."""
        numbers = self.series.number(batch.keys)
        if batch.readings != len(batch.keys):
            numbers = np.repeat(numbers, batch.lengths)
        self.ring.append(numbers, batch.timestamps, batch.values)
        metrics.ingestion_feed_bytes.set(self.ring.nbytes)
        self.wake()

    def note_machine(self, record: MachineRecord) -> None:
        """Notes a machine that is new or was registered. Called before its readings are appended."""
        if self.registrations.note(record):
            self.machines.number(record.machine_id)
            self.wake()

    def _note_gateway_of(self, machine_id: str) -> None:
        self.registrations.touch(machine_id)
        self.wake()

    def position_text(self, position: int) -> str:
        """Returns a position as it is sent to followers."""
        return f"{self._epoch}/{position}"

    def parse_position(self, text: str) -> int | None:
        """Returns the position that a follower states, or None if it is of another process.

        Raises:
            InvalidArgumentError: It is no position.
        """
        epoch, slash, count = text.partition("/")
        if not slash or not count.isascii() or not count.isdigit() or len(count) > _DIGITS:
            raise InvalidArgumentError.for_field("position", "was not issued by this service")
        return int(count) if epoch == self._epoch and int(count) <= self.ring.end else None

    def wake(self) -> None:
        """Ends all waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_change(self, position: int, version: int, gateways: int) -> None:
        """Returns as soon as something is new, or `wake` is called.

        Args:
            position: The position after which readings are new.
            version: The version of the registrations after which machines are new.
            gateways: The same for the gateways.
        """
        if (self.ring.end, self.registrations.version, self.gateways.version) == (position, version, gateways):
            await self._changed.wait()
