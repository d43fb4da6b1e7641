"""What became of calls: one line of JSON an attempt, to be recorded and to be replayed against another policy."""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic_core import from_json

# An attempt that a policy refused never reached its target, so nothing is known of the target from it.
REJECTED = frozenset({"CIRCUIT_OPEN", "LIMIT_EXCEEDED"})


class OutcomeError(ValueError):
    """A line that is no outcome; the message names the line and the field."""


class Outcome(NamedTuple):
    """time: of its start, seconds since the epoch. target: client/server/Method. duration: seconds. code: OK, the
    status code, CIRCUIT_OPEN or LIMIT_EXCEEDED. attempt: 1 for a call's first, more for retries and hedges."""

    time: float
    target: str
    duration: float
    code: str
    attempt: int = 1

    def line(self) -> str:
        """The outcome as a line of JSON."""
        return (
            f'{{"time":{self.time:.6f},"target":{json.dumps(self.target)},"duration":{self.duration:.6f},'
            f'"code":"{self.code}","attempt":{self.attempt}}}\n'
        )


_BLOCK = 1000  # lines that are decoded at once, which is faster than one by one


def read_outcomes(lines: Iterable[str], source: str = "outcomes") -> Iterator[Outcome]:
    """Decodes lines of JSON; empty ones are skipped. Raises OutcomeError."""
    block: list[str] = []
    first = 1
    number = 0
    for number, line in enumerate(lines, 1):
        block.append(line)
        if len(block) == _BLOCK:
            yield from _decode(block, first, source)
            block, first = [], number + 1
    yield from _decode(block, first, source)


def _decode(block: list[str], first: int, source: str) -> Iterator[Outcome]:
    """Checks by column, which is what makes it fast; only where something is wrong each line is looked at."""
    try:
        rows = from_json(f"[{','.join([line for line in block if not line.isspace()])}]", allow_inf_nan=False)
        times, durations = [row["time"] for row in rows], [row["duration"] for row in rows]
        targets, codes = [row["target"] for row in rows], [row["code"] for row in rows]
        attempts = [row.get("attempt", 1) for row in rows]
        right = (
            _NUMBERS.issuperset(map(type, times))
            and _NUMBERS.issuperset(map(type, durations))
            and {int}.issuperset(map(type, attempts))
            and _TEXTS.issuperset(map(type, targets))
            and _TEXTS.issuperset(map(type, codes))
            and all(target.count("/") == 2 for target in set(targets))
            and min(durations, default=0) >= 0
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        right = False
    if not right:
        for number, line in enumerate(block, first):
            if not line.isspace():
                _check(line, f"{source}, line {number}")
    return map(Outcome, times, targets, durations, codes, attempts)


_NUMBERS: frozenset[Any] = frozenset({int, float})
_TEXTS: frozenset[Any] = frozenset({str})
_FIELDS: dict[str, tuple[type, ...]] = {
    "time": (int, float),
    "target": (str,),
    "duration": (int, float),
    "code": (str,),
    "attempt": (int,),
}


def _check(line: str, where: str) -> None:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise OutcomeError(f"{where}: is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise OutcomeError(f"{where}: is not an object")
    for name, kinds in _FIELDS.items():
        value = fields.get(name, 1 if name == "attempt" else None)
        endless = isinstance(value, float) and not math.isfinite(value)
        if not isinstance(value, kinds) or isinstance(value, bool) or endless:
            raise OutcomeError(f"{where}: {name}: must be {'a text' if kinds == (str,) else 'a number'}, not {value!r}")
    if fields["duration"] < 0:
        raise OutcomeError(f"{where}: duration: must not be negative")
    if fields["target"].count("/") != 2:
        raise OutcomeError(f"{where}: target: {fields['target']!r} is not client/server/Method")
