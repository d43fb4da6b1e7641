"""Parses a JSON body of readings into columns, one reading at a time."""

import math
from dataclasses import dataclass, field
from typing import Any

from aurum.api.json_stream import JsonError, JsonStream
from aurum.readings.batch import MAX_READINGS, MAX_SEQUENCE
from aurum.readings.tables import Rows, TableError, parse_timestamp, timestamp_of
from aurum.runtime.errors import InvalidArgumentError

_FIELDS = ("machine_id", "sensor", "timestamp", "value")
_LONGEST = 10_000  # characters of a reading, or of another field; valid names, escaped, have less than 2,000


@dataclass(slots=True)
class ReadingsBody:
    """The content of a body that ReadingsIn describes."""

    source_id: str | None
    sequence: int | None
    rows: Rows


def parse_readings(body: bytes | bytearray) -> ReadingsBody:
    """Parses a JSON body of readings up to the first mistake.

    Raises:
        TableError: A reading is invalid. The error names its row and field.
        InvalidArgumentError: The body itself is invalid.
    """
    text = JsonStream(body, _LONGEST, tuple)
    try:
        return _body(text)
    except JsonError as error:
        raise InvalidArgumentError.of("body", f"is not JSON of readings: {error}") from error


def _body(text: JsonStream) -> ReadingsBody:
    if text.peek() != "{":
        raise InvalidArgumentError.of("body", 'must be {"readings": […]}')
    found: dict[str, Any] = {}
    for name in text.members():
        if name in found:
            raise InvalidArgumentError.of("body", "has a field twice")
        match name:
            case "source_id":
                found[name] = _source_id(text.value())
            case "sequence":
                found[name] = _sequence(text.value())
            case "readings":
                found[name] = _readings(text)
            case _:
                raise InvalidArgumentError.of(name[:40], "is no field of this request")
    text.end()
    if "readings" not in found:
        raise InvalidArgumentError.of("readings", "are missing")
    return ReadingsBody(found.get("source_id"), found.get("sequence"), found["readings"])


def _readings(text: JsonStream) -> Rows:
    if text.peek() != "[":
        raise InvalidArgumentError.of("readings", "must be a list")
    taken = _Taken()
    for row, _ in enumerate(text.elements()):
        if row == MAX_READINGS:
            raise InvalidArgumentError.of("readings", f"are more than {MAX_READINGS}; send them in parts")
        if text.peek() != "{":
            raise TableError(row, "", "must be an object with machine_id, sensor, timestamp and value")
        taken.add(row, text.value())
    if not len(taken.rows):
        raise InvalidArgumentError.of("readings", "at least one reading is required")
    return taken.rows


def _source_id(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidArgumentError.of("source_id", "must be a text")
    return value


def _sequence(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SEQUENCE:
        raise InvalidArgumentError.of("sequence", f"must be a whole number from 1 to {MAX_SEQUENCE}")
    return value


@dataclass(slots=True)
class _Taken:
    """Collects readings."""

    rows: Rows = field(default_factory=Rows)
    names: dict[str, str] = field(default_factory=dict)  # interned names, to save memory

    def add(self, row: int, pairs: tuple[tuple[str, Any], ...]) -> None:
        """Adds a reading, given by the fields of its object. Raises TableError."""
        content = dict(pairs)
        if len(content) < len(pairs):
            raise TableError(row, "", "has a field twice")
        for name in _FIELDS:
            if name not in content:
                raise TableError(row, name, "is missing")
        if len(content) > len(_FIELDS):
            unknown = next(name for name in content if name not in _FIELDS)
            raise TableError(row, unknown[:40], "is no field of a reading")
        machine_id, sensor = (self._name(row, name, content[name]) for name in ("machine_id", "sensor"))
        self.rows.add(row, machine_id, sensor, _time(row, content["timestamp"]), _value(row, content["value"]))

    def _name(self, row: int, field_name: str, text: Any) -> str:
        if not isinstance(text, str):
            raise TableError(row, field_name, "must be a text")
        return self.names.setdefault(text, text)


def _time(row: int, value: Any) -> int:
    try:
        if isinstance(value, str):
            return parse_timestamp(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return timestamp_of(value)
    except (ValueError, OverflowError) as error:
        raise TableError(row, "timestamp", str(error)) from error
    raise TableError(row, "timestamp", "must be ISO 8601, or a number since 1970")


def _value(row: int, value: Any) -> float:
    if value is None:
        return math.nan
    try:
        if isinstance(value, int | float | str):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise TableError(row, "value", "must be a number or null")
