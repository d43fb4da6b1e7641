"""Parses a JSON body of readings into columns, without building an object for each reading."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

from aurum.readings.batch import MAX_READINGS, MAX_SEQUENCE
from aurum.readings.tables import Rows, TableError, parse_timestamp, timestamp_from_number
from aurum.runtime.errors import InvalidArgumentError

_FIELDS = ("machine_id", "sensor", "timestamp", "value")
_BODY_FIELDS = frozenset({"source_id", "sequence", "readings"})
_COLLECTED = object()  # replaces a reading in the parsed body once its values are in the columns


@dataclass(slots=True)
class ReadingsBody:
    """The content of a body that the schema ReadingsIn describes."""

    source_id: str | None
    sequence: int | None
    rows: Rows


def parse_readings(body: bytes) -> ReadingsBody:
    """Parses a JSON body of readings.

    Raises:
        TableError: A reading is invalid. The error names the row and field of the first mistake.
        InvalidArgumentError: The body itself is invalid.
    """
    collector = _ReadingsCollector()
    try:
        content: Any = json.loads(body, object_pairs_hook=collector.collect)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError.for_field("body", f"is not JSON: {error}") from error
    except ValueError as error:  # Python refuses integers with more than 4,300 digits
        raise InvalidArgumentError.for_field("body", "has a number with too many digits") from error
    except RecursionError as error:
        raise InvalidArgumentError.for_field("body", "is nested too deeply") from error
    if not isinstance(content, dict):
        raise InvalidArgumentError.for_field(
            "readings" if content is _COLLECTED else "body", 'must be {"readings": […]}'
        )
    if unknown := sorted(content.keys() - _BODY_FIELDS):
        raise InvalidArgumentError.for_field(unknown[0][:40], "is not a field of this request")
    _check_readings(content["readings"], collector)
    return ReadingsBody(
        _check_source_id(content.get("source_id")), _check_sequence(content.get("sequence")), collector.rows
    )


def _check_readings(readings: Any, collector: "_ReadingsCollector") -> None:
    if not isinstance(readings, list):
        raise InvalidArgumentError.for_field("readings", "must be a list")
    invalid = next((row for row, reading in enumerate(readings) if reading is not _COLLECTED), None)
    if collector.problem is not None and (invalid is None or collector.problem.row <= invalid):
        raise collector.problem
    if invalid is not None:
        raise TableError(invalid, "", "must be an object with machine_id, sensor, timestamp and value")
    if not readings:
        raise InvalidArgumentError.for_field("readings", "at least one reading is required")


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
    """Collects the readings of a body while it is parsed, and the first mistake in them."""

    rows: Rows = field(default_factory=Rows)
    problem: TableError | None = None
    count: int = 0
    names: dict[str, str] = field(default_factory=dict)  # interned names, to save memory

    def collect(self, pairs: list[tuple[str, Any]]) -> Any:
        content = dict(pairs)
        if "readings" in content:
            if len(content) < len(pairs):
                raise InvalidArgumentError.for_field("body", "has a duplicate field")
            return content
        row = self.count
        self.count += 1
        if self.count > MAX_READINGS:
            raise InvalidArgumentError.for_field("readings", f"must be at most {MAX_READINGS}; send several requests")
        if self.problem is None:
            try:
                if len(content) < len(pairs):
                    raise TableError(row, "", "has a duplicate field")
                self._append(row, content)
            except TableError as error:
                self.problem = error
        return _COLLECTED

    def _append(self, row: int, content: dict[str, Any]) -> None:
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
            return parse_timestamp(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return timestamp_from_number(value)
    except (ValueError, OverflowError) as error:
        raise TableError(row, "timestamp", str(error)) from error
    raise TableError(row, "timestamp", "must be ISO 8601, or a number since 1970")


def _parse_value(row: int, value: Any) -> float:
    if value is None:
        return math.nan
    try:
        if isinstance(value, int | float | str):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise TableError(row, "value", "must be a number or null")
