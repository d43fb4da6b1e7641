"""Reads the messages of a broker as JSON, CSV or a number, as their topic is configured."""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from aurum.edge.inputs.common.configuration import PLACEHOLDER, Topic
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.mqtt.excerpts import HIDDEN, excerpt, names_secret
from aurum.edge.inputs.mqtt.flattening import Unflattened, leaves, value_at
from aurum.readings.batch import EXACT_UP_TO
from aurum.readings.number_text import DEFAULT_ABSENT_WORDS, parse_number
from aurum.readings.times import parse_timestamp, timestamp_from_number

_MAX_BYTES = 1_000_000  # of one message
_MAX_VALUES = 10_000  # in one message
_MAX_SHOWN = 60  # characters of a name
_NESTED = (dict, list)
_INTEGER = re.compile(r"\s*[+-]?\d{1,309}\s*")  # the largest float has 309 digits
_LIKE_NUMBER = re.compile(r"\s*[+-]?\d[\d.,' ]*\D{0,8}")  # 73,2 or 21.5 °C, but no time and no version

ParseText = Callable[[str], float | None]


class PayloadError(ValueError):
    """A message, or a row of it, cannot be read. The error names the field and, in a table, the row.

    Attributes:
        reason: Why.
    """

    def __init__(self, text: str, reason: Reason = Reason.UNREADABLE) -> None:
        super().__init__(text)
        self.reason = reason


class PayloadValue(NamedTuple):
    """A value of a message, with the names that the device uses.

    Attributes:
        machine: The machine.
        sensor: The sensor.
        at_us: The time in µs since the epoch; None if the message has none.
        value: The value; an int if it is written as an integer, which may have more digits than a float.
    """

    machine: str
    sensor: str
    at_us: int | None
    value: float | int


class RefusedValue(NamedTuple):
    """Something in a message that is not stored.

    Attributes:
        reason: Why.
        text: What it is, and where in the message, unless the sensor says that.
        machine: The machine; empty if it is a whole row.
        sensor: The sensor; empty if it is a whole row.
        number: The number of values.
    """

    reason: Reason
    text: str
    machine: str = ""
    sensor: str = ""
    number: int = 1


@dataclass(slots=True)
class Content:
    """What is in a message.

    Attributes:
        values: Its values.
        refused: What cannot be stored.
    """

    values: list[PayloadValue] = field(default_factory=list)
    refused: list[RefusedValue] = field(default_factory=list)

    def add(
        self,
        names: tuple[str, str],
        at_us: int | None,
        path: str,
        value: Any,
        parse_text: ParseText,
        *,
        chosen: bool = True,
    ) -> None:
        """Adds a value that may not be a number.

        Args:
            names: The machine and the sensor.
            at_us: The time in µs since the epoch; None if the message has none.
            path: The path of the value in the message.
            value: The value, as JSON or CSV has it.
            parse_text: Reads text as a number.
            chosen: Whether the configuration names the value, so that it should be a number.
        """
        machine, sensor = names
        try:
            number = _to_number(path, value, parse_text)
        except PayloadError as error:
            count = value.count if isinstance(value, Unflattened) else 1
            problem = HIDDEN if names_secret(f"{sensor} {path}") else str(error)
            text = problem if path == sensor else f"{path}: {problem}"
            is_state = not chosen and isinstance(value, str) and _LIKE_NUMBER.fullmatch(value) is None
            reason = Reason.TEXT if is_state and error.reason is Reason.NOT_A_NUMBER else error.reason
            self.refused.append(RefusedValue(reason, text, machine, sensor, count))
        else:
            self.values.append(PayloadValue(machine, sensor, at_us, number))
        self.check_size()

    def check_size(self) -> None:
        """Raises PayloadError if there is too much in the message."""
        if len(self.values) + len(self.refused) > _MAX_VALUES:
            raise PayloadError(f"has more than {_MAX_VALUES} values")


