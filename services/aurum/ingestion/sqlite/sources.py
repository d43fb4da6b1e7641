"""What each source has sent: which sequences are durable, so that what is sent again is recognised."""

import itertools
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from aurum.readings.batch import ONE_BATCH, Batch
from aurum.runtime.errors import InvalidArgumentError
from aurum.storage import ledger

_REMEMBERED = 20_000  # sources in memory; of the others the tables know
_LOOKED_AT = 16  # sources at least, when there are too many
_COMMON = "*"  # no source of a sender's can have this id
_MAX_GAPS = 10_000  # in the sequences of one source


@dataclass(slots=True)
class Source:
    """number: grows with the time of the first batch, so that of two sources the later one counts. owner: the caller it
    belongs to, empty if unknown."""

    number: int
    owner: str = ""
    ranges: list[ledger.Range] = field(default_factory=list)


class Sources:
    """For the log's thread; `flushed` and `forget` also for the one that writes the tables."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Source] = OrderedDict()
        self._changed: set[str] = set()  # since the last flush began
        self._flushing: set[str] = set()
        self._next_number: int = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM sources").fetchone()[0]

    def get(self, source_id: str) -> Source:
        """The source, which may be new. Raises sqlite3.Error."""
        with self._lock:
            known = self._known.get(source_id)
            if known is not None:
                self._known.move_to_end(source_id)
                return known
        row = self._connection.execute("SELECT id, owner FROM sources WHERE source_id = ?", (source_id,)).fetchone()
        if row is None:
            source = Source(self._next_number)
            self._next_number += 1
        else:
            received = "SELECT first, last FROM received WHERE source = ? ORDER BY first"
            source = Source(row[0], row[1], self._connection.execute(received, row[:1]).fetchall())
        with self._lock:
            self._known[source_id] = source
            self._forget_some()
        return source

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
        """Raises InvalidArgumentError for a source that skips sequences without end."""
        ranges = self.get(batch.source_id).ranges
        if len(ranges) >= _MAX_GAPS and not ledger.contains(ranges, batch.sequence - 1):
            raise InvalidArgumentError.of(
                "batch.sequence", f"leaves more than {_MAX_GAPS} gaps in the sequences of {batch.source_id}; count up"
            )

    def record(self, batch: Batch) -> tuple[int, int]:
        """Takes note of a batch that is durable, the next of the log; its rank. Of readings of the same time those of
        the highest rank count."""
        source = self.get(batch.source_id)
        with self._lock:
            source.owner = batch.owner
            ledger.record(source.ranges, batch.sequence)
            self._changed.add(batch.source_id)
        if not batch.source_id.startswith(ONE_BATCH):
            return source.number, batch.sequence
        # As if all came from one source in the order of arrival: what has a source of its own would never be merged
        common = self.get(_COMMON)
        with self._lock:
            sequence = common.ranges[-1][1] + 1 if common.ranges else 1
            ledger.record(common.ranges, sequence)
            self._changed.add(_COMMON)
        return common.number, sequence

    def freeze(self) -> list[tuple[str, Source]]:
        """What has changed since the last flush: each source with its id."""
        with self._lock:
            self._flushing |= self._changed
            self._changed = set()
            sources = [(name, self._known[name]) for name in sorted(self._flushing)]
            return [(name, replace(source, ranges=list(source.ranges))) for name, source in sources]

    def flushed(self) -> None:
        """What was frozen is in the tables."""
        with self._lock:
            self._flushing.clear()

    def forget(self, source_ids: Iterable[str]) -> None:
        """Drops sources that are no longer in the tables, unless they have just sent something."""
        with self._lock:
            for source_id in source_ids:
                if source_id not in self._changed and source_id not in self._flushing:
                    self._known.pop(source_id, None)

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
