"""What became of calls: one line of JSON an attempt, to be recorded and to be replayed against another policy."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

# An attempt that a policy refused never reached its target, so nothing is known of the target from it.
REJECTED = frozenset({"CIRCUIT_OPEN", "LIMIT_EXCEEDED"})


class OutcomeError(ValueError):
    """A line that is no outcome; the message names the line and the field."""


@dataclass(frozen=True, slots=True)
class Outcome:
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
    try:
        for fields in json.loads(f"[{','.join(line for line in block if line.strip())}]"):
            yield _outcome(fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        # Slowly, to name the line; those before it have been given out already and are right.
        for number, line in enumerate(block, first):
            if line.strip():
                _check(line, f"{source}, line {number}")
        raise


def _outcome(fields: dict[str, Any]) -> Outcome:
    time, duration, target, code = fields["time"], fields["duration"], fields["target"], fields["code"]
    if time.__class__ not in _NUMBERS or duration.__class__ not in _NUMBERS or duration < 0:
        raise ValueError("time and duration must be numbers")
    if target.__class__ is not str or code.__class__ is not str or target.count("/") != 2:
        raise ValueError("target must be client/server/Method")
    return Outcome(time, target, duration, code, fields.get("attempt", 1))


_NUMBERS: frozenset[Any] = frozenset({int, float})


def _check(line: str, where: str) -> None:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise OutcomeError(f"{where}: is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise OutcomeError(f"{where}: is not an object")
    for name, kinds in (("time", (int, float)), ("target", (str,)), ("duration", (int, float)), ("code", (str,))):
        value = fields.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise OutcomeError(f"{where}: {name}: must be {'a text' if kinds == (str,) else 'a number'}, not {value!r}")
    if fields["duration"] < 0:
        raise OutcomeError(f"{where}: duration: must not be negative")
    if fields["target"].count("/") != 2:
        raise OutcomeError(f"{where}: target: {fields['target']!r} is not client/server/Method")