@dataclass(frozen=True, slots=True)
class TopicFormat:
    """How to read the messages of one topic name.

    Attributes:
        topic: The description of the topic.
        levels: The named levels of the topic name.
        machine: The machine; None if each message names it.
        sensor: The sensor; None if each message names it.
        no_values: Paths of a message that are times or names, and therefore no values.
        parse_text: Reads text as a number; None if the text stands for an absent value. Raises ValueError.
    """

    topic: Topic
    levels: Mapping[str, str]
    machine: str | None
    sensor: str | None
    no_values: frozenset[str]
    parse_text: ParseText

    @classmethod
    def for_topic_name(
        cls, topic: Topic, levels: Mapping[str, str], absent_words: frozenset[str] = DEFAULT_ABSENT_WORDS
    ) -> "TopicFormat":
        """Returns the format of one topic name.

        Args:
            topic: The description that matches the topic name.
            levels: The named levels of the topic name.
            absent_words: Texts in place of an absent value, as `parse_number` takes them.
        """

        def resolved(template: str | None) -> str | None:
            is_resolvable = template is not None and set(PLACEHOLDER.findall(template)) <= set(levels)
            return _fill_template(template or "", levels) if is_resolvable else None

        names = set(PLACEHOLDER.findall(topic.machine)) - set(levels)
        if topic.timestamp is not None:
            names.add(topic.timestamp)
        parse_text = partial(parse_number, absent_words=absent_words, decimal_comma=topic.decimal_comma)
        return cls(topic, levels, resolved(topic.machine), resolved(topic.sensor), frozenset(names), parse_text)


def read_values(topic_format: TopicFormat, payload: bytes) -> Content:
    """Reads the values of a message. Raises PayloadError if the whole message cannot be read."""
    if len(payload) > _MAX_BYTES:
        raise PayloadError(f"has {len(payload)} bytes; at most {_MAX_BYTES} are allowed")
    content = Content()
    if not payload.strip():
        return content
    match topic_format.topic.format:
        case "number":
            _read_number(topic_format, payload, content)
        case "json":
            _read_json(topic_format, payload, content)
        case "csv":
            _read_csv(topic_format, payload, content)
    return content


def _read_number(topic_format: TopicFormat, payload: bytes, content: Content) -> None:
    text = payload.decode("utf-8", "replace")
    machine, sensor = topic_format.machine or "", topic_format.sensor or ""
    content.add((machine, sensor), None, sensor, text, topic_format.parse_text)


def _read_json(topic_format: TopicFormat, payload: bytes, content: Content) -> None:
    try:
        message = json.loads(payload)
        if payload.count(b'":') != _count_names(message):  # rare, and reading each object as pairs takes longer
            message = json.loads(payload, object_pairs_hook=partial(_without_repetitions, content))
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"is not JSON: {error}") from error
    if not isinstance(message, list):
        _read_object(topic_format, message, content)
        return
    for number, row in enumerate(message, start=1):
        try:
            _read_object(topic_format, row, content)
        except PayloadError as error:
            content.refused.append(RefusedValue(error.reason, f"row {number}, {error}"))
            content.check_size()


def _count_names(value: Any) -> int:
    """Returns how many names the objects in a JSON value have."""
    if isinstance(value, dict):
        return len(value) + sum(_count_names(each) for each in value.values() if type(each) in _NESTED)
    return sum(_count_names(each) for each in value if type(each) in _NESTED) if isinstance(value, list) else 0


