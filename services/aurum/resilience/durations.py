"""Durations as written in policies: a number with its unit, such as 250ms, 1.5s, 2m30s or 1h."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"


def parse_duration(text: object) -> float:
    """Converts a duration to seconds. Raises ValueError with an explanation for other texts."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        raise ValueError(f"{text} has no unit; write {text}s or {text}ms")
    if not isinstance(text, str) or not re.fullmatch(PATTERN, text):
        raise ValueError(f"{text!r} is not a duration; write a number with ms, s, m or h, such as 250ms or 1.5s")
    return float(sum(Decimal(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def format_duration(seconds: float) -> str:
    """Returns the shortest notation that `parse_duration` reads as the same number, such as 250ms for 0.25."""
    number, unit = (1000 * Decimal(repr(seconds)), "ms") if 0 < seconds < 1 else (Decimal(repr(seconds)), "s")
    return f"{number.normalize():f}{unit}"


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
