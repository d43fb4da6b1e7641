"""Counts what an input refused or corrected, by reason, with the last example of each."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from aurum.edge import metrics
from aurum.edge.inputs.common.printable import printable
from aurum.edge.inputs.common.throttled_log import ThrottledLog

_MAX_EXAMPLE = 200  # characters


class Reason(StrEnum):
    """Why a value was refused or corrected. A closed set, because it is a label of metrics.

    Attributes:
        NOT_A_NUMBER: The value should be a number, and is not.
        TEXT: The value is a text, such as a state, of a sensor that has had no number.
        ABSENT: The device marks the value as not available, for example by 0x8000 or a word of a historian.
        OUT_OF_RANGE: The value is outside the declared range.
        BAD_QUALITY: The device marks the value as bad or uncertain.
        INVALID_NAME: A name cannot be stored, and no rule maps it.
        NO_NAME: The value has neither a name nor a known alias.
        UNREADABLE: The message, register or file cannot be decoded.
        NOTHING_IN_IT: The message has no value that a rule or path selects.
        SAME_TIME: A later value of the sensor has the same time and takes its place.
        ROUNDED: The integer has more digits than a reading can hold, and is stored rounded to 53 bits.
        WRONG_TIME: The time cannot be used, for example because a device has no clock.
        OLD: A retained message was stored already, or has no time of its own.
        UNSUPPORTED: The data type is not supported.
        INCOMPLETE: A file changed after it had been read, so that it is read again.
    """

    NOT_A_NUMBER = "not_a_number"
    TEXT = "text"
    ABSENT = "absent"
    OUT_OF_RANGE = "out_of_range"
    BAD_QUALITY = "bad_quality"
    INVALID_NAME = "invalid_name"
    NO_NAME = "no_name"
    UNREADABLE = "unreadable"
    NOTHING_IN_IT = "nothing_in_it"
    SAME_TIME = "same_time"
    ROUNDED = "rounded"
    WRONG_TIME = "wrong_time"
    OLD = "old"
    UNSUPPORTED = "unsupported"
    INCOMPLETE = "incomplete"


@dataclass(slots=True)
class Tally:
    """How often something happened for one reason.

    Attributes:
        count: How often, since the start of the process.
        example: The last one, as text.
        last_at: The time of the last one in seconds since the epoch.
    """

    count: int = 0
    example: str = ""
    last_at: float = 0.0


class Tallied(Protocol):
    """A part of an input with its own tallies, by reason."""

    refused: dict[Reason, Tally]
    corrected: dict[Reason, Tally]


class Refusals:
    """What one input refused or corrected. Each reason is logged at most once a minute.

    Args:
        name: The name of the input.
        clock: Seconds since the epoch.
        devices: Returns the tallies of a device.
    """

    def __init__(
        self,
        name: str,
        clock: Callable[[], float] = time.time,
        devices: Callable[[str], Tallied] | None = None,
    ) -> None:
        self._name = name
        self._clock = clock
        self._devices = devices
        self._logs = {reason: ThrottledLog(name) for reason in Reason}
        self.refused: dict[Reason, Tally] = {}
        self.corrected: dict[Reason, Tally] = {}

    def refuse(self, reason: Reason, example: str, count: int = 1, *, device: str | None = None) -> None:
        """Counts and logs values that are not stored.

        Args:
            reason: Why they are not stored.
            example: Which one, and what it was, such as "press-3 temp: 'Bad Input'". It is cut at 200 characters.
            count: The number of values.
            device: The device that sent them, if it is known.
        """
        example = printable(example, _MAX_EXAMPLE)
        metrics.edge_input_refused_total.labels(self._name, reason).inc(count)
        self._record(self.refused, reason, example, count)
        if device is not None and self._devices is not None:
            self._record(self._devices(device).refused, reason, example, count)
        self._logs[reason].warn(f"{reason.replace('_', ' ')}, not stored: {example}")

    def correct(self, reason: Reason, example: str, count: int = 1, *, device: str | None = None) -> None:
        """Counts and logs values that are stored after a correction. The arguments are those of `refuse`."""
        example = printable(example, _MAX_EXAMPLE)
        metrics.edge_input_corrected_total.labels(self._name, reason).inc(count)
        self._record(self.corrected, reason, example, count)
        if device is not None and self._devices is not None:
            self._record(self._devices(device).corrected, reason, example, count)
        self._logs[reason].warn(f"{reason.replace('_', ' ')}, corrected: {example}")

    def _record(self, tallies: dict[Reason, Tally], reason: Reason, example: str, count: int) -> None:
        tally = tallies.setdefault(reason, Tally())
        tally.count += count
        tally.example, tally.last_at = example, self._clock()
