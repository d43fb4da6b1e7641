"""The first and the last reading of each series, in arrays.

The table `series` has them for the readings in segments and in merged blocks. It is not updated at each flush of a
block, since that would cost as much as the readings themselves; those readings are found in the block.
"""

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Numbers, Timestamps, Values
from aurum.storage.packed_readings import PackedReadings

NEVER = 2**62  # the time of the first reading of a series without readings
_NO_LAST = -1
_Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SeriesEnds:
    """The ends of some series.

    Attributes:
        numbers: The number of each series.
        firsts: The time of its first reading.
        lasts: The time of its last reading.
        values: The value of that reading.
        sources: The source of the rank of that reading.
        sequences: The sequence of that rank.
    """

    numbers: Numbers
    firsts: Timestamps
    lasts: Timestamps
    values: Values
    sources: _Integers
    sequences: _Integers

    @classmethod
    def of(cls, readings: PackedReadings) -> "SeriesEnds":
        """Returns the ends of the series of packed readings, whose ranks are those of the store in SQLite."""
        ends = readings.ends
        ranks = readings.ranks
        runs = readings.last_runs
        return cls(
            readings.numbers,
            readings.timestamps[ends - readings.lengths],
            readings.timestamps[ends - 1],
            readings.values[ends - 1],
            np.array([source[0] for source in ranks.sources], np.int64)[ranks.places[runs]],
            ranks.sequences[runs],
        )

    def selected(self, chosen: npt.NDArray[np.bool_]) -> "SeriesEnds":
        """Returns the ends of some of the series, given by a mask."""
        return SeriesEnds(
            self.numbers[chosen],
            self.firsts[chosen],
            self.lasts[chosen],
            self.values[chosen],
            self.sources[chosen],
            self.sequences[chosen],
        )

    def update_rows(self, connection: sqlite3.Connection) -> None:
        """Updates the rows of the series. Raises sqlite3.Error."""
        numbers = self.numbers.tolist()
        # The first readings seldom change, and reading many rows at once takes less time than updating each
        latest = connection.execute(
            "SELECT max(first_us) FROM series WHERE id >= ? AND id <= ?", (numbers[0], numbers[-1])
        ).fetchone()[0]
        if latest > int(self.firsts.min()):
            connection.executemany(
                "UPDATE series SET first_us = ?2 WHERE id = ?1 AND first_us > ?2",
                zip(numbers, self.firsts.tolist(), strict=True),
            )
        connection.executemany(
            "UPDATE series SET last_us = ?2, last_value = ?3, last_source = ?4, last_sequence = ?5 "
            "WHERE id = ?1 AND (?2, ?4, ?5) >= (last_us, last_source, last_sequence)",
            zip(
                numbers,
                self.lasts.tolist(),
                self.values.tolist(),
                self.sources.tolist(),
                self.sequences.tolist(),
                strict=True,
            ),
        )


class AllEnds:
    """The ends of all series, by number."""

    def __init__(self, count: int) -> None:
        """Starts without readings, for series with numbers below `count`."""
        self.firsts = np.full(count, NEVER, np.int64)
        self.lasts = np.full(count, _NO_LAST, np.int64)
        self.values = np.full(count, math.nan)
        self.sources = np.zeros(count, np.int64)
        self.sequences = np.zeros(count, np.int64)

    def include_rows(self, rows: Sequence[Sequence[Any]]) -> None:
        """Includes rows of the table: number, first, last, last value, and the source and sequence of its rank."""
        if not rows:
            return
        numbers, firsts, lasts, values, sources, sequences = zip(*rows, strict=True)
        self.include(
            SeriesEnds(
                np.array(numbers, np.int32),
                np.array(firsts, np.int64),
                np.array(lasts, np.int64),
                np.array(values, np.float64),  # None becomes NaN
                np.array(sources, np.int64),
                np.array(sequences, np.int64),
            )
        )

    def include(self, ends: SeriesEnds) -> None:
        """Includes the ends of some series, each of them once."""
        known = ends.numbers < len(self.firsts)
        if not known.all():  # numbered after this was created
            ends = ends.selected(known)
        numbers = ends.numbers
        self.firsts[numbers] = np.minimum(self.firsts[numbers], ends.firsts)
        lasts, sources = self.lasts[numbers], self.sources[numbers]
        higher = (ends.sources > sources) | ((ends.sources == sources) & (ends.sequences >= self.sequences[numbers]))
        newer = (ends.lasts > lasts) | ((ends.lasts == lasts) & higher)
        chosen = numbers[newer]
        self.lasts[chosen] = ends.lasts[newer]
        self.values[chosen] = ends.values[newer]
        self.sources[chosen] = ends.sources[newer]
        self.sequences[chosen] = ends.sequences[newer]
