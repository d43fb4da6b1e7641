"""The summaries of series as rows in Cassandra: for each group of machines, a row for each merge of a slot.

The rows of a group are joined from time to time. Rows may overlap and be repeated: the earliest first reading and the
last reading of the highest rank count.

A row is, little-endian: the bytes of the compressed names u32, the number of series u32, the names; then, compressed, a
JSON list of the sources, and the columns: the times of the first and of the last readings i64, the last values float64,
the places of their sources u32, their sequences i64.
"""

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from aurum.ingestion.cassandra.blocks import Names, decode_names, new_id
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.store import SeriesSummary
from aurum.readings.batch import Numbers, SeriesKeys, Timestamps, Values
from aurum.runtime import damage
from aurum.storage.block_unpacking import CorruptBlockError
from aurum.storage.frames import decompress
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.ranks import Integers, Rank

FAN_IN = 16  # rows of a group that are joined
_LENGTHS = struct.Struct("<II")
_SERIES_BYTES = 36  # in the columns


class CorruptSummaryError(Exception):
    """The bytes are not summaries, or are damaged."""


@dataclass(frozen=True, slots=True)
class Summaries:
    """Summaries of series in columns.

    Attributes:
        numbers: The series.
        firsts: The time of the first reading of each.
        lasts: The time of the last reading.
        values: The value of the last reading.
        sources: The sources of the last readings, sorted.
        places: The place of the source of each last reading.
        sequences: The sequence of its batch.
    """

    numbers: Numbers
    firsts: Timestamps
    lasts: Timestamps
    values: Values
    sources: Sequence[Rank]
    places: Integers
    sequences: Integers


def of_readings(readings: PackedReadings) -> Summaries:
    """Returns the summaries of readings."""
    ends = readings.ends
    ranks = readings.ranks
    runs = readings.last_runs
    return Summaries(
        readings.numbers,
        readings.timestamps[ends - readings.lengths],
        readings.timestamps[ends - 1],
        readings.values[ends - 1],
        ranks.sources,
        ranks.places[runs],
        ranks.sequences[runs],
    )


def join(parts: Sequence[Summaries]) -> Summaries:
    """Joins at least one part. The parts may have the same series."""
    sources = sorted({source for part in parts for source in part.sources})
    place_of = {source: place for place, source in enumerate(sources)}
    places = np.concatenate(
        [np.array([place_of[source] for source in part.sources], np.int64)[part.places] for part in parts]
    )
    numbers = np.concatenate([part.numbers for part in parts])
    lasts = np.concatenate([part.lasts for part in parts])
    sequences = np.concatenate([part.sequences for part in parts])
    order = np.lexsort((sequences, places, lasts, numbers))
    ends = np.flatnonzero(np.append(numbers[order][1:] != numbers[order][:-1], True))
    newest = order[ends]
    firsts = np.concatenate([part.firsts for part in parts])[order]
    values = np.concatenate([part.values for part in parts])[newest]
    starts = np.append(0, ends[:-1] + 1)
    return Summaries(
        numbers[newest], np.minimum.reduceat(firsts, starts), lasts[newest], values, sources, places[newest],
        sequences[newest],
    )  # fmt: skip


def as_list(series: SeriesIndex, part: Summaries) -> list[SeriesSummary]:
    """Returns an object for each series."""
    sources = part.sources
    columns = zip(
        part.numbers.tolist(), part.firsts.tolist(), part.lasts.tolist(), part.values.tolist(),
        part.places.tolist(), part.sequences.tolist(), strict=True,
    )  # fmt: skip
    return [
        SeriesSummary(*series.key_of(number), first, last, value, (*sources[place], sequence))
        for number, first, last, value, place, sequence in columns
    ]


def encode(names: Names, part: Summaries) -> bytes:
    """Encodes summaries in the format that the module describes. `names` are those of their series."""
    used, places = np.unique(part.places, return_inverse=True)
    sources = json.dumps([list(part.sources[place]) for place in used.tolist()], separators=(",", ":")).encode()
    columns = (
        part.firsts.astype("<i8"), part.lasts.astype("<i8"), part.values.astype("<f8"), places.astype("<u4"),
        part.sequences.astype("<i8"),
    )  # fmt: skip
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=True, write_checksum=True)
    rest = compressor.compress(b"".join((sources, *(column.tobytes() for column in columns))))
    return _LENGTHS.pack(len(names.data), len(names.keys)) + names.data + rest


def decode(series: SeriesIndex, data: bytes) -> Summaries:
    """Decodes the result of `encode`. Raises CorruptSummaryError."""
    try:
        names_bytes, count = _LENGTHS.unpack_from(data)
        end = _LENGTHS.size + names_bytes
        keys = SeriesKeys(decode_names(data[_LENGTHS.size : end]))
        content = decompress(zstandard.ZstdDecompressor(), data[end:])
        sources = [tuple(source) for source in json.loads(content[: -_SERIES_BYTES * count])]
        columns = content[-_SERIES_BYTES * count :]
        if len(keys) != count or len(columns) != _SERIES_BYTES * count:
            raise ValueError(f"they have {len(keys)} names for {count} series")
        if int(np.frombuffer(columns, "<u4", count, 24 * count).max()) >= len(sources):
            raise ValueError(f"they refer to more than {len(sources)} sources")
    except (
        zstandard.ZstdError, CorruptBlockError, MemoryError, RecursionError, ValueError, TypeError, struct.error
    ) as error:  # fmt: skip
        raise CorruptSummaryError(f"summaries cannot be read: {error}") from error
    offset = 0

    def column(kind: str) -> npt.NDArray[Any]:
        nonlocal offset
        found = np.frombuffer(columns, kind, len(keys), offset)
        offset += found.nbytes
        return found

    firsts, lasts, values, places, sequences = (column(kind) for kind in ("<i8", "<i8", "<f8", "<u4", "<i8"))
    return Summaries(series.assign(keys), firsts, lasts, values, sources, places.astype(np.int64), sequences)


def read_groups(session: CassandraSession, series: SeriesIndex, groups: Iterable[int]) -> list[tuple[str, Summaries]]:
    """Returns the rows of some groups: their ids and summaries. Blocks. Raises UnavailableError."""
    found: list[tuple[str, Summaries]] = []
    for group, rows in zip(groups, session.rows_for_each("summaries", [(group,) for group in groups]), strict=True):
        for row in rows:
            try:
                found.append((row.id, decode(series, row.data)))
            except CorruptSummaryError as error:
                damage.report("summary", f"{group}/{row.id}", str(error), "it stays where it is and is not used")
    return found


def join_group(session: CassandraSession, series: SeriesIndex, group: int) -> int:
    """Joins the rows of a group. Several replicas may do it at once. Blocks.

    Returns:
        The number of joined rows.

    Raises:
        UnavailableError: If Cassandra does not answer.
    """
    rows = read_groups(session, series, [group])
    if len(rows) < 2:
        return 0
    joined = join([part for _, part in rows])
    data = encode(Names.of(series, joined.numbers), joined)
    session.rows_for_each("add_summary", [(group, new_id(), data)])
    session.rows_for_each("drop_summary", [(group, row_id) for row_id, _ in rows])
    return len(rows)
