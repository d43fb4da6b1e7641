"""The outcomes of calls as lines of JSON, one per attempt, for recording and for replaying against another policy."""

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from pydantic_core import from_json

from aurum.resilience.errors import CIRCUIT_OPEN, LIMIT_EXCEEDED

# Attempts that a policy refused never reached the target and say nothing about it
REJECTED = frozenset({CIRCUIT_OPEN, LIMIT_EXCEEDED})


class OutcomeError(ValueError):
    """Raised for a line that is not a valid outcome. The message names the line and the field."""


class Outcome(NamedTuple):
    """The outcome of one attempt.

    Attributes:
        time: Start of the attempt, in seconds since the epoch.
        target: client/server/Method.
        duration: Duration in seconds.
        code: OK, the status code, CIRCUIT_OPEN or LIMIT_EXCEEDED.
        attempt: 1 for the first attempt of a call, more for retries and hedges.
    """

    time: float
    target: str
    duration: float
    code: str
    attempt: int = 1

    def line(self) -> str:
        """Returns the outcome as a line of JSON."""
        return (
            f'{{"time":{self.time:.6f},"target":{json.dumps(self.target)},"duration":{self.duration:.6f},'
            f'"code":"{self.code}","attempt":{self.attempt}}}\n'
        )


_BLOCK = 1_000_000  # bytes decoded at once, which is faster than line by line


def read_outcomes(stream: BinaryIO, source: str = "outcomes") -> Iterator[Outcome]:
    """Decodes lines of JSON and skips empty ones. Raises OutcomeError."""
    first = 1
    rest = b""
    while block := stream.read(_BLOCK):
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            yield from _decode(whole, first, source)
            first += whole.count(b"\n") + 1
    yield from _decode(rest, first, source)


def _decode(block: bytes, first: int, source: str) -> Iterator[Outcome]:
    """Decodes whole columns at once, which is fast. Lines are checked one by one only if that fails."""
    try:
        # One array per line, so that no line can hold two objects and no object can span two lines
        lines = from_json(b"[[%b]]" % block.replace(b"\n", b"],\n["), allow_inf_nan=False)
        if len(lines) != block.count(b"\n") + 1:
            raise ValueError("a line is more than one array")
        return _columns([row for (row,) in lines])
    except (ValueError, KeyError, TypeError, AttributeError):
        texts = block.split(b"\n")
        for number, line in enumerate(texts, first):
            if line.strip():
                _check(line, f"{source}, line {number}")
        return _columns([json.loads(line) for line in texts if line.strip()])


def _columns(rows: list[dict[str, Any]]) -> Iterator[Outcome]:
    """Converts rows to outcomes. Raises ValueError, KeyError, TypeError or AttributeError if a row is invalid."""
    times, durations = [row["time"] for row in rows], [row["duration"] for row in rows]
    targets, codes = [row["target"] for row in rows], [row["code"] for row in rows]
    attempts = [row.get("attempt", 1) for row in rows]
    if not (
        _NUMBERS.issuperset(map(type, times))
        and _NUMBERS.issuperset(map(type, durations))
        and {int}.issuperset(map(type, attempts))
        and _TEXTS.issuperset(map(type, targets))
        and _TEXTS.issuperset(map(type, codes))
        and all(target.count("/") == 2 for target in set(targets))
        and min(durations, default=0) >= 0
    ):
        raise ValueError("a column is wrong")
    return map(_OUTCOME_OF, zip(times, targets, durations, codes, attempts, strict=True))


_OUTCOME_OF: Callable[[tuple[Any, ...]], Outcome] = partial(tuple.__new__, Outcome)  # a third of the constructor's time
_NUMBERS: frozenset[Any] = frozenset({int, float})
_TEXTS: frozenset[Any] = frozenset({str})
_FIELDS: dict[str, tuple[type, ...]] = {
    "time": (int, float),
    "target": (str,),
    "duration": (int, float),
    "code": (str,),
    "attempt": (int,),
}


def _check(line: bytes, where: str) -> None:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
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
