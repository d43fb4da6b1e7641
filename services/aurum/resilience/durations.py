"""Durations as written in policies: a number with its unit, such as 250ms, 1.5s, 2m30s or 1h."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"


def parse_duration(text: object) -> float:
    """Converts a duration to seconds. Raises ValueError with an explanation for other texts."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        raise ValueError(f"{text} has no unit; write {text}s or {text}ms")
    if not isinstance(text, str) or not re.fullmatch(PATTERN, text):
        raise ValueError(f"{text!r} is not a duration; write a number with ms, s, m or h, such as 250ms or 1.5s")
    return float(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def format_duration(seconds: float) -> str:
    """Returns the shortest notation, such as 250ms for 0.25 and 90s for 90."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.10g}ms"
    return f"{seconds:.10g}s"


def _validate(value: Any) -> float:
    if isinstance(value, Seconds):
        return float(value)
    return parse_duration(value)


class Seconds(float):
    """A duration in seconds that comes from code. Durations in documents must have a unit."""


Duration = Annotated[
    float,
    BeforeValidator(_validate),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN}),
]
