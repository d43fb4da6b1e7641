"""Gathers the values of an input into batches, and puts these into the spool."""

import asyncio
import math
import time
from collections.abc import Awaitable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from opentelemetry.trace import SpanKind

from aurum.edge import metrics
from aurum.edge.inputs.common.device_stats import DeviceState, DeviceStats
from aurum.edge.inputs.common.redelivery_cache import Arrival
from aurum.edge.inputs.common.tags import Indices, Kind, Tags
from aurum.edge.inputs.common.throttled_log import ThrottledLog
from aurum.edge.spool import Spool
from aurum.readings.batch import MAX_AHEAD_US, MAX_READINGS, MAX_SERIES, Batch, Series, Timestamps, Values, now_us
from aurum.readings.transport.ingest_stream import Written
from aurum.runtime.errors import ResourceExhaustedError, UnavailableError
from aurum.runtime.telemetry.tracing import traced_operation, traceparent
from aurum.security.source_limits import SourceLimits

Clock = Literal["device", "corrected", "arrival"]
Flags = npt.NDArray[np.bool_]
_MARGIN_US = 10_000_000  # reserve below the limit for times in the future, because ingestion's clock may be behind ours
_MOST_READINGS, _MOST_SERIES = MAX_READINGS // 2, MAX_SERIES // 2  # of one batch
_SHARE_BYTES = 1000  # of the spool per reading of the largest batch, which limits the batch to a part of the spool
_DISK_AGAIN = 1.0  # seconds before a failed write is repeated


