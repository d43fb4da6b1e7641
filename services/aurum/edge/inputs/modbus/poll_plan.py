"""Which registers of a device are asked for together, as learned from what it refuses.

Devices refuse a request as a whole if one of its registers does not exist, or if it is longer than they can answer.
Such a request is split until the values that cannot be read stand alone. The rest is read as before; those are asked
for again after a minute, and then ever less often.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from aurum.edge.inputs.common.configuration import REGISTERS_PER_VALUE, Register

_MAX_REGISTERS, _MAX_BITS = 120, 1920  # per request; the protocol allows 125 and 2,000
_MAX_GAP = 8  # unneeded registers that are read to save a request
_SILENT_ROUNDS = 3  # rounds without an answer to a request, though there are answers to others, until it is split
_MIN_PAUSE, _MAX_PAUSE = 60.0, 3600.0  # seconds until a value that could not be read is asked for again


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request to a device.

    Attributes:
        kind: The kind of its registers.
        address: The first register.
        count: The number of registers.
        registers: The values in this range.
    """

    kind: str
    address: int
    count: int
    registers: tuple[Register, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.address} to {self.address + self.count - 1}"


@dataclass(slots=True)
class _State:
    """What is known of a request: rounds without an answer, and how long it is left out since it was refused."""

    silent_rounds: int = 0
    pause: float = 0.0
    due: float = -math.inf


class PollPlan:
    """The requests of a round. It changes when the device refuses one.

    Args:
        registers: The values to read.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, registers: Sequence[Register], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states = {request: _State() for request in group_registers(registers)}

    def due(self) -> list[ReadRequest]:
        """Returns the requests of a round. Those that were not answered lately come last."""
        now = self._clock()
        due = [request for request, state in self._states.items() if state.due <= now]
        return sorted(due, key=lambda request: self._states[request].silent_rounds)

    @property
    def unreadable(self) -> list[ReadRequest]:
        """The requests for values that the device refuses, by kind and address."""
        left_out = (request for request, state in self._states.items() if state.pause)
        return sorted(left_out, key=lambda request: (request.kind, request.address))

    def record_read(self, request: ReadRequest) -> None:
        """Records that the device answered."""
        self._states[request] = _State()

    def record_refused(self, request: ReadRequest, *, split: bool = True) -> list[ReadRequest]:
        """Records that the device refuses a request.

        Args:
            request: The request.
            split: Whether it may have been refused because of a part of it.

        Returns:
            The requests that take its place. None if it is left out for a while instead.
        """
        parts = split_request(request) if split else []
        if parts:
            silent_rounds = self._states.pop(request).silent_rounds
            self._states.update({part: _State(silent_rounds) for part in parts})
            return parts
        state = self._states[request]
        state.pause = min(_MAX_PAUSE, max(_MIN_PAUSE, 2 * state.pause))
        state.due = self._clock() + state.pause
        return []

    def record_silent(self, request: ReadRequest) -> list[ReadRequest]:
        """Records that the device did not answer a request in a round in which it answered others.

        Returns:
            What `record_refused` returns, from the third such round on. None before.
        """
        self._states[request].silent_rounds += 1
        if self._states[request].silent_rounds < _SILENT_ROUNDS:
            return []
        return self.record_refused(request)

    def postpone(self, requests: Iterable[ReadRequest]) -> None:
        """Puts requests at the end of the following rounds, so that the others are tried before."""
        for request in requests:
            self._states[request] = self._states.pop(request)


def group_registers(registers: Iterable[Register]) -> list[ReadRequest]:
    """Groups registers into as few requests as possible."""
    requests: list[ReadRequest] = []
    by_kind: dict[str, list[Register]] = {}
    for register in sorted(registers, key=lambda register: (register.kind, register.address)):
        by_kind.setdefault(register.kind, []).append(register)
    for kind, declared in by_kind.items():
        max_count = _MAX_BITS if kind in ("coil", "discrete") else _MAX_REGISTERS
        group: list[Register] = []
        end = 0
        for register in declared:
            register_end = _end(register)
            if group and (register.address > end + _MAX_GAP or max(end, register_end) - group[0].address > max_count):
                requests.append(_request(group))
                group = []
            end = max(end, register_end) if group else register_end
            group.append(register)
        requests.append(_request(group))
    return requests


def split_request(request: ReadRequest) -> list[ReadRequest]:
    """Splits the values of a request into two requests. Empty for a single value."""
    middle = len(request.registers) // 2
    return [_request(half) for half in (request.registers[:middle], request.registers[middle:]) if half and middle]


def _request(registers: Sequence[Register]) -> ReadRequest:
    address = registers[0].address
    return ReadRequest(registers[0].kind, address, max(map(_end, registers)) - address, tuple(registers))


def _end(register: Register) -> int:
    return register.address + REGISTERS_PER_VALUE[register.type]
