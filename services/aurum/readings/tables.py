"""Readings in rows, as tables and JSON have them, and C-MAPSS text files. Errors name the row and the column."""

import math
from array import array
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from aurum.readings.batch import MAX_AHEAD_US, Series, machine_id_problem, now_us, sensor_problem
from aurum.readings.names import stored_machine, stored_sensor
from aurum.readings.table_text import TextError
from aurum.runtime.time_units import HOUR_US

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
        others: Other kinds of mistakes in the table, as far as they are known. The message names them too.
    """

    def __init__(
        self, row: int, column: str, description: str, advice: str = "", others: "Sequence[TableError]" = ()
    ) -> None:
        """Creates the error.

        Args:
            row: The row.
            column: The column name; empty if the whole row is wrong.
            description: What is wrong.
            advice: What to declare. It ends the message, and is no part of the description.
            others: Other kinds of mistakes in the table.
        """
        first = f"row {row}{f', {column}' if column else ''}: {description}{advice}"
        super().__init__("; ".join([first, *map(str, others)]))
        self.row = row
        self.column = column
        self.description = description
        self.others = tuple(others)
        self._advice = advice

    def with_others(self, others: "Sequence[TableError]") -> "TableError":
        """Returns the same error with other kinds of mistakes."""
        return TableError(self.row, self.column, self.description, self._advice, others)


@dataclass(slots=True)
class Rows:
    """Single readings from a table, each with the number of its row.

    Attributes:
        machine_ids: The machine of each reading.
        sensors: The sensors.
        timestamps: The times in µs since the epoch.
        values: The values.
        rows: The numbers of the rows.
        silent: The number of readings of each machine and sensor that `to_series` left out, because none is a number.
    """

    machine_ids: list[str] = field(default_factory=list)
    sensors: list[str] = field(default_factory=list)
    timestamps: MutableSequence[int] = field(default_factory=lambda: array("q"))
    values: MutableSequence[float] = field(default_factory=lambda: array("d"))
    rows: MutableSequence[int] = field(default_factory=lambda: array("q"))
    silent: dict[tuple[str, str], int] = field(default_factory=dict)

    def add_reading(self, row: int, machine_id: str, sensor: str, timestamp_us: int, value: float) -> None:
        """Adds a reading that was read from row number `row`."""
        self.machine_ids.append(machine_id)
        self.sensors.append(sensor)
        self.timestamps.append(timestamp_us)
        self.values.append(value)
        self.rows.append(row)

    def __len__(self) -> int:
        return len(self.values)


def to_series(
    rows: Rows, now: int | None = None, *, value_column: str = "value", device_names: bool = False
) -> list[Series]:
    """Groups readings by machine and sensor. Those without any number are left out, and named in `rows.silent`.

    Args:
        rows: The readings.
        now: The time in µs since the epoch; by default the clock's.
        value_column: The name of the value column in errors. It is empty if each sensor has its own column (wide
            table).
        device_names: Whether machines and sensors have any names, which are mapped later.

    Raises:
        TableError: Names the first row that breaks a rule of batches.
    """
    latest = (now_us() if now is None else now) + MAX_AHEAD_US
    groups: dict[tuple[str, str], list[int]] = {}
    for index, key in enumerate(zip(rows.machine_ids, rows.sensors, strict=True)):
        group = groups.get(key)
        if group is None:
            machine_id, sensor = key
            if not device_names:
                _check_names(rows.rows[index], machine_id, sensor)
            group = groups[key] = []
        group.append(index)
        value, timestamp = rows.values[index], rows.timestamps[index]
        if math.isinf(value):
            raise TableError(rows.rows[index], value_column or key[1], "is infinite")
        if timestamp > latest:
            ahead = (timestamp - latest + MAX_AHEAD_US) / 1e6
            raise TableError(
                rows.rows[index],
                "timestamp",
                f"{np.datetime64(timestamp // 1_000_000, 's')}Z is {ahead:.0f} s in the future; at most 300 s are "
                f"allowed; if the time is local, state its offset or zone",
            )
        if timestamp < 0:
            raise TableError(rows.rows[index], "timestamp", "is before 1970")
    timestamps = np.array(rows.timestamps, dtype=np.int64)
    values = np.array(rows.values, dtype=np.float64)
    series = []
    for (machine_id, sensor), indices in groups.items():
        part = values[indices]
        if np.isnan(part).all():
            rows.silent[machine_id, sensor] = len(indices)
            continue
        series.append(Series(machine_id, sensor, timestamps[indices], part))
    return series


def _check_names(row: int, machine_id: str, sensor: str) -> None:
    """Raises TableError if a name cannot be stored. The error tells the form in which other ways of import store it."""
    for column, name, problem, stored_name in (
        ("machine_id", machine_id, machine_id_problem, stored_machine),
        ("sensor", sensor, sensor_problem, stored_sensor),
    ):
        if found := problem(name):
            stored = stored_name(name)
            advice = f"; an import and a gateway would store it as {stored}" if problem(stored) is None else ""
            raise TableError(row, column, f"{found}{advice}")


def _parse_number(text: str) -> float:
    """Parses a number as `float` does, but without underscores between digits. Raises ValueError."""
    if "_" in text:
        raise ValueError(text)
    return float(text)


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
    """Yields lines with their numbers from 1. Raises TableError if a line is not text."""
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            yield number, line
    except UnicodeDecodeError as error:
        raise TableError(number + 1, "", "is not UTF-8 text") from error
    except TextError as error:
        raise TableError(number + 1, "", str(error)) from error


def cmapss_prefix(path: Path) -> str:
    """Returns the machine name prefix of a C-MAPSS file.

    It depends on the file name, so that several can be imported.
    """
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in path.stem)
    return name.strip("._-") or "cmapss"


def _parse_positive_integer(text: str, row: int, name: str) -> int:
    try:
        number = _parse_number(text)
    except ValueError:
        raise TableError(row, name, f"{text[:40]!r} is not a number") from None
    if not 0 < number < 1e7 or number != int(number):
        raise TableError(row, name, f"{text[:40]!r} is not a positive whole number")
    return int(number)
