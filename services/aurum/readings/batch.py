"""Columnar batches of readings, and the names that they may contain."""

import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from sys import intern
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aurum.v1 import columns_pb2, ingestion_pb2

Timestamps = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Column = tuple[Timestamps, Values]  # one sensor's readings, in time order
SeriesKey = tuple[str, str]  # machine id, sensor
Numbers = npt.NDArray[np.int32]

MAX_AHEAD_US = 5 * 60 * 1_000_000  # tolerance for fast clocks; later readings are refused
AHEAD_OF_CLOCK = "AHEAD_OF_CLOCK"  # reason for refusing such a batch; it may be accepted later
SEQUENCE_CLOSED = "SEQUENCE_CLOSED"  # reason for refusing a sequence in a closed gap
MAX_READINGS = 200_000  # per batch
MAX_SERIES = 20_000  # per batch
MAX_SEQUENCE = 2**62  # per source
SINGLE_BATCH_PREFIX = "key/"  # of source ids that send one batch, such as those of requests with an Idempotency-Key
_SOURCE_ID_BYTES = 8  # of randomness
EXACT_UP_TO = 2**53  # integers up to here are values without rounding
MAX_OWNER = 500  # characters of the name of a source's owner

_MACHINE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}")
_SENSOR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/%\- ]{0,63}")
_SOURCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/\-]{0,199}")


class Series(NamedTuple):
    """Readings of one sensor of one machine.

    Attributes:
        machine_id: The machine.
        sensor: The sensor.
        timestamps: Times in µs since the epoch; at least one.
        values: As many values.
        increasing: Whether the times are known to increase, so that they need not be checked again.
    """

    machine_id: str
    sensor: str
    timestamps: Timestamps
    values: Values
    increasing: bool = False


def interned_key(key: SeriesKey) -> SeriesKey:
    """Returns a key whose names share their memory with those of other keys. Each decoded batch has its own copies."""
    return intern(key[0]), intern(key[1])


