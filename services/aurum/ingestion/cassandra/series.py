"""Questions to the segments of one series in Cassandra. They block, so they are asked on threads."""

from collections.abc import Sequence
from dataclasses import dataclass

from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.series_reader import Piece
from aurum.ingestion.store import DAY_US
from aurum.readings.batch import Timestamps, Values
from aurum.storage.segment import unpack


class SegmentsChangedError(Exception):
    """A segment was merged away between listing and reading; asked again, the same question is answered."""


@dataclass(frozen=True, slots=True)
class CassandraSeries:
    """A SegmentSource. The place of a piece is the key of its row."""

    session: CassandraSession
    machine_id: str
    sensor: str

    def days(self) -> list[int]:
        """Days since the epoch on which there are readings."""
        return sorted(row.day for row in self.session.rows("days", (self.machine_id, self.sensor)))

    def pieces(self, start_us: int, end_us: int) -> list[Piece]:
        days = [day for day in self.days() if start_us // DAY_US <= day <= (end_us - 1) // DAY_US]
        found: list[Piece] = []
        keys = self.session.each("segment_keys", [(self.machine_id, self.sensor, day) for day in days])
        for day, rows in zip(days, keys, strict=True):
            for row in rows:
                if row.start_us < end_us and row.end_us >= start_us:
                    key = (self.machine_id, self.sensor, day, row.start_us, row.source_us, row.source, row.sequence)
                    rank = (row.source_us, row.source, row.sequence)
                    found.append(Piece(rank, row.start_us, row.end_us, row.count, key))
        return found

    def newest_before(self, before_us: int) -> int | None:
        for day in reversed(self.days()):
            if day * DAY_US >= before_us:
                continue
            keys = self.session.rows("segment_keys", (self.machine_id, self.sensor, day))
            starts: list[int] = [row.start_us for row in keys if row.start_us < before_us]
            if starts:
                return max(starts)
        return None

    def load(self, pieces: Sequence[Piece]) -> list[tuple[Timestamps, Values]]:
        """Raises SegmentsChangedError."""
        found = []
        for rows in self.session.each("segment", [piece.place for piece in pieces]):
            if not rows:
                raise SegmentsChangedError
            found.append(unpack(rows[0].data))
        return found