def _without_repetitions(content: Content, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object with the first value of each name, and refuses the others."""
    members = dict(pairs)
    if len(members) < len(pairs):
        members = dict(reversed(pairs))
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        problem = f"{repeated[:_MAX_SHOWN]}: an object has this name twice; its first value is read"
        content.refused.append(RefusedValue(Reason.INVALID_NAME, problem, number=len(pairs) - len(members)))
    return members


def _read_object(topic_format: TopicFormat, row: Any, content: Content) -> None:
    topic, parse_text = topic_format.topic, topic_format.parse_text
    if not isinstance(row, dict):
        if topic.sensor is None or topic.value is not None:
            raise PayloadError("is not an object")
        machine, sensor = (_fill_template(each, topic_format.levels) for each in (topic.machine, topic.sensor))
        content.add((machine, sensor), None, sensor, row, parse_text)
        return
    machine = _resolve_name(topic_format.machine, topic.machine, row, topic_format.levels)
    at = None if topic.timestamp is None else _read_time(topic.timestamp, row)
    if topic.sensor is not None:
        path = topic.value or "value"
        sensor = _resolve_name(topic_format.sensor, topic.sensor, row, topic_format.levels)
        if (value := value_at(row, path, _MISSING)) is _MISSING:
            raise PayloadError(f"{path}: is missing", Reason.NOTHING_IN_IT)
        content.add((machine, sensor), at, path, value, parse_text)
    elif topic.values:
        for sensor, path in topic.values.items():
            if (value := value_at(row, path, _MISSING)) is not _MISSING:
                content.add((machine, sensor), at, path, value, parse_text)
    else:
        _read_all(topic_format, machine, at, row, content)


def _read_all(topic_format: TopicFormat, machine: str, at: int | None, row: dict[str, Any], content: Content) -> None:
    """Reads all values of an object, which have their paths as names."""
    no_values, parse_text = topic_format.no_values, topic_format.parse_text
    nested: dict[str, Any] = {}
    for name, value in row.items():
        kind = type(value)
        if name in no_values:
            continue
        if kind is float and math.isfinite(value):  # what most values are
            content.values.append(PayloadValue(machine, name, at, value))
        elif kind is dict or kind is list:
            nested[name] = value
        else:
            content.add((machine, name), at, name, value, parse_text, chosen=False)
    content.check_size()
    if not nested:
        return
    paths = set(row) - set(nested)
    for path, value in leaves(nested):
        if path in no_values:
            continue
        if path in paths:
            problem = "two values have this path; select one with values"
            content.refused.append(RefusedValue(Reason.INVALID_NAME, problem, machine, path))
            continue
        paths.add(path)
        content.add((machine, path), at, path, value, parse_text, chosen=False)


def _read_csv(topic_format: TopicFormat, payload: bytes, content: Content) -> None:
    topic = topic_format.topic
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
        try:
            machine = _fill_template(topic.machine, {**row, **topic_format.levels})
            at = None if topic.timestamp is None else _parse_time(topic.timestamp, row.get(topic.timestamp, ""))
        except PayloadError as error:
            content.refused.append(RefusedValue(error.reason, f"row {number}, {error}"))
            content.check_size()
            continue
        for name, cell in _value_cells(topic, row):
            content.add((machine, name), at, f"row {number}", cell, topic_format.parse_text)


def _parse_csv(payload: bytes) -> list[list[str]]:
    try:
        return list(csv.reader(payload.decode("utf-8").splitlines(), strict=True))
    except UnicodeDecodeError as error:
        raise PayloadError("is not UTF-8 text") from error
    except csv.Error as error:
        raise PayloadError(f"is not CSV: {error}") from error


def _value_cells(topic: Topic, row: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yields the cells of a CSV row with values. Columns with the time or the machine are no values."""
    for name, cell in row.items():
        if cell and name != topic.timestamp and f"{{{name}}}" not in topic.machine:
            yield name, cell


_MISSING: Any = object()


def _to_number(path: str, value: Any, parse_text: ParseText) -> float | int:
    """Returns a value as a finite number. Raises PayloadError, which does not name the path."""
    number: float | None = None
    if isinstance(value, (bool, int, float)):
        try:
            number = float(value)
        except OverflowError:
            raise PayloadError("the number is too large", Reason.NOT_A_NUMBER) from None
    elif isinstance(value, str):
        try:
            number = parse_text(value)
        except ValueError as error:
            raise PayloadError(str(error), Reason.NOT_A_NUMBER) from None
    elif isinstance(value, Unflattened):
        raise PayloadError(value.reason, Reason.UNSUPPORTED)
    elif value is not None:
        kind = "an object" if isinstance(value, dict) else "an array"
        problem = f"is {kind}; select one value of it, such as {path}.{_first_name(value)}"
        raise PayloadError(problem, Reason.NOT_A_NUMBER)
    if number is None or not math.isfinite(number):
        raise PayloadError(excerpt(str(value).encode()), Reason.ABSENT)
    return number if abs(number) < EXACT_UP_TO else _exact(value, number)


def _exact(value: Any, number: float) -> float | int:
    """Returns a large number without rounding, if it is written as an integer."""
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return value if type(value) is int else number


def _first_name(value: Any) -> str:
    return str(next(iter(value), "NAME"))[:40] if isinstance(value, dict) else "0"


def _read_time(path: str, row: Mapping[str, Any]) -> int:
    if (value := value_at(row, path, _MISSING)) is _MISSING:
        raise PayloadError(f"{path}: is missing", Reason.WRONG_TIME)
    return _parse_time(path, value)


def _parse_time(path: str, value: Any) -> int:
    try:
        if isinstance(value, float | int) and not isinstance(value, bool):
            return timestamp_from_number(float(value))
        return parse_timestamp(str(value))
    except (ValueError, OverflowError) as error:
        raise PayloadError(f"{path}: {error}", Reason.WRONG_TIME) from error


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
            raise PayloadError(f"{match.group(1)}: is missing", Reason.NO_NAME)
        return value

    return PLACEHOLDER.sub(replacement, template)
