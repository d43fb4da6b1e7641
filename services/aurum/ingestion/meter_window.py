"""Reads the readings of meters in a range, and those around it that decide what they mean."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aurum.ingestion.store import Points
from aurum.readings.batch import SeriesKey, Timestamps, Values
from aurum.sustainability.hourly import LONGEST_BRIDGE_US, TimeRange

_PROBE_POINTS = 500  # to which the time after the range is reduced, to find the first reading in it


class SeriesReads(Protocol):
    """Reads series from a store."""

    async def read_keys(
        self, keys: Sequence[SeriesKey], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns readings of the first of several series; see `Store.read_keys`."""


@dataclass(frozen=True, slots=True)
class LimitedReads:
    """Reads series, as many calls at a time as a semaphore admits."""

    reads: SeriesReads
    admitted: asyncio.Semaphore

    async def read_keys(
        self, keys: Sequence[SeriesKey], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns readings of the first of several series; see `Store.read_keys`."""
        async with self.admitted:
            return await self.reads.read_keys(keys, start_us, end_us, points=points, last=last)


@dataclass(frozen=True, slots=True)
class MeterWindow:
    """Readings of a meter in and around a range, ascending by time."""

    times: Timestamps
    values: Values


async def read_window(
    reads: SeriesReads, keys: Sequence[SeriesKey], over: TimeRange, longest_gap: float, recovery: float | None
) -> list[MeterWindow]:
    """Reads the first of some meters for a range: at least one.

    What it reads is bounded by the range and the recovery time, whatever the length of the gaps around it.

    Args:
        reads: Reads the series.
        keys: The meters.
        over: The range.
        longest_gap: Seconds. A longer time without a reading is a gap.
        recovery: Seconds within which a drop of a counter may recover; None for rates, whose gaps are not bridged.

    Raises:
        InvalidArgumentError: A series has too many readings; its reason is TOO_MANY_READINGS.
        AurumError: The store did not answer.
    """
    start = max(1, over.start - round(max(2 * (recovery or 0.0), longest_gap) * 1e6))
    # The last reading that ends a step of the longest length is at the end of this range, which is exclusive
    end = over.end + round(max(recovery or 0.0, longest_gap) * 1e6) + (1 if recovery is None else 0)
    found = await reads.read_keys(keys, start, end)
    windows = [MeterWindow(points.timestamps, points.values) for points in found]
    if recovery is None:
        return windows
    return [
        await _with_neighbours(reads, key, window, over, (start, end))
        for key, window in zip(keys, windows, strict=False)
    ]


async def _with_neighbours(
    reads: SeriesReads, key: SeriesKey, window: MeterWindow, over: TimeRange, bounds: tuple[int, int]
) -> MeterWindow:
    """Adds the last reading before the window and the first one after it, as far as the window does not reach them."""
    start, end = bounds
    if not len(window.times) or int(window.times[0]) > over.start:
        begin = max(1, over.start - LONGEST_BRIDGE_US)
        if begin < start:
            (before,) = await reads.read_keys([key], begin, start, last=1)
            window = _joined(before.timestamps, before.values, window)
    if len(window.times) and int(window.times[-1]) < over.end:
        window = await _with_first_after(reads, key, window, end, min(over.end + LONGEST_BRIDGE_US, _now_us()))
    return window


async def _with_first_after(
    reads: SeriesReads, key: SeriesKey, window: MeterWindow, end: int, until: int
) -> MeterWindow:
    if end >= until:
        return window
    (after,) = await reads.read_keys([key], end, until, points=_PROBE_POINTS)
    if len(after.timestamps) and after.counts is not None:  # the starts of intervals and their means
        width = -(-(until - end) // _PROBE_POINTS)
        first = int(after.timestamps[0])
        (after,) = await reads.read_keys([key], first, first + width)
    if not len(after.timestamps):
        return window
    return MeterWindow(
        np.append(window.times, after.timestamps[:1]),
        np.append(window.values, after.values[:1]),
    )


def _joined(times: Timestamps, values: Values, window: MeterWindow) -> MeterWindow:
    return MeterWindow(np.concatenate([times, window.times]), np.concatenate([values, window.values]))


def _now_us() -> int:
    return int(time.time() * 1e6)
