"""The sources and the sequences that are durable for each, so that batches sent again are recognised."""

import itertools
import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from aurum.ingestion import metrics
from aurum.readings.batch import SEQUENCE_CLOSED, SINGLE_BATCH_PREFIX, Batch
from aurum.runtime.errors import InvalidArgumentError
from aurum.storage import sequence_ranges

logger = logging.getLogger(__name__)

_REMEMBERED = 20_000  # sources in memory; the others are read from the tables
_LOOKED_AT = 16  # sources that are checked in addition to the surplus
_COMMON = "*"  # no sender's source can have this id
_MAX_RANGES = 10_000  # of the sequences of one source; with more, the oldest gaps are closed
_KEPT_RANGES = 5_000  # ranges that remain then


@dataclass(slots=True)
class Source:
    """A source.

    Attributes:
        number: Increases with the time of the source's first batch, so that the later of two sources has the higher
            rank. 0 before the first batch.
        owner: The caller that owns it; empty if unknown.
        ranges: The stored sequences.
        closed: The sequence up to which batches are refused. A range then begins with 0 and covers both the stored
            and the missing sequences up to it.
    """

    number: int = 0
    owner: str = ""
    ranges: list[sequence_ranges.Range] = field(default_factory=list)
    closed: int = 0


class Sources:
    """All sources. For the log thread; `flushed` and `forget` are for the threads that write the tables."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Source] = OrderedDict()
        self._changed: set[str] = set()  # since the last flush began
        self._flushing: set[str] = set()
        self._last_number: int = connection.execute("SELECT last FROM source_numbers").fetchone()[0]

    def get(self, source_id: str) -> Source:
        """Returns a source, which may be new. Raises sqlite3.Error."""
        with self._lock:
            source = self._known.get(source_id)
            if source is not None:
                self._known.move_to_end(source_id)
                return source
            source = self._known[source_id] = self._read(source_id)
            self._evict()
        return source

    def _read(self, source_id: str) -> Source:
        columns = "SELECT id, owner, closed FROM sources WHERE source_id = ?"
        row = self._connection.execute(columns, (source_id,)).fetchone()
        if row is None:
            return Source()
        number, owner, closed = row
        received = "SELECT first, last FROM received WHERE source = ? ORDER BY first"
        return Source(number, owner, self._connection.execute(received, (number,)).fetchall(), closed)

    def owners_of(self, numbers: Iterable[int]) -> set[str]:
        """Returns the owners of sources, given by number. An empty name stands for an unknown owner.

        Raises:
            sqlite3.Error: If the tables cannot be read.
        """
        with self._lock:
            owner_by_number = {source.number: source.owner for source in self._known.values()}
        owners: set[str] = set()
        for number in numbers:
            owner = owner_by_number.get(number)
            if owner is None:
                row = self._connection.execute("SELECT owner FROM sources WHERE id = ?", (number,)).fetchone()
                owner = row[0] if row else ""
            owners.add(owner)
        return owners

    def require_open_sequence(self, batch: Batch) -> None:
        """Raises InvalidArgumentError for a sequence in a closed gap, of which it is unknown whether it was stored."""
        closed = self.get(batch.source_id).closed
        if batch.sequence <= closed:
            error = InvalidArgumentError.for_field(
                "batch.sequence",
                f"is {batch.sequence}, and source {batch.source_id} has left so many gaps that its sequences up to "
                f"{closed} are closed: it is unknown whether this one was stored; continue with higher sequences",
                source_id=batch.source_id,
                sequence=str(batch.sequence),
            )
            error.reason = SEQUENCE_CLOSED
            raise error

    def record_batch(self, batch: Batch) -> tuple[int, int]:
        """Records a durable batch, the next one of the log, and returns its rank. Raises sqlite3.Error."""
        source = self.get(batch.source_id)
        with self._lock:
            source.owner = batch.owner
            rank = self._record(batch.source_id, source, batch.sequence)
        if not batch.source_id.startswith(SINGLE_BATCH_PREFIX):
            return rank
        # All these batches count as sent by one source in the order of arrival, so that merging gives them one rank
        common = self.get(_COMMON)
        with self._lock:
            return self._record(_COMMON, common, common.ranges[-1][1] + 1 if common.ranges else 1)

    def _record(self, source_id: str, source: Source, sequence: int) -> tuple[int, int]:
        if not source.number:  # assigned here, so that a replay of the log gives the sources the same numbers
            self._last_number += 1
            source.number = self._last_number
        sequence_ranges.record(source.ranges, sequence)
        self._changed.add(source_id)
        if len(source.ranges) > _MAX_RANGES:
            closing = len(source.ranges) - _KEPT_RANGES
            source.closed = source.ranges[closing][0] - 1
            sequence_ranges.record(source.ranges, 0, source.closed)
            metrics.ingestion_sequence_gaps_closed_total.inc(closing)
            logger.warning(
                "source %s left more than %d gaps in its sequences; sequences up to %d are refused from now on",
                source_id,
                _MAX_RANGES,
                source.closed,
            )
        return source.number, sequence

    def freeze(self) -> tuple[list[tuple[str, Source]], int]:
        """Returns copies of the sources that changed since the last flush.

        Returns each with its id, and the last number that was assigned.
        """
        with self._lock:
            self._flushing |= self._changed
            self._changed = set()
            sources = [(name, self._known[name]) for name in sorted(self._flushing)]
            copies = [(name, replace(source, ranges=list(source.ranges))) for name, source in sources]
            return copies, self._last_number

    def mark_flushed(self) -> None:
        """Records that the frozen sources are in the tables."""
        with self._lock:
            self._flushing.clear()

    def forget(self, connection: sqlite3.Connection, before_us: int) -> None:
        """Deletes sources that were not seen since `before_us`, in the tables and in memory at once.

        A source that has just sent a batch stays, with its number and its sequences.

        Raises:
            sqlite3.Error: If the tables cannot be written.
        """
        connection.execute("BEGIN IMMEDIATE")  # before the lock: another thread may be writing the tables
        try:
            with self._lock:
                rows = connection.execute("SELECT id, source_id FROM sources WHERE seen_us < ?", (before_us,))
                gone = [row for row in rows if row[1] not in self._changed and row[1] not in self._flushing]
                connection.executemany("DELETE FROM received WHERE source = ?", [row[:1] for row in gone])
                connection.executemany("DELETE FROM sources WHERE id = ?", [row[:1] for row in gone])
                connection.execute("COMMIT")
                for _, source_id in gone:
                    self._known.pop(source_id, None)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _evict(self) -> None:
        """Removes the least recently used sources from memory if there are too many, unless the tables lack them."""
        surplus = len(self._known) - _REMEMBERED
        if surplus <= 0:
            return
        for source_id in list(itertools.islice(self._known, surplus + _LOOKED_AT)):
            if source_id not in self._changed and source_id not in self._flushing:
                del self._known[source_id]
            else:
                self._known.move_to_end(source_id)  # so that others are checked next time
