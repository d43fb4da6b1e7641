"""Parses a JSON body of readings into columns, one reading at a time."""

import math
from dataclasses import dataclass, field
from typing import Any

from aurum.api.json_stream import JsonError, JsonStream
from aurum.readings.batch import MAX_READINGS, MAX_SEQUENCE
from aurum.readings.tables import Rows, TableError
from aurum.readings.times import UnclearTimeError, parse_table_time, plant_time_from_number
from aurum.runtime.errors import InvalidArgumentError

_FIELDS = ("machine_id", "sensor", "timestamp", "value")
_MAX_VALUE_CHARACTERS = 10_000  # of a reading, or of another field; valid names, escaped, have less than 2,000


@dataclass(slots=True)
class ReadingsBody:
    """The content of a body that the schema ReadingsIn describes."""

    source_id: str | None
    sequence: int | None
    rows: Rows


def parse_readings(body: bytes | bytearray) -> ReadingsBody:
    """Parses a JSON body of readings up to the first mistake.

    Raises:
        TableError: A reading is invalid. The error names its row and field.
        InvalidArgumentError: The body itself is invalid.
    """
    stream = JsonStream(body, _MAX_VALUE_CHARACTERS, tuple)
    try:
        return _parse_body(stream)
    except JsonError as error:
        raise InvalidArgumentError.for_field("body", f"is invalid JSON: {error}") from error


def _parse_body(stream: JsonStream) -> ReadingsBody:
    if stream.peek() != "{":
        raise InvalidArgumentError.for_field("body", 'must be {"readings": […]}')
    content: dict[str, Any] = {}
    for name in stream.members():
        if name in content:
            raise InvalidArgumentError.for_field("body", "has a duplicate field")
        match name:
            case "source_id":
                content[name] = _check_source_id(stream.value())
            case "sequence":
                content[name] = _check_sequence(stream.value())
            case "readings":
                content[name] = _parse_readings(stream)
            case _:
                raise InvalidArgumentError.for_field(name[:40], "is not a field of this request")
    stream.end()
    if "readings" not in content:
        raise InvalidArgumentError.for_field("readings", "is missing")
    return ReadingsBody(content.get("source_id"), content.get("sequence"), content["readings"])


def _parse_readings(stream: JsonStream) -> Rows:
    if stream.peek() != "[":
        raise InvalidArgumentError.for_field("readings", "must be a list")
    collector = _ReadingsCollector()
    for row, _ in enumerate(stream.elements()):
        if row == MAX_READINGS:
            raise InvalidArgumentError.for_field("readings", f"must be at most {MAX_READINGS}; send several requests")
        if stream.peek() != "{":
            raise TableError(row, "", "must be an object with machine_id, sensor, timestamp and value")
        collector.add_reading(row, stream.value())
    if not len(collector.rows):
        raise InvalidArgumentError.for_field("readings", "at least one reading is required")
    return collector.rows


def _check_source_id(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidArgumentError.for_field("source_id", "must be a string")
    return value


def _check_sequence(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SEQUENCE:
        raise InvalidArgumentError.for_field("sequence", f"must be a whole number from 1 to {MAX_SEQUENCE}")
    return value


@dataclass(slots=True)
class _ReadingsCollector:
    """Collects the readings of a body."""

    rows: Rows = field(default_factory=Rows)
    names: dict[str, str] = field(default_factory=dict)  # interned names, to save memory

    def add_reading(self, row: int, pairs: tuple[tuple[str, Any], ...]) -> None:
        """Adds a reading, given by the fields of its object. Raises TableError."""
        content = dict(pairs)
        if len(content) < len(pairs):
            raise TableError(row, "", "has a duplicate field")
        for name in _FIELDS:
            if name not in content:
                raise TableError(row, name, "is missing")
        if len(content) > len(_FIELDS):
            unknown = next(name for name in content if name not in _FIELDS)
            raise TableError(row, unknown[:40], "is not a field of a reading")
        machine_id, sensor = (self._name(row, name, content[name]) for name in ("machine_id", "sensor"))
        self.rows.add_reading(
            row, machine_id, sensor, _parse_time(row, content["timestamp"]), _parse_value(row, content["value"])
        )

    def _name(self, row: int, field_name: str, text: Any) -> str:
        if not isinstance(text, str):
            raise TableError(row, field_name, "must be a string")
        return self.names.setdefault(text, text)


def _parse_time(row: int, value: Any) -> int:
    try:
        if isinstance(value, str):
            return parse_table_time(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return plant_time_from_number(value)
    except UnclearTimeError as error:
        problem = f"{error.problem}; use ISO 8601, or a number of s, ms, µs or ns since 1970"
        raise TableError(row, "timestamp", problem) from error
    except (ValueError, OverflowError) as error:
        raise TableError(row, "timestamp", str(error)) from error
    raise TableError(row, "timestamp", "must be ISO 8601, or a number since 1970")


def _parse_value(row: int, value: Any) -> float:
    if value is None:
        return math.nan
    try:
        if isinstance(value, int | float) or (isinstance(value, str) and "_" not in value):  # 1_000 is no number here
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise TableError(row, "value", "must be a number or null")
