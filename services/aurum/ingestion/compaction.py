"""Merging of small segments: what arrives every second must not stay a row for every second.

Segments of a series are merged _FAN_IN at a time, and the merged ones again, so that a reading is rewritten at most
once a level. A merged segment takes the key of its newest part; of readings at the same time the newest part's stays.
"""

import sqlite3
from dataclasses import dataclass, field

from aurum.ingestion.downsample import merge
from aurum.ingestion.store import DAY_US
from aurum.storage.segment import pack, unpack

_FAN_IN = 64
_LEVELS = (_FAN_IN, _FAN_IN**2)  # a segment with fewer readings than this belongs below the level
_MOST_AT_ONCE = 8  # series merged with one batch, so that no batch waits long


@dataclass(slots=True)
class _Pending:
    """Segments of one series at one level that were not merged yet: how many, and where the first of them starts."""

    segments: int = 0
    from_us: int = 2**62


@dataclass(slots=True)
class Compactor:
    """Remembers what there is to merge since the start of the process. For the store's writer thread alone."""

    _pending: dict[tuple[int, int], _Pending] = field(default_factory=dict)
    _due: dict[tuple[int, int], None] = field(default_factory=dict)

    def note(self, series: int, start_us: int, count: int) -> None:
        """Takes note of a segment that was written."""
        level = next((index for index, limit in enumerate(_LEVELS) if count < limit), None)
        if level is None:
            return
        key = (series, level)
        pending = self._pending.setdefault(key, _Pending())
        pending.segments += 1
        pending.from_us = min(pending.from_us, start_us)
        if pending.segments >= _FAN_IN:
            self._due[key] = None

    def forget(self) -> None:
        """After a rollback: what was noted may not be there."""
        self._pending.clear()
        self._due.clear()

    def run(self, connection: sqlite3.Connection) -> None:
        """Merges some of what is due, in the transaction of the caller."""
        for _ in range(min(_MOST_AT_ONCE, len(self._due))):
            series, level = key = next(iter(self._due))
            del self._due[key]
            pending = self._pending.pop(key)
            self._merge(connection, series, level, pending.from_us)

    def _merge(self, connection: sqlite3.Connection, series: int, level: int, from_us: int) -> None:
        least = _LEVELS[level - 1] if level else 0
        rows = connection.execute(
            "SELECT start_us, source, sequence, data FROM segments "
            "WHERE series = ? AND start_us >= ? AND count >= ? AND count < ?",
            (series, from_us, least, _LEVELS[level]),
        ).fetchall()
        days: dict[int, list[tuple[int, int, int, bytes]]] = {}
        for row in rows:
            days.setdefault(row[0] // DAY_US, []).append(row)
        for parts in days.values():
            if len(parts) < 2:
                continue
            parts.sort(key=lambda row: row[1:3])
            timestamps, values = merge([unpack(data) for *_, data in parts])
            connection.executemany(
                "DELETE FROM segments WHERE series = ? AND start_us = ? AND source = ? AND sequence = ?",
                [(series, *row[:3]) for row in parts],
            )
            _, source, sequence, _ = parts[-1]
            start_us, end_us = int(timestamps[0]), int(timestamps[-1])
            connection.execute(
                "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?)",
                (series, start_us, source, sequence, end_us, len(values), pack(timestamps, values)),
            )
            self.note(series, start_us, len(values))
