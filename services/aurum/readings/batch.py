"""Columnar batches of readings, and the rules that a batch must obey to be stored."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from aurum.runtime.errors import InvalidArgumentError
from aurum.v1 import ingestion_pb2

Timestamps = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Column = tuple[Timestamps, Values]  # of one sensor, in the order of time

MAX_AHEAD_US = 5 * 60 * 1_000_000  # a clock may be so far ahead; a reading from further in the future is wrong
MAX_READINGS = 200_000  # in one batch
MAX_SERIES = 20_000  # in one batch

_MACHINE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}")
_SENSOR = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/%\- ]{0,63}")
_SOURCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/\-]{0,199}")


@dataclass(frozen=True, slots=True)
class Series:
    """Readings of one sensor of one machine: microseconds since the epoch and values, of the same length ≥ 1.

    increasing: the times are known to increase, so nobody needs to look again.
    """

    machine_id: str
    sensor: str
    timestamps: Timestamps
    values: Values
    increasing: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What a source sent at once; (source_id, sequence) identifies it."""

    source_id: str
    sequence: int
    series: tuple[Series, ...]
    readings: int

    @property
    def nbytes(self) -> int:
        """Approximate size in memory."""
        return 16 * self.readings + 200 * len(self.series)


def now_us() -> int:
    return time.time_ns() // 1000


@lru_cache(maxsize=65_536)
def machine_id_problem(machine_id: str) -> str | None:
    """What is wrong with a machine id, or None."""
    if _MACHINE_ID.fullmatch(machine_id):
        return None
    return f"{machine_id[:140]!r} is no machine id; use 1 to 128 letters, digits and . _ : -, a letter or digit first"


@lru_cache(maxsize=65_536)
def sensor_problem(sensor: str) -> str | None:
    """What is wrong with a sensor name, or None."""
    if _SENSOR.fullmatch(sensor):
        return None
    return f"{sensor[:80]!r} is no sensor name; use 1 to 64 letters, digits, spaces and . _ : / % -"


def source_id_problem(source_id: str) -> str | None:
    """What is wrong with a source id, or None."""
    if _SOURCE_ID.fullmatch(source_id):
        return None
    return f"{source_id[:220]!r} is no source id; use 1 to 200 letters, digits and . _ : / -, a letter or digit first"


def decode(message: ingestion_pb2.Batch, now: int | None = None, field: str = "batch") -> Batch:
    """The batch in a message. Raises InvalidArgumentError that names the first field that breaks a rule.

    now: microseconds since the epoch, the clock's by default. field: where the message stands in the request.
    """
    if problem := source_id_problem(message.source_id):
        raise InvalidArgumentError.of(f"{field}.source_id", problem)
    if message.sequence == 0:
        raise InvalidArgumentError.of(f"{field}.sequence", "must be at least 1")
    count = len(message.series)
    if not 1 <= count <= MAX_SERIES:
        raise InvalidArgumentError.of(f"{field}.series", f"has {count} series; 1 to {MAX_SERIES} are allowed")
    seen: set[tuple[str, str]] = set()
    keys: list[tuple[str, str]] = []
    columns: list[tuple[Timestamps, Values]] = []
    for index, each in enumerate(message.series):
        machine_id, sensor = each.machine_id, each.sensor
        if problem := machine_id_problem(machine_id):
            raise InvalidArgumentError.of(f"{field}.series[{index}].machine_id", problem)
        if problem := sensor_problem(sensor):
            raise InvalidArgumentError.of(f"{field}.series[{index}].sensor", problem)
        if (machine_id, sensor) in seen:
            raise InvalidArgumentError.of(
                f"{field}.series[{index}]", f"machine {machine_id}, sensor {sensor} stands in this batch twice"
            )
        seen.add((machine_id, sensor))
        timestamps = np.array(each.timestamps_us, dtype=np.int64)
        values = np.array(each.values, dtype=np.float64)
        if len(timestamps) != len(values) or not len(values):
            raise InvalidArgumentError.of(
                f"{field}.series[{index}].values",
                f"has {len(values)} values for {len(timestamps)} timestamps; there must be as many, at least one",
            )
        keys.append((machine_id, sensor))
        columns.append((timestamps, values))
    increasing = _check_columns(keys, columns, now_us() if now is None else now, field)
    series = tuple(
        Series(*key, *column, each) for key, column, each in zip(keys, columns, increasing.tolist(), strict=True)
    )
    return Batch(message.source_id, message.sequence, series, sum(len(column[1]) for column in columns))


def encode(source_id: str, sequence: int, series: Sequence[Series]) -> ingestion_pb2.Batch:
    """The message of a batch."""
    return ingestion_pb2.Batch(
        source_id=source_id,
        sequence=sequence,
        series=[
            ingestion_pb2.Series(
                machine_id=each.machine_id,
                sensor=each.sensor,
                timestamps_us=each.timestamps.tolist(),
                values=each.values.tolist(),
            )
            for each in series
        ],
    )


def with_times(
    series: Iterable[ingestion_pb2.QueriedSeries],
) -> Iterator[tuple[ingestion_pb2.QueriedSeries, Timestamps]]:
    """Each series of one answer with its times, which are in the message only where they change."""
    times: Timestamps = np.empty(0, np.int64)
    for each in series:
        if len(each.timestamps_us):
            times = np.array(each.timestamps_us, dtype=np.int64)
        yield each, times


def _check_columns(
    keys: list[tuple[str, str]], columns: list[tuple[Timestamps, Values]], now: int, field: str
) -> npt.NDArray[np.bool_]:
    """Checks all columns at once, which is fast for many short ones; returns which have increasing times."""
    timestamps = np.concatenate([column[0] for column in columns])
    values = np.concatenate([column[1] for column in columns])
    readings = len(values)
    if readings > MAX_READINGS:
        raise InvalidArgumentError.of(f"{field}.series", f"have {readings} readings; {MAX_READINGS} are allowed")
    starts = np.cumsum([0] + [len(column[1]) for column in columns[:-1]])

    def place(position: int) -> tuple[int, int]:
        index = int(np.searchsorted(starts, position, side="right")) - 1
        return index, position - int(starts[index])

    def refuse(position: Any, column: str, describe: Any) -> InvalidArgumentError:
        index, row = place(int(position))
        return InvalidArgumentError.of(f"{field}.series[{index}].{column}[{row}]", describe(int(position)))

    ahead = timestamps > now + MAX_AHEAD_US
    if ahead.any():
        raise refuse(
            ahead.argmax(),
            "timestamps_us",
            lambda at: f"is {(int(timestamps[at]) - now) / 1e6:.0f} s in the future; at most 300 s are allowed",
        )
    negative = timestamps < 0
    if negative.any():
        raise refuse(negative.argmax(), "timestamps_us", lambda at: f"{timestamps[at]} is before 1970")
    infinite = np.isinf(values)
    if infinite.any():
        raise refuse(infinite.argmax(), "values", lambda at: "is infinite")
    present = np.logical_or.reduceat(~np.isnan(values), starts)
    if not present.all():
        index = int((~present).argmax())
        raise InvalidArgumentError.of(
            f"{field}.series[{index}].values",
            f"machine {keys[index][0]}, sensor {keys[index][1]} has no value that is a number",
        )
    rises = np.empty(readings, dtype=np.bool_)
    rises[0] = True
    np.greater(timestamps[1:], timestamps[:-1], out=rises[1:])
    rises[starts] = True
    return np.logical_and.reduceat(rises, starts)
