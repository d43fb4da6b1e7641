"""Blocks as rows in Cassandra: readings of many series of a group of machines, in one period.

A row holds one or several blocks in the format of aurum.storage.block, whose series are numbered within the row: for
each its lengths and its head, and separately its data. A row has the names of its series, and says which machines it
has.
"""

import struct
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zstandard

from aurum.ingestion.cassandra.batch_rows import encode_members, may_have
from aurum.ingestion.cassandra.schema import PERIOD_US, group_of
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.series_index import SeriesIndex
from aurum.readings.batch import Numbers, SeriesKey, SeriesKeys
from aurum.runtime import damage
from aurum.storage.block import BLOCK_SERIES, PackedBlock, pack_blocks
from aurum.storage.block_unpacking import BlockHead, CorruptBlockError, unpack_blocks
from aurum.storage.frames import decompress
from aurum.storage.packed_readings import PackedReadings, count_by_series
from aurum.storage.ranks import Ranked

_LENGTHS = struct.Struct("<II")  # of the head and of the data of a block
_MISMATCH = "the names of a block do not match its content"
_READINGS = 32_768  # of a block, approximately
_LEAST_SERIES = 16  # of a block, if there are as many

Place = tuple[int, int]  # group of machines, period


@dataclass(frozen=True, slots=True)
class BlockKey:
    """A block that has not been read yet."""

    place: Place
    level: int
    id: str
    chunk: int
    start_us: int
    end_us: int
    count: int
    members: bytes

    @property
    def row(self) -> tuple[Any, ...]:
        """The key of its row."""
        return (*self.place, self.level, self.id, self.chunk)


class Names:
    """The names of the series of some readings, in their order, with what rows say about them."""

    def __init__(self, keys: Sequence[SeriesKey]) -> None:
        self.keys = keys

    @classmethod
    def of(cls, series: SeriesIndex, numbers: Numbers) -> "Names":
        """Returns the names of series with some numbers."""
        return cls([series.key_of(number) for number in numbers.tolist()])

    def between(self, start: int, end: int) -> "Names":
        """Returns the names from one position up to another one."""
        return self if start == 0 and end >= len(self.keys) else Names(self.keys[start:end])

    @cached_property
    def data(self) -> bytes:
        """The names, compressed. They contain no control characters."""
        text = "\n".join(map("\t".join, self.keys))
        return zstandard.ZstdCompressor(level=1, write_content_size=True, write_checksum=True).compress(text.encode())

    @cached_property
    def members(self) -> bytes:
        """Which machines there are."""
        return encode_members(tuple({machine_id for machine_id, _ in self.keys}))


def new_id() -> str:
    """Returns an id for what one merge writes, which no other merge uses."""
    return uuid.uuid4().hex


