"""Reads the messages of a broker as JSON, CSV or a number, as their topic is configured."""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aurum.edge.inputs.common.configuration import PLACEHOLDER, Topic
from aurum.readings.tables import parse_value
from aurum.readings.times import parse_timestamp, timestamp_from_number

_MAX_BYTES = 1_000_000  # of one message
_MAX_VALUES = 10_000  # in one message


class PayloadError(ValueError):
    """A message cannot be read. The error names the field and, in a table, the row."""


class PayloadValue(NamedTuple):
    """A value of a message, with the names that the device uses.

    Attributes:
        machine: The machine.
        sensor: The sensor.
        at_us: The time in µs since the epoch; None if the message has none.
        value: The value; NaN if it is absent.
    """

    machine: str
    sensor: str
    at_us: int | None
    value: float


@dataclass(frozen=True, slots=True)
class TopicFormat:
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
    def for_topic_name(cls, topic: Topic, levels: Mapping[str, str]) -> "TopicFormat":
        """Returns the format of one topic name.

        Args:
            topic: The description that matches the topic name.
            levels: The named levels of the topic name.
        """

        def resolved(template: str | None) -> str | None:
            is_resolvable = template is not None and set(PLACEHOLDER.findall(template)) <= set(levels)
            return _fill_template(template or "", levels) if is_resolvable else None

        return cls(topic, levels, resolved(topic.machine), resolved(topic.sensor))


def read_values(topic_format: TopicFormat, payload: bytes) -> list[PayloadValue]:
    """Reads the values of a message. Raises PayloadError."""
    if len(payload) > _MAX_BYTES:
        raise PayloadError(f"has {len(payload)} bytes; at most {_MAX_BYTES} are allowed")
    topic, levels = topic_format.topic, topic_format.levels
    if topic.format == "number":
        return [
            PayloadValue(topic_format.machine or "", topic_format.sensor or "", None, _parse_number("value", payload))
        ]
    values = _read_json(topic_format, payload) if topic.format == "json" else list(_read_csv(topic, levels, payload))
    if len(values) > _MAX_VALUES:
        raise PayloadError(f"has {len(values)} values; at most {_MAX_VALUES} are allowed")
    return values


def _read_json(topic_format: TopicFormat, payload: bytes) -> list[PayloadValue]:
    try:
        content = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"is not JSON: {error}") from error
    if not isinstance(content, list):
        return _read_object(topic_format, content)
    values = []
    for number, row in enumerate(content, start=1):
        try:
            values += _read_object(topic_format, row)
        except PayloadError as error:
            raise PayloadError(f"row {number}, {error}") from error
    return values


def _read_object(topic_format: TopicFormat, row: Any) -> list[PayloadValue]:
    topic = topic_format.topic
    if not isinstance(row, dict):
        if topic.sensor is not None and topic.value is None:
            machine, sensor = (
                _fill_template(topic.machine, topic_format.levels),
                _fill_template(topic.sensor, topic_format.levels),
            )
            return [PayloadValue(machine, sensor, None, _convert_number("value", row))]
        raise PayloadError("is not an object")
    machine = _resolve_name(topic_format.machine, topic.machine, row, topic_format.levels)
    at = None if topic.timestamp is None else _parse_time(topic.timestamp, _value_at(row, topic.timestamp))
    if topic.sensor is not None:
        path = topic.value or "value"
        sensor = _resolve_name(topic_format.sensor, topic.sensor, row, topic_format.levels)
        return [PayloadValue(machine, sensor, at, _convert_number(path, _value_at(row, path)))]
    if topic.values:
        wanted = [(sensor, path, _value_at(row, path, missing=None)) for sensor, path in topic.values.items()]
        return [
            PayloadValue(machine, sensor, at, _convert_number(path, value))
            for sensor, path, value in wanted
            if value is not None
        ]
    return [
        PayloadValue(machine, name, at, _convert_number(name, value))
        for name, value in row.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != topic.timestamp
    ]


def _read_csv(topic: Topic, levels: Mapping[str, str], payload: bytes) -> Iterator[PayloadValue]:
    rows = _parse_csv(payload)
    columns = list(topic.columns)
    first = 1
    if not columns:
        if not rows:
            raise PayloadError("row 1: the names of the columns are missing")
        columns, rows, first = [name.strip() for name in rows[0]], rows[1:], 2
    for number, cells in enumerate(rows, start=first):
        if not cells:
            continue
        if len(cells) != len(columns):
            raise PayloadError(f"row {number}: has {len(cells)} cells, and there are {len(columns)} columns")
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        machine = _fill_template(topic.machine, {**row, **levels})
        try:
            yield from _read_row(topic, machine, row)
        except PayloadError as error:
            raise PayloadError(f"row {number}, {error}") from error


def _parse_csv(payload: bytes) -> list[list[str]]:
    try:
        return list(csv.reader(payload.decode("utf-8").splitlines(), strict=True))
    except UnicodeDecodeError as error:
        raise PayloadError("is not UTF-8 text") from error
    except csv.Error as error:
        raise PayloadError(f"is not CSV: {error}") from error


def _read_row(topic: Topic, machine: str, row: Mapping[str, str]) -> Iterator[PayloadValue]:
    """Yields the values of a CSV row. Columns with the time or the machine are no values."""
    at = None if topic.timestamp is None else _parse_time(topic.timestamp, row.get(topic.timestamp, ""))
    for name, cell in row.items():
        if name == topic.timestamp or f"{{{name}}}" in topic.machine:
            continue
        value = _parse_number(name, cell)
        if not math.isnan(value):
            yield PayloadValue(machine, name, at, value)


_MISSING: Any = object()


def _value_at(row: Mapping[str, Any], path: str, missing: Any = _MISSING) -> Any:
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


def _convert_number(field: str, value: Any) -> float:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            raise PayloadError(f"{field}: the number is too large") from None
    if isinstance(value, str):
        return _parse_number(field, value)
    raise PayloadError(f"{field}: {str(value)[:40]!r} is not a number")


def _parse_number(field: str, text: str | bytes) -> float:
    try:
        return parse_value(text if isinstance(text, str) else text.decode("ascii"))
    except ValueError as error:
        raise PayloadError(f"{field}: {error}") from error


def _parse_time(field: str, value: Any) -> int:
    try:
        if isinstance(value, float | int) and not isinstance(value, bool):
            return timestamp_from_number(float(value))
        return parse_timestamp(str(value))
    except (ValueError, OverflowError) as error:
        raise PayloadError(f"{field}: {error}") from error


def _resolve_name(resolved: str | None, template: str, row: Mapping[str, Any], levels: Mapping[str, str]) -> str:
    if resolved is not None:
        return resolved
    return _fill_template(
        template, {**{name: value for name, value in row.items() if isinstance(value, str)}, **levels}
    )


def _fill_template(template: str, names: Mapping[str, str]) -> str:
    if "{" not in template:
        return template

    def replacement(match: re.Match[str]) -> str:
        value = names.get(match.group(1))
        if value is None:
            raise PayloadError(f"{match.group(1)}: is missing")
        return value

    return PLACEHOLDER.sub(replacement, template)
