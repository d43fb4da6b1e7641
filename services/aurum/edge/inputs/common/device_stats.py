"""The state of each device behind an input: the quality of its values, and the skew of its clock."""

import collections
import heapq
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Timestamps

_MOST_SOURCES = 10_000
_WINDOW_US = 60_000_000  # window of the skew estimate
_SHARE = 0.01  # weight of one value in the quality


@dataclass(slots=True)
class DeviceState:
    """The state of a device.

    Attributes:
        quality: The share of good values, as a moving average over about the last hundred.
        seen_us: When a value last arrived.
        lead_us: The largest lead of a time over its arrival, in the present window.
        lead_before_us: The same, in the previous window.
        window_began_us: When the present window began.
    """

    quality: float = 1.0
    seen_us: int = 0
    # Delays only reduce the lead of a time over its arrival. The largest lead of two windows is therefore closest to
    # the skew (RFC 5905's minimum filter).
    lead_us: float = -math.inf
    lead_before_us: float = -math.inf
    window_began_us: int = 0

    def note(self, arrived_us: int, at_us: int | None, *, good: bool) -> None:
        self.seen_us = arrived_us
        self.quality += _SHARE * ((1.0 if good else 0.0) - self.quality)
        if at_us is not None:
            self._note_lead(arrived_us, at_us - arrived_us)

    def note_all(self, arrived_us: int, at_us: Timestamps, good: npt.NDArray[np.bool_]) -> None:
        """As `note`, for values that arrived together. `at_us` is 0 where the device sends no time."""
        if not len(good):
            return
        self.seen_us = arrived_us
        weights = _SHARE * (1.0 - _SHARE) ** np.arange(len(good) - 1, -1, -1)
        self.quality = float(self.quality * (1.0 - _SHARE) ** len(good) + weights[good].sum())
        told = at_us[at_us != 0]
        if len(told):
            self._note_lead(arrived_us, int(told.max()) - arrived_us)

    def _note_lead(self, arrived_us: int, lead_us: float) -> None:
        if arrived_us - self.window_began_us > _WINDOW_US:
            self.lead_before_us, self.lead_us, self.window_began_us = self.lead_us, -math.inf, arrived_us
        self.lead_us = max(self.lead_us, lead_us)

    @property
    def skew_us(self) -> float:
        """The µs by which the device's clock is ahead; negative if behind. 0 without times. Includes network delays."""
        lead = max(self.lead_us, self.lead_before_us)
        return lead if math.isfinite(lead) else 0.0


class DeviceStats:
    """The devices that have sent something recently. The least recent one is forgotten first."""

    def __init__(self) -> None:
        self._known: collections.OrderedDict[str, DeviceState] = collections.OrderedDict()

    def of(self, source: str) -> DeviceState:
        state = self._known.get(source)
        if state is None:
            state = self._known[source] = DeviceState()
            if len(self._known) > _MOST_SOURCES:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(source)
        return state

    def __len__(self) -> int:
        return len(self._known)

    def worst(self, most: int) -> list[tuple[str, DeviceState]]:
        """Returns up to `most` devices, those with the lowest quality and then the largest skew first."""
        return heapq.nsmallest(most, self._known.items(), key=lambda each: (each[1].quality, -abs(each[1].skew_us)))

    @property
    def worst_quality(self) -> float:
        return min((each.quality for each in self._known.values()), default=1.0)

    @property
    def largest_skew(self) -> float:
        """The largest absolute skew in seconds."""
        return max((abs(each.skew_us) for each in self._known.values()), default=0.0) / 1e6