class BatchBuilder:
    """Gathers values until they are committed. For one event loop.

    `most` is the greatest number of readings in a batch.
    """

    def __init__(self, name: str, source_id: str, spool: Spool, tags: Tags, clock: Clock, limits: SourceLimits) -> None:
        """Creates a collector.

        Args:
            name: The name of the input.
            source_id: The source of its batches. It must be new.
            spool: The spool.
            tags: The rules for names and units.
            clock: Whose time a reading gets.
            limits: The limits on sources.
        """
        self.sources = DeviceStats()
        self.tags = tags
        self._source_id = source_id
        self._sequence = 0
        self._spool = spool
        self._clock = clock
        self._limits = limits
        self._name = name
        self.most = min(_MOST_READINGS, spool.max_bytes // _SHARE_BYTES)
        self._troubles = ThrottledLog(name)
        self._indices: list[int] = []
        self._times: list[int] = []
        self._values: list[float] = []
        self._blocks: list[tuple[Indices, Timestamps, Values]] = []
        self._results = {
            result: metrics.edge_input_readings_total.labels(name, result)
            for result in ("accepted", "unchanged", "bad", "invalid", "unwanted", "retimed")
        }
        self._held_back = metrics.edge_input_held_back_seconds_total.labels(name)

    def skew_us(self, source: str) -> float:
        """Returns the µs by which a device's clock is estimated to be ahead."""
        return self.sources.of(source).skew_us

    @property
    def full(self) -> bool:
        """Whether `add` has gathered enough values for a batch."""
        return len(self._values) >= self.most

    def add(
        self,
        source: str,
        machine: str,
        sensor: str,
        at_us: int | None,
        value: float,
        *,
        good: bool = True,
        arrival: Arrival | None = None,
    ) -> None:
        """Adds a value.

        Args:
            source: The device.
            machine: The machine, as the device names it.
            sensor: The sensor, as the device names it.
            at_us: The device's time; None if it sends none.
            value: The value.
            good: Whether the device marks the value as good.
            arrival: The first arrival of a repeated message; None for a new one.
        """
        tag = self.tags.of(machine, sensor)
        if tag.kind is Kind.DROPPED:
            self._results["unwanted"].inc()
            return
        arrived = now_us() if arrival is None else arrival.at_us
        value = tag.factor * value + tag.offset
        good = good and math.isfinite(value)
        state = self.sources.of(source)
        state.note(arrived, at_us, good=good)
        if not good:
            self._results["bad"].inc()
            return
        if tag.kind is Kind.INVALID:
            self._results["invalid"].inc()
            return
        at = self._time(arrived, at_us, self._skew_us(state, arrival))
        if tag.kind is Kind.BANDED and not tag.passes(at, value):
            self._results["unchanged"].inc()
            return
        self._indices.append(tag.index)
        self._times.append(at)
        self._values.append(value)

    def add_all(self, source: str, indices: Indices, at_us: Timestamps, values: Values, good: Flags) -> None:
        """Adds many values of one device, each as in `add`. The arrays have the same length.

        Args:
            source: The device.
            indices: The indices of the tags, of the present generation.
            at_us: The device's times; 0 where it sends none.
            values: The values.
            good: Whether the device marks each value as good.
        """
        kinds = self.tags.kinds[indices]
        wanted = kinds != Kind.DROPPED
        with np.errstate(over="ignore", invalid="ignore"):
            values = self.tags.factors[indices] * values + self.tags.offsets[indices]
        good = good & np.isfinite(values)
        stored = wanted & good & (kinds != Kind.INVALID)
        self._count("unwanted", ~wanted)
        self._count("bad", wanted & ~good)
        self._count("invalid", wanted & good & (kinds == Kind.INVALID))
        arrived = now_us()
        state = self.sources.of(source)
        state.note_all(arrived, at_us[wanted], good[wanted])
        indices, at_us, values = indices[stored], at_us[stored], values[stored]
        times = self._times_of(arrived + _rank(indices), at_us, state.skew_us)
        (banded,) = np.nonzero(kinds[stored] == Kind.BANDED)
        if len(banded):
            passing = np.ones(len(values), bool)
            for place in banded.tolist():
                passing[place] = self.tags.at(indices[place]).passes(int(times[place]), float(values[place]))
            self._count("unchanged", ~passing)
            indices, times, values = indices[passing], times[passing], values[passing]
        if len(values):
            self._blocks.append((indices, times, values))

    def leave_out(self, count: int) -> None:
        """Counts values that cannot be stored after their conversion."""
        self._results["bad"].inc(count)

    async def commit(self) -> Awaitable[Any] | None:
        """Puts the gathered values into the spool, and waits for room there.

        Returns:
            An awaitable that completes when all of them are durable. None if there are no values.
        """
        writing = [await self._put_next(series) for series in self._gathered()]
        if self.tags.too_many and not self._values and not self._blocks:
            self.tags.forget()
        return asyncio.gather(*writing) if writing else None

    async def put(self, source_id: str, sequence: int, series: list[Series]) -> Awaitable[Written]:
        """Puts a batch with a given source and sequence into the spool; otherwise as `commit`."""
        batch = Batch.of(source_id, sequence, series)
        began = time.monotonic()
        told: dict[str, str | int] = {"aurum.input": self._name, "aurum.readings": batch.readings}
        with traced_operation("spool input", told, kind=SpanKind.PRODUCER):
            await self._limits.admit(batch, wait=True)
            parent = traceparent()
            writing = await self._spool.put(batch, parent, wait=True)
        self._held_back.inc(time.monotonic() - began)
        return asyncio.ensure_future(self._kept(batch, parent, writing))

    async def _put_next(self, series: list[Series]) -> Awaitable[Written]:
        self._sequence += 1
        return await self.put(self._source_id, self._sequence, series)

    async def _kept(self, batch: Batch, parent: str, writing: Awaitable[Written]) -> Written:
        """Waits until a batch is durable. Repeats the write if the disk is full or fails.

        Meanwhile nothing is acknowledged, so the input soon stops reading.
        """
        while True:
            began = time.monotonic()
            try:
                written = await writing
            except (ResourceExhaustedError, UnavailableError) as error:
                self._troubles.tell(error.message)
                await asyncio.sleep(error.retry_after or _DISK_AGAIN)
                writing = await self._spool.put(batch, parent, wait=True)
                self._held_back.inc(time.monotonic() - began)
                continue
            self._results["accepted"].inc(written.accepted)
            return written

    def _count(self, result: str, which: Flags) -> None:
        if count := np.count_nonzero(which):
            self._results[result].inc(int(count))

    def _gathered(self) -> list[list[Series]]:
        """Returns the gathered values as batches within the limits."""
        if self._values:
            block = np.array(self._indices, np.int32), np.array(self._times, np.int64), np.array(self._values)
            self._blocks.append(block)
            self._indices, self._times, self._values = [], [], []
        if not self._blocks:
            return []
        blocks, self._blocks = self._blocks, []
        indices, times, values = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
        batches: list[list[Series]] = []
        for start in range(0, len(values), self.most):
            part = slice(start, start + self.most)
            series = list(self._by_tag(indices[part], times[part], values[part]))
            batches += [series[first : first + _MOST_SERIES] for first in range(0, len(series), _MOST_SERIES)]
        return batches

    def _by_tag(self, indices: Indices, times: Timestamps, values: Values) -> Iterator[Series]:
        order = np.argsort(indices, kind="stable")
        indices, times, values = indices[order], times[order], values[order]
        starts = np.flatnonzero(np.diff(indices, prepend=-1)).tolist()
        found: dict[tuple[str, str], list[slice]] = {}
        for start, end in zip(starts, [*starts[1:], len(values)], strict=True):
            tag = self.tags.at(indices[start])
            found.setdefault((tag.machine_id, tag.sensor), []).append(slice(start, end))
        for (machine_id, sensor), parts in found.items():
            if len(parts) == 1:
                yield Series(machine_id, sensor, times[parts[0]], values[parts[0]])
            else:  # several device names that the rules map to one sensor
                yield Series(
                    machine_id,
                    sensor,
                    np.concatenate([times[part] for part in parts]),
                    np.concatenate([values[part] for part in parts]),
                )

    def _skew_us(self, state: DeviceState, arrival: Arrival | None) -> float:
        known = arrival.skew_us if arrival is not None else None
        return state.skew_us if known is None else known

    def _time(self, arrived: int, at_us: int | None, skew_us: float) -> int:
        if at_us is None or self._clock == "arrival":
            return arrived
        if self._clock == "corrected":
            at_us -= int(skew_us)
        if at_us > arrived + MAX_AHEAD_US - _MARGIN_US or at_us < 0:
            self._results["retimed"].inc()  # ingestion would refuse the whole batch otherwise
            return arrived
        return at_us

    def _times_of(self, arrived: Timestamps, at_us: Timestamps, skew_us: float) -> Timestamps:
        """As `_time`, for arrays."""
        told = at_us != 0
        if self._clock == "arrival":
            told = np.zeros(len(at_us), bool)
        elif self._clock == "corrected":
            at_us = at_us - int(skew_us)
        wrong = told & ((at_us > arrived + MAX_AHEAD_US - _MARGIN_US) | (at_us < 0))
        self._count("retimed", wrong)
        return np.where(told & ~wrong, at_us, arrived)


def _rank(indices: Indices) -> Timestamps:
    """Returns for each index how often it occurred before.

    Added in µs, this separates values of a sensor that arrived together.
    """
    order = np.argsort(indices, kind="stable")
    starts = np.flatnonzero(np.diff(indices[order], prepend=-1))
    rank = np.empty(len(indices), np.int64)
    rank[order] = np.arange(len(indices)) - np.repeat(starts, np.diff(starts, append=len(indices)))
    return rank