def rows_of(  # noqa: PLR0917
    place: Place, level: int, block_id: str, readings: PackedReadings, names: Names, ttl: int
) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of blocks with readings of one group and period.

    Args:
        place: The group and the period.
        level: How often the readings were merged.
        block_id: The id of the merge.
        readings: The readings.
        names: The names of their series.
        ttl: The seconds that they are kept; 0 for ever.
    """
    count = len(readings.numbers)
    size = max(_LEAST_SERIES, min(BLOCK_SERIES, _READINGS * count // len(readings.values)))
    index = np.arange(count)
    local = (index // size * BLOCK_SERIES + index % size).astype(np.int32)
    renumbered = PackedReadings(local, readings.lengths, readings.timestamps, readings.values, readings.ranks)
    blocks = pack_blocks(renumbered)
    together: list[PackedBlock] = []
    for number, block in enumerate(blocks, 1):
        together.append(block)
        if number < len(blocks) and sum(each.count for each in together) + blocks[number].count <= _READINGS:
            continue
        first = together[0].bucket * size
        some = names.between(first, first + size * len(together))
        heads = b"".join(_LENGTHS.pack(len(each.head), len(each.data)) + each.head for each in together)
        start, end = min(each.start_us for each in together), max(each.end_us for each in together)
        readings_of_row = sum(each.count for each in together)
        data = b"".join(each.data for each in together)
        yield (*place, level, block_id, number, start, end, readings_of_row, some.members, some.data, heads, data, ttl)
        together = []


def list_blocks(session: CassandraSession, places: Sequence[Place]) -> list[BlockKey]:
    """Returns the blocks of groups and periods. Blocks. Raises UnavailableError."""
    keys: list[BlockKey] = []
    for place, rows in zip(places, session.rows_for_each("block_keys", places), strict=True):
        keys += [BlockKey(place, *row) for row in rows]
    return keys


def blocks_of_machine(
    session: CassandraSession, machine_id: str, start_us: int, end_us: int, periods: Sequence[int]
) -> list[BlockKey]:
    """Returns the blocks of some periods that may have readings of a machine in [start_us, end_us)."""
    group = group_of(machine_id)
    return [
        key
        for key in list_blocks(session, [(group, period) for period in periods])
        if key.start_us < end_us and key.end_us >= start_us and may_have(key.members, machine_id)
    ]


def read_series(row: Any, series: SeriesKey) -> Ranked | None:
    """Returns the readings of a series in the row of a block; None if it has none. Raises CorruptBlockError."""
    names = decode_names(row.names)
    if series not in names:
        return None
    index = names.index(series)
    for head, data in _parts(row):
        if index >= len(head.places):
            index -= len(head.places)
            continue
        number = head.frame_of(index)
        offset, length = head.bytes_of(number)
        timestamps, values = head.readings_of(index, head.columns_of(number, data[offset : offset + length]))
        return timestamps, values, head.ranks_of(index)
    raise CorruptBlockError(_MISMATCH)


def read_all(row: Any, series: SeriesIndex) -> Iterator[PackedReadings]:
    """Yields all readings of a block. Raises CorruptBlockError if any of them cannot be read."""
    names = decode_names(row.names)
    numbers = series.assign(SeriesKeys(names))
    start = 0
    for head, data in _parts(row):
        joined, problems = unpack_blocks([(head, data)])
        end = start + len(head.places)
        if joined is None or problems or end > len(names):
            raise CorruptBlockError("; ".join(problems.values()) or _MISMATCH)
        readings = joined.packed(0)
        yield PackedReadings(numbers[start:end], readings.lengths, readings.timestamps, readings.values, readings.ranks)
        start = end
    if start != len(names):
        raise CorruptBlockError(_MISMATCH)


def _parts(row: Any) -> Iterator[tuple[BlockHead, bytes]]:
    """Yields the head and the data of each block of a row. Raises CorruptBlockError."""
    heads, data = memoryview(row.head), memoryview(row.data)
    while heads:
        if len(heads) < _LENGTHS.size:
            raise CorruptBlockError("the heads of a block are truncated")
        head_bytes, data_bytes = _LENGTHS.unpack_from(heads)
        end = _LENGTHS.size + head_bytes
        yield BlockHead(bytes(heads[_LENGTHS.size : end])), bytes(data[:data_bytes])
        heads, data = heads[end:], data[data_bytes:]


def report_damage(key: BlockKey, error: CorruptBlockError) -> None:
    """Reports a block that cannot be read."""
    name = "/".join(map(str, key.row))
    damage.report("block", name, str(error), "it stays where it is, and its readings are in no answer")


def by_period(readings: PackedReadings) -> Iterator[tuple[int, PackedReadings]]:
    """Yields each period with its readings."""
    first, last = int(readings.timestamps.min()) // PERIOD_US, int(readings.timestamps.max()) // PERIOD_US
    if first == last:
        yield first, readings
        return
    periods = readings.timestamps // PERIOD_US
    order = np.argsort(periods, kind="stable")
    places = np.repeat(np.arange(len(readings.numbers), dtype=np.int32), readings.lengths)
    for chosen in np.split(order, np.flatnonzero(np.diff(periods[order])) + 1):
        found, lengths = count_by_series(places[chosen])
        yield (
            int(periods[chosen[0]]),
            PackedReadings(
                readings.numbers[found],
                lengths,
                readings.timestamps[chosen],
                readings.values[chosen],
                readings.ranks.selected(chosen),
            ),
        )


def decode_names(data: bytes) -> list[SeriesKey]:
    """Returns the names of series. Raises CorruptBlockError."""
    try:
        text = decompress(zstandard.ZstdDecompressor(), data).decode()
        return [(machine_id, sensor) for machine_id, sensor in (line.split("\t") for line in text.split("\n"))]
    except (zstandard.ZstdError, MemoryError, ValueError) as error:
        raise CorruptBlockError(f"the names of a block cannot be read: {error}") from error


class Periods:
    """Registers the periods of groups that get blocks. For one thread.

    A registration is repeated every hour, so that removing one that is two hours old hides no block.
    """

    _EVERY = 3600.0  # seconds
    _MOST = 100_000

    def __init__(self, session: CassandraSession, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._clock = clock
        self._registered: dict[Place, float] = {}

    def missing(self, places: Iterable[Place]) -> list[Place]:
        """Returns the periods of groups that are to be registered."""
        now = self._clock()
        return [place for place in places if now - self._registered.get(place, -self._EVERY) >= self._EVERY]

    def record(self, places: Sequence[Place]) -> None:
        """Records periods that were registered."""
        if len(self._registered) + len(places) > self._MOST:
            self._registered.clear()
        self._registered.update(dict.fromkeys(places, self._clock()))

    def remove(self, place: Place, now_us: int) -> None:
        """Removes a registration that was not repeated for two hours."""
        self._session.rows_for_each("drop_period", [(now_us - 2 * int(self._EVERY) * 1_000_000, *place)])
