"""Parses a JSON body of readings into columns, without building an object for each reading."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

from aurum.readings.batch import MAX_READINGS, MAX_SEQUENCE
from aurum.readings.tables import Rows, TableError, parse_timestamp, timestamp_from_number
from aurum.runtime.errors import InvalidArgumentError

_FIELDS = ("machine_id", "sensor", "timestamp", "value")
_TOP = frozenset({"source_id", "sequence", "readings"})
_TAKEN = object()  # replaces each reading in the parsed body once its values are in the columns


@dataclass(slots=True)
class ReadingsBody:
    """The content of a body that ReadingsIn describes."""

    source_id: str | None
    sequence: int | None
    rows: Rows


def parse_readings(body: bytes) -> ReadingsBody:
    """Parses a JSON body of readings.

    Raises:
        TableError: A reading is invalid. The error names the row and field of the first mistake.
        InvalidArgumentError: The body itself is invalid.
    """
    taken = _Taken()
    try:
        content: Any = json.loads(body, object_pairs_hook=taken.take)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError.of("body", f"is not JSON: {error}") from error
    except ValueError as error:  # Python refuses integers with more than 4,300 digits
        raise InvalidArgumentError.of("body", "has a number with too many digits") from error
    except RecursionError as error:
        raise InvalidArgumentError.of("body", "is not JSON of readings: it is nested too deeply") from error
    if not isinstance(content, dict):
        raise InvalidArgumentError.of("readings" if content is _TAKEN else "body", 'must be {"readings": […]}')
    if unknown := sorted(content.keys() - _TOP):
        raise InvalidArgumentError.of(unknown[0][:40], "is no field of this request")
    _check_readings(content["readings"], taken)
    return ReadingsBody(_source_id(content.get("source_id")), _sequence(content.get("sequence")), taken.rows)


def _check_readings(readings: Any, taken: "_Taken") -> None:
    if not isinstance(readings, list):
        raise InvalidArgumentError.of("readings", "must be a list")
    wrong = next((row for row, each in enumerate(readings) if each is not _TAKEN), None)
    if taken.problem is not None and (wrong is None or taken.problem.row <= wrong):
        raise taken.problem
    if wrong is not None:
        raise TableError(wrong, "", "must be an object with machine_id, sensor, timestamp and value")
    if not readings:
        raise InvalidArgumentError.of("readings", "at least one reading is required")


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
    """Collects the readings of a body while it is parsed, and the first mistake in them."""

    rows: Rows = field(default_factory=Rows)
    problem: TableError | None = None
    count: int = 0
    names: dict[str, str] = field(default_factory=dict)  # interned names, to save memory

    def take(self, pairs: list[tuple[str, Any]]) -> Any:
        content = dict(pairs)
        if "readings" in content:
            if len(content) < len(pairs):
                raise InvalidArgumentError.of("body", "has a field twice")
            return content
        row = self.count
        self.count += 1
        if self.count > MAX_READINGS:
            raise InvalidArgumentError.of("readings", f"are more than {MAX_READINGS}; send them in parts")
        if self.problem is None:
            try:
                if len(content) < len(pairs):
                    raise TableError(row, "", "has a field twice")
                self._add(row, content)
            except TableError as error:
                self.problem = error
        return _TAKEN

    def _add(self, row: int, content: dict[str, Any]) -> None:
        for name in _FIELDS:
            if name not in content:
                raise TableError(row, name, "is missing")
        if len(content) > len(_FIELDS):
            unknown = next(name for name in content if name not in _FIELDS)
            raise TableError(row, unknown[:40], "is no field of a reading")
        machine_id, sensor = (self._name(row, name, content[name]) for name in ("machine_id", "sensor"))
        self.rows.add_reading(row, machine_id, sensor, _time(row, content["timestamp"]), _value(row, content["value"]))

    def _name(self, row: int, field_name: str, text: Any) -> str:
        if not isinstance(text, str):
            raise TableError(row, field_name, "must be a text")
        return self.names.setdefault(text, text)


def _time(row: int, value: Any) -> int:
    try:
        if isinstance(value, str):
            return parse_timestamp(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return timestamp_from_number(value)
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
