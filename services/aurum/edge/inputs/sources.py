"""What is known of each device behind an input: how good its values are, and by how much its clock is off."""

import collections
import heapq
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Timestamps

_MOST_SOURCES = 10_000
_WINDOW_US = 60_000_000  # of the clock's estimate
_SHARE = 0.01  # by which one value moves the quality


@dataclass(slots=True)
class SourceState:
    """quality: share of good values, of the last hundred or so. seen_us: when something came."""

    quality: float = 1.0
    seen_us: int = 0
    # The largest lead of a time over its arrival is the nearest to the clock's own, since all else delays (RFC 5905's
    # minimum filter). Of this window and the one before.
    lead_us: float = -math.inf
    lead_before_us: float = -math.inf
    window_began_us: int = 0

    def note(self, arrived_us: int, at_us: int | None, *, good: bool) -> None:
        self.seen_us = arrived_us
        self.quality += _SHARE * ((1.0 if good else 0.0) - self.quality)
        if at_us is not None:
            self._note_lead(arrived_us, at_us - arrived_us)

    def note_all(self, arrived_us: int, at_us: Timestamps, good: npt.NDArray[np.bool_]) -> None:
        """As `note` for each, that have arrived together. at_us: 0 where the device tells no time."""
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
        """By how much its clock is ahead; below 0 for behind, network and queue included. 0 if it tells no time."""
        lead = max(self.lead_us, self.lead_before_us)
        return lead if math.isfinite(lead) else 0.0


class Sources:
    """Those that were heard lately; who has been silent longest is forgotten."""

    def __init__(self) -> None:
        self._known: collections.OrderedDict[str, SourceState] = collections.OrderedDict()

    def of(self, source: str) -> SourceState:
        state = self._known.get(source)
        if state is None:
            state = self._known[source] = SourceState()
            if len(self._known) > _MOST_SOURCES:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(source)
        return state

    def __len__(self) -> int:
        return len(self._known)

    def worst(self, most: int) -> list[tuple[str, SourceState]]:
        """By their quality, and where that is the same by their clocks."""
        return heapq.nsmallest(most, self._known.items(), key=lambda each: (each[1].quality, -abs(each[1].skew_us)))

    @property
    def worst_quality(self) -> float:
        return min((each.quality for each in self._known.values()), default=1.0)

    @property
    def largest_skew(self) -> float:
        """Seconds, whichever way."""
        return max((abs(each.skew_us) for each in self._known.values()), default=0.0) / 1e6
