"""The state of each device behind an input: its values with their quality and rate, and the skew of its clock."""

import collections
import heapq
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aurum.edge.inputs.common.refusals import Reason, Tally
from aurum.edge.inputs.common.tag import Tag
from aurum.readings.batch import Timestamps

_MAX_DEVICES = 10_000
_WINDOW_US = 60_000_000  # window of the skew estimate
_RATE_WINDOW_US = 10_000_000  # shortest period of a rate
_WEIGHT = 0.01  # weight of one value in the quality


@dataclass(slots=True)
class DeviceState:
    """The state of a device.

    Attributes:
        quality: The share of values that were stored, or were the same as before, as a moving average over about the
            last hundred.
        seen_us: When a value last arrived.
        lead_us: The largest lead of a time over its arrival, in the present window.
        lead_before_us: The same, in the previous window.
        window_began_us: When the present window began.
        accepted: The number of its values that were stored.
        refused: What was not stored, by reason.
        corrected: What was stored after a correction, by reason.
        last: The latest stored value: its tag, its time in µs since the epoch, and the value in the stored unit.
    """

    quality: float = 1.0
    seen_us: int = 0
    # Delays only reduce the lead of a time over its arrival. The largest lead of two windows is therefore closest to
    # the skew (RFC 5905's minimum filter).
    lead_us: float = -math.inf
    lead_before_us: float = -math.inf
    window_began_us: int = 0
    accepted: int = 0
    refused: dict[Reason, Tally] = field(default_factory=dict)
    corrected: dict[Reason, Tally] = field(default_factory=dict)
    last: tuple[Tag, int, float] | None = None
    _counted_at_us: int = 0  # when `accepted` was _counted
    _counted: int = 0
    _rate: float = 0.0  # in the window before

    def record_value(self, arrived_us: int, at_us: int | None, *, good: bool) -> None:
        """Records a value.

        Args:
            arrived_us: When it arrived, in µs since the epoch.
            at_us: The device's time; None if it sends none.
            good: Whether the device marks the value as good.
        """
        self.seen_us = arrived_us
        self.quality += _WEIGHT * ((1.0 if good else 0.0) - self.quality)
        if at_us is not None:
            self._record_lead(arrived_us, at_us - arrived_us)

    def record_values(self, arrived_us: int, at_us: Timestamps, good: npt.NDArray[np.bool_]) -> None:
        """Records values that arrived together.

        Args:
            arrived_us: When they arrived, in µs since the epoch.
            at_us: The device's times; 0 where it sends none.
            good: Whether the device marks each value as good. As long as `at_us`.
        """
        if not len(good):
            return
        self.seen_us = arrived_us
        weights = _WEIGHT * (1.0 - _WEIGHT) ** np.arange(len(good) - 1, -1, -1)
        self.quality = float(self.quality * (1.0 - _WEIGHT) ** len(good) + weights[good].sum())
        device_times = at_us[at_us != 0]
        if len(device_times):
            self._record_lead(arrived_us, int(device_times.max()) - arrived_us)

    def record_faults(self, arrived_us: int, count: int) -> None:
        """Records values that cannot be stored, and that arrived in µs since the epoch."""
        self.seen_us = arrived_us
        self.quality *= (1.0 - _WEIGHT) ** count

    def record_stored(self, now_us: int, count: int, tag: Tag, at_us: int, value: float) -> None:
        """Records stored values.

        Args:
            now_us: When they arrived, in µs since the epoch.
            count: Their number.
            tag: The tag of the last one.
            at_us: Its time in µs since the epoch.
            value: Its value in the stored unit.
        """
        if now_us - self._counted_at_us > _RATE_WINDOW_US:
            self._rate = self._rate_at(now_us) if self._counted_at_us else 0.0
            self._counted_at_us, self._counted = now_us, self.accepted
        self.accepted += count
        self.last = (tag, at_us, value)

    def rate(self, now_us: int) -> float:
        """Returns the number of stored values per second, over 10 to 20 s.

        Args:
            now_us: The time in µs since the epoch.
        """
        within = now_us - self._counted_at_us < _RATE_WINDOW_US
        return self._rate if within and self._rate else self._rate_at(now_us)

    def _rate_at(self, now_us: int) -> float:
        return (self.accepted - self._counted) * 1e6 / max(now_us - self._counted_at_us, 1_000_000)

    def _record_lead(self, arrived_us: int, lead_us: float) -> None:
        if arrived_us - self.window_began_us > _WINDOW_US:
            self.lead_before_us, self.lead_us, self.window_began_us = self.lead_us, -math.inf, arrived_us
        self.lead_us = max(self.lead_us, lead_us)

    @property
    def skew_us(self) -> float:
        """The µs by which the device's clock is ahead; negative if behind. 0 without times. Includes network delays."""
        lead = max(self.lead_us, self.lead_before_us)
        return lead if math.isfinite(lead) else 0.0


class DeviceStats:
    """The state of up to 10,000 devices. The one that has not sent for the longest time is forgotten first."""

    def __init__(self) -> None:
        self._devices: collections.OrderedDict[str, DeviceState] = collections.OrderedDict()
        self._accepted_before = 0  # by devices that were forgotten

    def state_for(self, device: str) -> DeviceState:
        """Returns the state of a device. Creates it at the first call."""
        state = self._devices.get(device)
        if state is None:
            state = self._devices[device] = DeviceState()
            if len(self._devices) > _MAX_DEVICES:
                _, forgotten = self._devices.popitem(last=False)
                self._accepted_before += forgotten.accepted
        else:
            self._devices.move_to_end(device)
        return state

    def __len__(self) -> int:
        return len(self._devices)

    def worst(self, max_devices: int) -> list[tuple[str, DeviceState]]:
        """Returns up to `max_devices` devices, those with the lowest quality and then the largest skew first."""
        return heapq.nsmallest(
            max_devices, self._devices.items(), key=lambda entry: (entry[1].quality, -abs(entry[1].skew_us))
        )

    @property
    def accepted(self) -> int:
        """The number of stored values."""
        return self._accepted_before + sum(state.accepted for state in self._devices.values())

    def rate(self, now_us: int) -> float:
        """Returns the number of stored values of all devices per second, at a time in µs since the epoch."""
        return sum(state.rate(now_us) for state in self._devices.values())

    @property
    def worst_quality(self) -> float:
        """The lowest quality of all devices; 1 without devices."""
        return min((state.quality for state in self._devices.values()), default=1.0)

    @property
    def largest_skew_seconds(self) -> float:
        """The largest absolute skew in seconds."""
        return max((abs(state.skew_us) for state in self._devices.values()), default=0.0) / 1e6
