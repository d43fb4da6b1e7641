"""Reads readings from tables: CSV (long or wide), C-MAPSS text files, JSON rows. Errors name the row and the column."""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from aurum.readings.batch import MAX_AHEAD_US, Series, machine_id_problem, now_us, sensor_problem
from aurum.runtime.time_units import HOUR_US

LONG_COLUMNS = ("machine_id", "timestamp", "sensor", "value")
_ABSENT = frozenset({"", "na", "nan", "null", "none"})
_MAX_COLUMNS = 500
_MIN_MILLISECONDS, _MIN_MICROSECONDS = 1e11, 1e14  # from these on, a number is in ms or µs
_YEAR_10000 = 253_402_300_800_000_000  # µs
_OUT_OF_RANGE = "out of range; use a time from 1970 to 9999"

CMAPSS_SENSORS = ("setting_1", "setting_2", "setting_3", *(f"sensor_{number}" for number in range(1, 22)))
CMAPSS_COLUMNS = 2 + len(CMAPSS_SENSORS)
CMAPSS_EPOCH_US = int(datetime(2008, 10, 6, tzinfo=UTC).timestamp()) * 1_000_000  # the time of the PHM08 challenge
"""A C-MAPSS file has cycles instead of times. Cycle n is placed n hours after this time."""


class TableError(ValueError):
    """A cell that cannot be read.

    Attributes:
        row: The row, as the source counts it, from 1.
        column: The column name; empty if the whole row is wrong.
        description: What is wrong.
    """

    def __init__(self, row: int, column: str, description: str) -> None:
        super().__init__(f"row {row}{f', {column}' if column else ''}: {description}")
        self.row = row
        self.column = column
        self.description = description


@dataclass(slots=True)
class Rows:
    """Single readings from a table, each with the number of its row."""

    machine_ids: list[str] = field(default_factory=list)
    sensors: list[str] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def add_reading(self, row: int, machine_id: str, sensor: str, timestamp_us: int, value: float) -> None:
        """Adds a reading that was read from row number `row`."""
        self.machine_ids.append(machine_id)
        self.sensors.append(sensor)
        self.timestamps.append(timestamp_us)
        self.values.append(value)
        self.rows.append(row)

    def __len__(self) -> int:
        return len(self.values)


def to_series(rows: Rows, now: int | None = None, *, value_column: str = "value") -> list[Series]:
    """Groups readings by machine and sensor.

    Args:
        rows: The readings.
        now: The time in µs since the epoch; by default the clock's.
        value_column: The name of the value column in errors. It is empty if each sensor has its own column (wide
            table).

    Raises:
        TableError: Names the first row that breaks a rule of batches.
    """
    latest = (now_us() if now is None else now) + MAX_AHEAD_US
    groups: dict[tuple[str, str], list[int]] = {}
    for index, key in enumerate(zip(rows.machine_ids, rows.sensors, strict=True)):
        group = groups.get(key)
        if group is None:
            machine_id, sensor = key
            if problem := machine_id_problem(machine_id):
                raise TableError(rows.rows[index], "machine_id", problem)
            if problem := sensor_problem(sensor):
                raise TableError(rows.rows[index], "sensor", problem)
            group = groups[key] = []
        group.append(index)
        value, timestamp = rows.values[index], rows.timestamps[index]
        if math.isinf(value):
            raise TableError(rows.rows[index], value_column or key[1], "is infinite")
        if timestamp > latest:
            ahead = (timestamp - latest + MAX_AHEAD_US) / 1e6
            raise TableError(
                rows.rows[index], "timestamp", f"is {ahead:.0f} s in the future; at most 300 s are allowed"
            )
        if timestamp < 0:
            raise TableError(rows.rows[index], "timestamp", "is before 1970")
    timestamps = np.array(rows.timestamps, dtype=np.int64)
    values = np.array(rows.values, dtype=np.float64)
    series = []
    for (machine_id, sensor), indices in groups.items():
        part = values[indices]
        if np.isnan(part).all():
            raise TableError(
                rows.rows[indices[0]],
                value_column or sensor,
                f"machine {machine_id}, sensor {sensor} has no value other than NaN",
            )
        series.append(Series(machine_id, sensor, timestamps[indices], part))
    return series