class SeriesKeys:
    """The series of a batch, in its order, each of them once.

    Senders repeat the same series in batch after batch. The decoder therefore lets such batches share one object, so
    that what follows from the names is computed once.
    """

    __slots__ = ("_machine_ids", "_numbers", "keys")

    def __init__(self, keys: Sequence[SeriesKey]) -> None:
        self.keys = tuple(keys)
        self._machine_ids: tuple[str, ...] = ()
        self._numbers: tuple[object, Numbers] | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def machine_ids(self) -> tuple[str, ...]:
        """The machines, each of them once. They are found at the first use, since gateways do without."""
        if not self._machine_ids:
            self._machine_ids = tuple(dict.fromkeys(machine_id for machine_id, _ in self.keys))
        return self._machine_ids

    def interned(self) -> "SeriesKeys":
        """Returns the same series with names that share their memory with those of others."""
        return SeriesKeys([interned_key(key) for key in self.keys])

    def numbers_in(self, index: object, find: Callable[[Sequence[SeriesKey]], Numbers]) -> Numbers:
        """Returns the number of each series in an index; -1 for those that it does not know.

        The answer is kept once all series are known.

        Args:
            index: The index, whose numbers never change.
            find: Returns the numbers of series.
        """
        kept = self._numbers
        if kept is not None and kept[0] is index:
            return kept[1]
        numbers = find(self.keys)
        if numbers.min() >= 0:
            self._numbers = index, numbers
        return numbers


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The readings that a source sends together. `(source_id, sequence)` identifies a batch.

    Attributes:
        source_id: The source.
        sequence: The number of the batch within its source, from 1.
        keys: The series.
        lengths: The number of readings of each series, at least one.
        timestamps: The times of all series, one series after the other.
        values: The values, likewise.
        increasing: For each series, whether its times increase.
        data: The serialized message aurum.v1.Batch.
        owner: The identity that uses the source; empty if unknown.
    """

    source_id: str
    sequence: int
    keys: SeriesKeys
    lengths: Numbers
    timestamps: Timestamps
    values: Values
    increasing: npt.NDArray[np.bool_]
    data: bytes
    owner: str = ""

    @classmethod
    def from_series(cls, source_id: str, sequence: int, series: Sequence[Series]) -> "Batch":
        """Creates a batch without an owner from series, at least one."""
        keys = [(each.machine_id, each.sensor) for each in series]
        batch = cls.from_columns(source_id, sequence, keys, *_joined_columns(series))
        return replace(batch, increasing=np.array([each.increasing for each in series], np.bool_))

    @classmethod
    def from_columns(  # noqa: PLR0917
        cls,
        source_id: str,
        sequence: int,
        keys: Sequence[SeriesKey],
        lengths: Numbers,
        timestamps: Timestamps,
        values: Values,
    ) -> "Batch":
        """Creates a batch without an owner from the columns of all series, one series after the other.

        Args:
            source_id: The source.
            sequence: The number of the batch within its source.
            keys: The series, each of them once.
            lengths: The number of readings of each series, at least one.
            timestamps: The times, in any order.
            values: The values.
        """
        data = _message_of(source_id, sequence, keys, lengths, timestamps, values).SerializeToString()
        unknown = np.zeros(len(keys), np.bool_)  # whether times increase
        return cls(source_id, sequence, SeriesKeys(keys), lengths, timestamps, values, unknown, data)

    @property
    def readings(self) -> int:
        """The total number of readings."""
        return len(self.values)

    @property
    def series(self) -> tuple[Series, ...]:
        """The readings by series, which takes an object for each of them."""
        series: list[Series] = []
        start = 0
        for key, length, increasing in zip(
            self.keys.keys, self.lengths.tolist(), self.increasing.tolist(), strict=True
        ):
            end = start + length
            series.append(Series(*key, self.timestamps[start:end], self.values[start:end], increasing))
            start = end
        return tuple(series)

    def with_owner(self, owner: str) -> "Batch":
        """Returns the same batch with another owner."""
        if owner == self.owner:
            return self
        # Protobuf fields may come in any order, so a first owner is appended without decoding the columns. A second
        # owner would force the slow path of the decoder. A message that already has an owner is therefore written
        # again from its series, because its own columns may be in several pieces
        data = self.data
        if self.owner:
            data = columns_message(self.source_id, self.sequence, self.series).SerializeToString()
        data += columns_pb2.BatchColumns(owner=owner).SerializeToString()
        return replace(self, data=data, owner=owner)

    @property
    def nbytes(self) -> int:
        """The approximate size in memory, including the message."""
        return 16 * self.readings + 300 * len(self.keys) + len(self.data)


def now_us() -> int:
    """Returns the time in µs since the epoch."""
    return time.time_ns() // 1000


@lru_cache(maxsize=65_536)
def machine_id_problem(machine_id: str) -> str | None:
    """Returns what is wrong with a machine id, or None."""
    if _MACHINE_ID.fullmatch(machine_id):
        return None
    allowed = "1 to 128 letters, digits and . _ : -, with a letter or digit first"
    return f"{machine_id[:140]!r} is not a machine id; use {allowed}"


@lru_cache(maxsize=65_536)
def sensor_problem(sensor: str) -> str | None:
    """Returns what is wrong with a sensor name, or None."""
    if _SENSOR.fullmatch(sensor):
        return None
    return f"{sensor[:80]!r} is not a sensor name; use 1 to 64 letters, digits, spaces and . _ : / % -"


def source_id_problem(source_id: str) -> str | None:
    """Returns what is wrong with a source id, or None."""
    if _SOURCE_ID.fullmatch(source_id):
        return None
    allowed = "1 to 200 letters, digits and . _ : / -, with a letter or digit first"
    return f"{source_id[:220]!r} is not a source id; use {allowed}"


def new_source_id(name: str) -> str:
    """Returns the id of a source that nothing has used before, for a sender that counts its batches from 1 again.

    It is random, because times repeat: gateways with the same inputs start together after a power failure, and a clock
    without a battery shows the same time after each start. Batches of two senders with one source would be taken for
    each other, and acknowledged without being stored.

    Args:
        name: The beginning of the id, which says who sends.
    """
    return f"{name}-{secrets.token_hex(_SOURCE_ID_BYTES)}"


def encode(source_id: str, sequence: int, series: Sequence[Series]) -> ingestion_pb2.Batch:
    """Encodes a batch as a message."""
    return ingestion_pb2.Batch.FromString(columns_message(source_id, sequence, series).SerializeToString())


def encode_series(series: Sequence[Series]) -> bytes:
    """Returns the serialized field `series` of a message aurum.v1.Batch, to which its other fields can be appended."""
    return columns_message("", 0, series).SerializeToString()


def columns_message(source_id: str, sequence: int, series: Sequence[Series]) -> columns_pb2.BatchColumns:
    """Returns a batch as a message with a block of memory for each column."""
    if not series:
        return columns_pb2.BatchColumns(source_id=source_id, sequence=sequence)
    keys = [(each.machine_id, each.sensor) for each in series]
    return _message_of(source_id, sequence, keys, *_joined_columns(series))


def _joined_columns(series: Sequence[Series]) -> tuple[Numbers, Timestamps, Values]:
    """Returns the number of readings of each series, and the times and values of all."""
    return (
        np.array([len(each.values) for each in series], np.int32),
        np.concatenate([each.timestamps for each in series]),
        np.concatenate([each.values for each in series]),
    )


def _message_of(  # noqa: PLR0917
    source_id: str,
    sequence: int,
    keys: Sequence[SeriesKey],
    lengths: Numbers,
    timestamps: Timestamps,
    values: Values,
) -> columns_pb2.BatchColumns:
    # The bytes of all series are made at once and cut, since a batch may have thousands of series with one reading
    times = timestamps.astype("<i8", copy=False).tobytes()
    numbers = values.astype("<f8", copy=False).tobytes()
    ends = (8 * np.cumsum(lengths, dtype=np.int64)).tolist()
    return columns_pb2.BatchColumns(
        source_id=source_id,
        sequence=sequence,
        series=[
            columns_pb2.SeriesColumns(
                machine_id=machine_id, sensor=sensor, timestamps_us=times[start:end], values=numbers[start:end]
            )
            for (machine_id, sensor), start, end in zip(keys, [0, *ends], ends, strict=False)
        ],
    )
