"""Reads the messages of a broker by the description of their topic: JSON, CSV or a number."""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aurum.edge.inputs.common.configuration import PLACEHOLDER, Topic
from aurum.readings.tables import parse_timestamp, parse_value, timestamp_from_number

_MOST_BYTES = 1_000_000  # of one message
_MOST_VALUES = 10_000  # in one message


class PayloadError(ValueError):
    """A message cannot be read. The error names the field and, in a table, the row."""


class Value(NamedTuple):
    machine: str
    sensor: str
    at_us: int | None
    value: float


@dataclass(frozen=True, slots=True)
class Shape:
    """How to read the messages of one topic name.

    Attributes:
        topic: The description of the topic.
        levels: The named levels of the topic name.
        machine: The machine; None if each message names it.
        sensor: The sensor; None if each message names it.
    """

    topic: Topic
    levels: Mapping[str, str]
    machine: str | None
    sensor: str | None

    @classmethod
    def of(cls, topic: Topic, levels: Mapping[str, str]) -> "Shape":
        def settled(template: str | None) -> str | None:
            known = template is not None and set(PLACEHOLDER.findall(template)) <= set(levels)
            return _filled(template or "", levels) if known else None

        return cls(topic, levels, settled(topic.machine), settled(topic.sensor))


def read(shape: Shape, payload: bytes) -> list[Value]:
    """Reads the values of a message. Raises PayloadError."""
    if len(payload) > _MOST_BYTES:
        raise PayloadError(f"has {len(payload)} bytes; {_MOST_BYTES} are allowed")
    topic, levels = shape.topic, shape.levels
    if topic.format == "number":
        return [Value(shape.machine or "", shape.sensor or "", None, _number("value", payload))]
    found = _from_json(shape, payload) if topic.format == "json" else list(_from_csv(topic, levels, payload))
    if len(found) > _MOST_VALUES:
        raise PayloadError(f"has {len(found)} values; {_MOST_VALUES} are allowed")
    return found


def _from_json(shape: Shape, payload: bytes) -> list[Value]:
    try:
        content = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"is not JSON: {error}") from error
    if not isinstance(content, list):
        return _of_object(shape, content)
    found = []
    for number, row in enumerate(content, start=1):
        try:
            found += _of_object(shape, row)
        except PayloadError as error:
            raise PayloadError(f"row {number}, {error}") from error
    return found


def _of_object(shape: Shape, row: Any) -> list[Value]:
    topic = shape.topic
    if not isinstance(row, dict):
        if topic.sensor is not None and topic.value is None:
            machine, sensor = _filled(topic.machine, shape.levels), _filled(topic.sensor, shape.levels)
            return [Value(machine, sensor, None, _as_number("value", row))]
        raise PayloadError("is no object")
    machine = _named(shape.machine, topic.machine, row, shape.levels)
    at = None if topic.timestamp is None else _time(topic.timestamp, _at(row, topic.timestamp))
    if topic.sensor is not None:
        path = topic.value or "value"
        sensor = _named(shape.sensor, topic.sensor, row, shape.levels)
        return [Value(machine, sensor, at, _as_number(path, _at(row, path)))]
    if topic.values:
        wanted = [(sensor, path, _at(row, path, missing=None)) for sensor, path in topic.values.items()]
        return [
            Value(machine, sensor, at, _as_number(path, value)) for sensor, path, value in wanted if value is not None
        ]
    return [
        Value(machine, name, at, _as_number(name, value))
        for name, value in row.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != topic.timestamp
    ]


def _from_csv(topic: Topic, levels: Mapping[str, str], payload: bytes) -> Iterator[Value]:
    try:
        rows = list(csv.reader(payload.decode("utf-8").splitlines(), strict=True))
    except UnicodeDecodeError as error:
        raise PayloadError("is not UTF-8 text") from error
    except csv.Error as error:
        raise PayloadError(f"is not CSV: {error}") from error
    columns = list(topic.columns)
    first = 1
    if not columns:
        if not rows:
            raise PayloadError("row 1: names of the columns are missing")
        columns, rows, first = [name.strip() for name in rows[0]], rows[1:], 2
    for number, cells in enumerate(rows, start=first):
        if not cells:
            continue
        if len(cells) != len(columns):
            raise PayloadError(f"row {number}: has {len(cells)} cells, and there are {len(columns)} columns")
        named = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        machine = _filled(topic.machine, {**named, **levels})
        try:
            at = None if topic.timestamp is None else _time(topic.timestamp, named.get(topic.timestamp, ""))
            for name, cell in named.items():
                if name == topic.timestamp or f"{{{name}}}" in topic.machine:
                    continue
                value = _number(name, cell)
                if not math.isnan(value):
                    yield Value(machine, name, at, value)
        except PayloadError as error:
            raise PayloadError(f"row {number}, {error}") from error


_MISSING: Any = object()


def _at(row: Mapping[str, Any], path: str, missing: Any = _MISSING) -> Any:
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif missing is _MISSING:
            raise PayloadError(f"{path}: is missing")
        else:
            return missing
    return value


def _as_number(field: str, value: Any) -> float:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            raise PayloadError(f"{field}: is too large a number") from None
    if isinstance(value, str):
        return _number(field, value)
    raise PayloadError(f"{field}: {str(value)[:40]!r} is not a number")


def _number(field: str, text: str | bytes) -> float:
    try:
        return parse_value(text if isinstance(text, str) else text.decode("ascii"))
    except ValueError as error:
        raise PayloadError(f"{field}: {error}") from error


def _time(field: str, value: Any) -> int:
    try:
        if isinstance(value, float | int) and not isinstance(value, bool):
            return timestamp_from_number(float(value))
        return parse_timestamp(str(value))
    except (ValueError, OverflowError) as error:
        raise PayloadError(f"{field}: {error}") from error


def _named(settled: str | None, template: str, row: Mapping[str, Any], levels: Mapping[str, str]) -> str:
    if settled is not None:
        return settled
    return _filled(template, {**{name: value for name, value in row.items() if isinstance(value, str)}, **levels})


def _filled(template: str, names: Mapping[str, str]) -> str:
    if "{" not in template:
        return template

    def name(found: re.Match[str]) -> str:
        value = names.get(found.group(1))
        if value is None:
            raise PayloadError(f"{found.group(1)}: is missing")
        return value

    return PLACEHOLDER.sub(name, template)