def parse_timestamp(text: str) -> int:
    """Parses a time to microseconds since the epoch. Raises ValueError.

    Args:
        text: ISO 8601 (UTC if it names no zone), or a number since 1970. Numbers below 1e11 are seconds, those below
            1e14 milliseconds, and others microseconds.
    """
    text = text.strip()
    try:
        number = _parse_number(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text[:40]!r} is not a time; use ISO 8601 such as 2026-05-04T12:00:00Z") from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        try:
            seconds = moment - datetime(1970, 1, 1, tzinfo=UTC)
        except OverflowError:
            raise ValueError(f"{text[:40]!r} is {_OUT_OF_RANGE}") from None
        return _check_range((seconds.days * 86_400 + seconds.seconds) * 1_000_000 + seconds.microseconds, text)
    return timestamp_from_number(number)


def timestamp_from_number(number: float) -> int:
    """Converts a number to microseconds since the epoch, by the rules of `parse_timestamp`. Raises ValueError."""
    if not math.isfinite(number):
        raise ValueError(f"{number!r} is not a time")
    if abs(number) >= _MIN_MICROSECONDS:
        return _check_range(int(number), f"{number:g}")
    return round(number * (1_000 if abs(number) >= _MIN_MILLISECONDS else 1_000_000))


def _check_range(us: int, text: str) -> int:
    if abs(us) >= _YEAR_10000:
        raise ValueError(f"{text[:40]!r} is {_OUT_OF_RANGE}")
    return us


