"""Which time a reading gets: that of its device, that less the skew of its clock, or that of its arrival."""

from datetime import UTC, datetime
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from aurum.edge.inputs.common.configuration import EARLIEST
from aurum.readings.batch import MAX_AHEAD_US, Timestamps

Clock = Literal["device", "corrected", "arrival"]
Flags = npt.NDArray[np.bool_]
_CLOCK_MARGIN_US = 10_000_000  # reserve below the limit for future times, because ingestion's clock may be behind


class ReadingTimes:
    """The rule for the times of an input.

    Args:
        clock: Whether a reading gets the device's time, that less the clock skew, or its time of arrival.
        earliest: The earliest time that a device can mean.
    """

    def __init__(self, clock: Clock, earliest: datetime = EARLIEST) -> None:
        self._clock = clock
        self._earliest_us = int(earliest.timestamp() * 1_000_000)

    def corrected(self, at_us: int, skew_us: float) -> int:
        """Returns a device's time less the skew of its clock, if that is wanted."""
        return at_us - int(skew_us) if self._clock == "corrected" else at_us

    @overload
    def are_plausible(self, at_us: int, arrived_us: int) -> bool: ...

    @overload
    def are_plausible(self, at_us: Timestamps, arrived_us: Timestamps) -> Flags: ...

    def are_plausible(self, at_us: int | Timestamps, arrived_us: int | Timestamps) -> bool | Flags:
        """Returns whether a device can mean these times.

        Ingestion would refuse a whole batch for a time that is too far ahead.
        """
        return (at_us >= self._earliest_us) & (at_us <= arrived_us + (MAX_AHEAD_US - _CLOCK_MARGIN_US))

    def time_of(self, at_us: int | None, arrived_us: int, skew_us: float) -> tuple[int, int | None]:
        """Chooses the time of a reading.

        Args:
            at_us: The device's time in µs since the epoch; None if it sends none.
            arrived_us: The time of arrival.
            skew_us: The skew of the device's clock.

        Returns:
            The time, and the time of the device that cannot be used; None if it can.
        """
        if at_us is None or self._clock == "arrival":
            return arrived_us, None
        if self._clock == "corrected":
            at_us -= int(skew_us)
        return (at_us, None) if self.are_plausible(at_us, arrived_us) else (arrived_us, at_us)

    def times_of(self, at_us: Timestamps, arrived_us: Timestamps, skew_us: float) -> tuple[Timestamps, Timestamps]:
        """Chooses the times of many readings, as `time_of` does.

        Args:
            at_us: The device's times; 0 where it sends none.
            arrived_us: The times of arrival.
            skew_us: The skew of the device's clock.

        Returns:
            The times, and the positions of those whose device's time cannot be used.
        """
        if self._clock == "arrival":
            return arrived_us, np.empty(0, np.int64)
        has_time = at_us != 0
        if self._clock == "corrected":
            at_us = at_us - int(skew_us)
        plausible = self.are_plausible(at_us, arrived_us)
        return np.where(has_time & plausible, at_us, arrived_us), np.flatnonzero(has_time & ~plausible)


def shown_time(at_us: int) -> str:
    """Returns a time in µs since the epoch as text, also one that no calendar has."""
    try:
        return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{at_us} µs since 1970"


def occurrences(indices: npt.NDArray[np.int32]) -> Timestamps:
    """Returns for each index how often it occurred before.

    Added in µs, this separates values of a sensor that arrived together.
    """
    order = np.argsort(indices, kind="stable")
    starts = np.flatnonzero(np.diff(indices[order], prepend=-1))
    rank = np.empty(len(indices), np.int64)
    rank[order] = np.arange(len(indices)) - np.repeat(starts, np.diff(starts, append=len(indices)))
    return rank
