"""The slots of batches that are not merged yet, and their readings in the memory of this replica.

A replica holds the batches that it wrote and those of other replicas, up to a limit in bytes. Beyond the limit it
drops the readings of the oldest slots, which queries then read from Cassandra.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from aurum.ingestion import metrics
from aurum.ingestion.cassandra.batch_rows import StoredBatch
from aurum.ingestion.cassandra.reading_columns import ReadingColumns
from aurum.ingestion.series_index import SeriesIndex
from aurum.storage import sequence_ranges

BatchKey = tuple[str, int]  # source, sequence
_KEY_BYTES = 250  # of memory for the key of a batch


@dataclass(slots=True)
class OpenSlot:
    """A slot that may have batches.

    Attributes:
        number: The slot.
        keys: The batches that are known to be in it.
        columns: Their readings; None if they are not held.
        damaged: Those of them that cannot be read.
        listed: The monotonic time at which its batches were last listed.
    """

    number: int
    keys: set[BatchKey] = field(default_factory=set)
    columns: ReadingColumns | None = field(default_factory=ReadingColumns)
    damaged: set[BatchKey] = field(default_factory=set)
    listed: float = 0.0

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return _KEY_BYTES * len(self.keys) + (self.columns.nbytes if self.columns is not None else 0)


class OpenSlots:
    """The open slots. They are changed on the event loop only; any thread may read their columns."""

    def __init__(self, series: SeriesIndex, most_bytes: int) -> None:
        """Creates an empty set of slots.

        Args:
            series: The numbers of the series.
            most_bytes: The memory for readings.
        """
        self._series = series
        self._most_bytes = most_bytes
        self._slots: dict[int, OpenSlot] = {}
        self._nbytes = 0

    def __len__(self) -> int:
        """Returns the number of slots."""
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """The memory that they take."""
        return self._nbytes

    def slots(self) -> list[OpenSlot]:
        """Returns the slots, the oldest first."""
        return [self._slots[number] for number in sorted(self._slots)]

    def get(self, number: int) -> OpenSlot:
        """Returns a slot, which is added if it is new."""
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = OpenSlot(number)
            self._nbytes += slot.nbytes
            metrics.ingestion_open_slots.set(len(self._slots))
        return slot

    def add(self, stored: StoredBatch) -> None:
        """Adds a batch that is durable."""
        slot, batch = self.get(stored.slot), stored.batch
        key = (batch.source_id, batch.sequence)
        if key in slot.keys:
            return
        before = slot.nbytes
        slot.keys.add(key)
        if slot.columns is not None:
            slot.columns.add_batch(self._series, batch, stored.rank)
        else:
            self._series.assign(batch.keys)
        self._nbytes += slot.nbytes - before
        self._drop_readings()

    def add_damaged(self, number: int, keys: Iterable[BatchKey]) -> None:
        """Adds batches that cannot be read."""
        slot = self.get(number)
        before = slot.nbytes
        slot.damaged.update(keys)
        slot.keys |= slot.damaged
        self._nbytes += slot.nbytes - before

    def remove_keys(self, number: int, keys: Iterable[BatchKey]) -> None:
        """Removes batches that were merged. Their readings are dropped when all batches of the slot were."""
        slot = self._slots.get(number)
        if slot is None:
            return
        before = slot.nbytes
        slot.keys.difference_update(keys)
        slot.damaged &= slot.keys
        if not slot.keys:
            slot.columns = ReadingColumns()
        self._nbytes += slot.nbytes - before
        self._report()

    def remove(self, number: int) -> None:
        """Removes a slot that has no batches."""
        slot = self._slots.get(number)
        if slot is not None and not slot.keys:
            self._nbytes -= slot.nbytes
            del self._slots[number]
            self._report()

    def sequences_of(self, source_id: str) -> list[sequence_ranges.Range]:
        """Returns the sequences of a source in the slots."""
        sequences: list[sequence_ranges.Range] = []
        for slot in self._slots.values():
            for source, sequence in slot.keys:
                if source == source_id:
                    sequence_ranges.record(sequences, sequence)
        return sequences

    def _drop_readings(self) -> None:
        """Drops the readings of the oldest slots that exceed the limit."""
        if self._nbytes > self._most_bytes:
            for slot in self.slots():
                if slot.columns is not None and slot.keys:
                    self._nbytes -= slot.columns.nbytes
                    slot.columns = None
                    metrics.ingestion_open_slots_dropped_total.inc()
                if self._nbytes <= self._most_bytes:
                    break
        self._report()

    def _report(self) -> None:
        metrics.ingestion_open_slots.set(len(self._slots))
        metrics.ingestion_recent_bytes.set(self._nbytes)