def parse_value(text: str) -> float:
    """Parses a number. Returns NaN for an absent value. Raises ValueError."""
    text = text.strip()
    if text.lower() in _ABSENT:
        return math.nan
    try:
        return _parse_number(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None


def _parse_number(text: str) -> float:
    """Parses a number as `float` does, but without underscores between digits. Raises ValueError."""
    if "_" in text:
        raise ValueError(text)
    return float(text)


def read_csv(lines: Iterable[str], block: int) -> Iterator[Rows]:
    """Reads a CSV table with a header, in blocks of about `block` readings.

    The table is long (machine_id, timestamp, sensor, value) or wide (machine_id, timestamp, then one column per
    sensor). Row numbers start at 1 with the header.

    Raises:
        TableError: If a row is wrong. Readings of the same block are then not yielded.
    """
    reader = csv.reader(lines, strict=True)
    rows = Rows()
    try:
        header = [name.strip() for name in next(reader, [])]
        long = _check_header(header)
        for cells in reader:
            if not cells:
                continue
            _add_row(rows, reader.line_num, cells, header, long)
            if len(rows) >= block:
                yield rows
                rows = Rows()
    except csv.Error as error:
        raise TableError(reader.line_num, "", f"is not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise TableError(reader.line_num + 1, "", "is not UTF-8 text") from error
    if len(rows):
        yield rows


def read_cmapss(lines: Iterable[str], prefix: str, block: int) -> Iterator[Rows]:
    """Reads a C-MAPSS file as NASA publishes it, in blocks of whole lines: unit, cycle, 3 settings, 21 sensors.

    Unit n becomes machine `prefix`-00n. The cycle is also stored as a sensor.

    Raises:
        TableError: If a line is wrong.
    """
    rows = Rows()
    ended = True
    for number, line in _number_lines(lines):
        cells = line.split()
        ended = line.endswith("\n")
        if not cells:
            continue
        if len(cells) != CMAPSS_COLUMNS:
            raise TableError(
                number,
                f"column {min(len(cells), CMAPSS_COLUMNS) + 1}",
                f"has {len(cells)} columns instead of the {CMAPSS_COLUMNS} of a C-MAPSS line; "
                f"{'the file is truncated here' if not ended else 'this may be another kind of file'}",
            )
        unit = _parse_positive_integer(cells[0], number, "unit")
        cycle = _parse_positive_integer(cells[1], number, "cycle")
        machine_id = f"{prefix}-{unit:03d}"
        timestamp = CMAPSS_EPOCH_US + cycle * HOUR_US
        rows.add_reading(number, machine_id, "cycle", timestamp, float(cycle))
        for index, sensor in enumerate(CMAPSS_SENSORS):
            try:
                value = _parse_number(cells[index + 2])
            except ValueError:
                raise TableError(
                    number, f"column {index + 3} ({sensor})", f"{cells[index + 2][:40]!r} is not a number"
                ) from None
            rows.add_reading(number, machine_id, sensor, timestamp, value)
        if len(rows) >= block:
            yield rows
            rows = Rows()
    if len(rows):
        yield rows


def _number_lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yields lines with their numbers from 1. Raises TableError if a line is not UTF-8."""
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            yield number, line
    except UnicodeDecodeError as error:
        raise TableError(number + 1, "", "is not UTF-8 text") from error


def cmapss_prefix(path: Path) -> str:
    """Returns the machine name prefix of a C-MAPSS file.

    It depends on the file name, so that several can be imported.
    """
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in path.stem)
    return name.strip("._-") or "cmapss"


def _check_header(header: Sequence[str]) -> bool:
    """Returns True for a long table and False for a wide one. Raises TableError if it is neither."""
    if len(header) > _MAX_COLUMNS:
        raise TableError(1, "", f"has {len(header)} columns; at most {_MAX_COLUMNS} are allowed")
    if sorted(header) == sorted(LONG_COLUMNS):
        return True
    for name in ("machine_id", "timestamp"):
        if header.count(name) > 1:
            raise TableError(1, name, "is in the header twice")
        if name not in header:
            raise TableError(
                1,
                name,
                "is missing; the header must be machine_id,timestamp,sensor,value or machine_id,timestamp,SENSOR,…",
            )
    sensors = [name for name in header if name not in ("machine_id", "timestamp")]
    if not sensors:
        raise TableError(1, "", "has no sensor besides machine_id and timestamp")
    for name in sensors:
        if problem := sensor_problem(name):
            raise TableError(1, name, problem)
        if header.count(name) > 1:
            raise TableError(1, name, "is in the header twice")
    return False


def _add_row(rows: Rows, row: int, cells: Sequence[str], header: Sequence[str], long: bool) -> None:
    if len(cells) != len(header):
        column = header[len(cells)] if len(cells) < len(header) else f"column {len(header) + 1}"
        problem = f"has {len(cells)} cells, and the header has {len(header)}; the file may be truncated"
        raise TableError(row, column, problem)
    named = dict(zip(header, cells, strict=True))
    machine_id = named.pop("machine_id").strip()
    try:
        timestamp = parse_timestamp(named.pop("timestamp"))
    except ValueError as error:
        raise TableError(row, "timestamp", str(error)) from None
    if long:
        named = {named["sensor"].strip(): named["value"]}
    for sensor, text in named.items():
        try:
            value = parse_value(text)
        except ValueError as error:
            raise TableError(row, "value" if long else sensor, str(error)) from None
        if long or not math.isnan(value):
            rows.add_reading(row, machine_id, sensor, timestamp, value)


def _parse_positive_integer(text: str, row: int, name: str) -> int:
    try:
        number = _parse_number(text)
    except ValueError:
        raise TableError(row, name, f"{text[:40]!r} is not a number") from None
    if not 0 < number < 1e7 or number != int(number):
        raise TableError(row, name, f"{text[:40]!r} is not a positive whole number")
    return int(number)
