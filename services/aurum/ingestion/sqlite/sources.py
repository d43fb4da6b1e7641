"""What each source has sent: which sequences are durable, so that what is sent again is recognised."""

import itertools
import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from aurum.readings.batch import ONE_BATCH, SEQUENCE_CLOSED, Batch
from aurum.runtime import metrics
from aurum.runtime.errors import InvalidArgumentError
from aurum.storage import ledger

logger = logging.getLogger(__name__)

_REMEMBERED = 20_000  # sources in memory; of the others the tables know
_LOOKED_AT = 16  # sources at least, when there are too many
_COMMON = "*"  # no source of a sender's can have this id
_MAX_RANGES = 10_000  # of the sequences of one source; with more, the oldest are closed
_KEPT_RANGES = 5_000  # that stay then


@dataclass(slots=True)
class Source:
    """number: grows with the time of the first batch, so that of two sources the later one counts; 0 before there is
    one. owner: the caller it belongs to, empty if unknown. closed: the sequence up to which nothing is taken any more;
    a range begins with 0 then, and holds what was stored up to there and what was missing."""

    number: int = 0
    owner: str = ""
    ranges: list[ledger.Range] = field(default_factory=list)
    closed: int = 0


class Sources:
    """For the log's thread; `flushed` and `forget` are for the threads that write the tables."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Source] = OrderedDict()
        self._changed: set[str] = set()  # since the last flush began
        self._flushing: set[str] = set()
        self._last_number: int = connection.execute("SELECT last FROM source_numbers").fetchone()[0]

    def get(self, source_id: str) -> Source:
        """The source, which may be new. Raises sqlite3.Error."""
        with self._lock:
            known = self._known.get(source_id)
            if known is not None:
                self._known.move_to_end(source_id)
                return known
            source = self._known[source_id] = self._read(source_id)
            self._forget_some()
        return source

    def _read(self, source_id: str) -> Source:
        columns = "SELECT id, owner, closed FROM sources WHERE source_id = ?"
        row = self._connection.execute(columns, (source_id,)).fetchone()
        if row is None:
            return Source()
        number, owner, closed = row
        received = "SELECT first, last FROM received WHERE source = ? ORDER BY first"
        return Source(number, owner, self._connection.execute(received, (number,)).fetchall(), closed)

    def owners(self, numbers: Iterable[int]) -> set[str]:
        """To whom sources belong, by their numbers; an empty name stands for one that is not known. Raises
        sqlite3.Error."""
        with self._lock:
            known = {source.number: source.owner for source in self._known.values()}
        found: set[str] = set()
        for number in numbers:
            owner = known.get(number)
            if owner is None:
                row = self._connection.execute("SELECT owner FROM sources WHERE id = ?", (number,)).fetchone()
                owner = row[0] if row else ""
            found.add(owner)
        return found

    def check(self, batch: Batch) -> None:
        """Raises InvalidArgumentError for a sequence of which nobody knows any more whether it was stored."""
        closed = self.get(batch.source_id).closed
        if batch.sequence <= closed:
            error = InvalidArgumentError.of(
                "batch.sequence",
                f"is {batch.sequence}, and source {batch.source_id} has left so many gaps that its sequences up to "
                f"{closed} are closed: whether this one was stored is not known any more; send on with higher ones",
                source_id=batch.source_id,
                sequence=str(batch.sequence),
            )
            error.reason = SEQUENCE_CLOSED
            raise error

    def record(self, batch: Batch) -> tuple[int, int]:
        """Takes note of a batch that is durable, the next of the log; its rank. Of readings of the same time those of
        the highest rank count. Raises sqlite3.Error."""
        source = self.get(batch.source_id)
        with self._lock:
            source.owner = batch.owner
            rank = self._record(batch.source_id, source, batch.sequence)
        if not batch.source_id.startswith(ONE_BATCH):
            return rank
        # As if all came from one source in the order of arrival: its ranks are in a row, and become one when merged
        common = self.get(_COMMON)
        with self._lock:
            return self._record(_COMMON, common, common.ranges[-1][1] + 1 if common.ranges else 1)

    def _record(self, source_id: str, source: Source, sequence: int) -> tuple[int, int]:
        if not source.number:  # only now: read from the log again, the sources get the same numbers
            self._last_number += 1
            source.number = self._last_number
        ledger.record(source.ranges, sequence)
        self._changed.add(source_id)
        if len(source.ranges) > _MAX_RANGES:
            closing = len(source.ranges) - _KEPT_RANGES
            source.closed = source.ranges[closing][0] - 1
            ledger.record(source.ranges, 0, source.closed)
            metrics.ingestion_sequence_gaps_closed_total.inc(closing)
            logger.warning(
                "source %s left more than %d gaps in its sequences; up to %d they are refused from now on",
                source_id,
                _MAX_RANGES,
                source.closed,
            )
        return source.number, sequence

    def freeze(self) -> tuple[list[tuple[str, Source]], int]:
        """What has changed since the last flush: each source with its id, and the last number that was given."""
        with self._lock:
            self._flushing |= self._changed
            self._changed = set()
            sources = [(name, self._known[name]) for name in sorted(self._flushing)]
            copies = [(name, replace(source, ranges=list(source.ranges))) for name, source in sources]
            return copies, self._last_number

    def flushed(self) -> None:
        """What was frozen is in the tables."""
        with self._lock:
            self._flushing.clear()

    def forget(self, connection: sqlite3.Connection, before_us: int) -> None:
        """Drops sources that were not seen since a time, in the tables and here at once; one that has just sent
        something stays, with its number and its sequences. Raises sqlite3.Error."""
        connection.execute("BEGIN IMMEDIATE")  # before the lock: another may be writing the tables for a while
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

    def _forget_some(self) -> None:
        """Of the sources not heard of for longest, as long as there are too many; those that the tables lack stay."""
        surplus = len(self._known) - _REMEMBERED
        if surplus <= 0:
            return
        for source_id in list(itertools.islice(self._known, surplus + _LOOKED_AT)):
            if source_id not in self._changed and source_id not in self._flushing:
                del self._known[source_id]
            else:
                self._known.move_to_end(source_id)  # so that others are looked at next time
