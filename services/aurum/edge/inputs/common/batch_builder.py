"""Gathers the values of an input into batches."""

import asyncio
from collections.abc import Awaitable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aurum.edge import metrics
from aurum.edge.inputs.common.configuration import EARLIEST
from aurum.edge.inputs.common.device_stats import DeviceState, DeviceStats
from aurum.edge.inputs.common.reading_times import Clock, Flags, ReadingTimes, occurrences, shown_time
from aurum.edge.inputs.common.redelivery_cache import Arrival
from aurum.edge.inputs.common.refusals import Reason, Refusals
from aurum.edge.inputs.common.same_times import replaced_positions
from aurum.edge.inputs.common.spool_writer import SpoolWriter
from aurum.edge.inputs.common.tag import ONLY_SOURCE, Tag, TagKind, TagSource
from aurum.edge.inputs.common.tags import Indices, Tags
from aurum.edge.spool import Spool
from aurum.readings.batch import (
    MAX_READINGS,
    MAX_SERIES,
    Batch,
    Numbers,
    Series,
    SeriesKey,
    Timestamps,
    Values,
    now_us,
)
from aurum.readings.transport.ingest_stream import Written
from aurum.security.source_limits import SourceLimits

_MAX_READINGS, _MAX_SERIES = MAX_READINGS // 2, MAX_SERIES // 2  # of one batch
_SPOOL_BYTES_PER_READING = 1000  # limits a batch to a part of the spool
_NO_FAULT = (Reason.TEXT, Reason.OLD)  # what a device sends rightly although it is not stored


class _Columns(NamedTuple):
    """The readings of a batch: its series, how many readings each has, and the times and values of all in turn."""

    keys: list[SeriesKey]
    lengths: Numbers
    times: Timestamps
    values: Values


class BatchBuilder:
    """Gathers values until they are committed. It must be used from one event loop.

    Attributes:
        devices: The state of the devices that have sent values.
        tags: The tags of the values.
        refusals: What was refused or corrected, by reason.
        max_readings: The greatest number of readings in a batch.
    """

    def __init__(
        self,
        name: str,
        source_id: str,
        spool: Spool,
        tags: Tags,
        clock: Clock,
        limits: SourceLimits,
        *,
        earliest: datetime = EARLIEST,
    ) -> None:
        """Creates a builder.

        Args:
            name: The name of the input.
            source_id: The source of the batches. It must not have been used before.
            spool: The spool.
            tags: The rules for names and units.
            clock: Whether a reading gets the device's time, that less the clock skew, or its time of arrival.
            limits: The limits on sources.
            earliest: The earliest time that a device can mean.
        """
        self.devices = DeviceStats()
        self.tags = tags
        self.refusals = Refusals(name, devices=self.devices.state_for)
        self._source_id = source_id
        self._sequence = 0
        self._reading_times = ReadingTimes(clock, earliest)
        self.max_readings = min(_MAX_READINGS, spool.max_bytes // _SPOOL_BYTES_PER_READING)
        self._indices: list[int] = []
        self._times: list[int] = []
        self._values: list[float] = []
        self._blocks: list[tuple[Indices, Timestamps, Values]] = []
        self._results = {
            result: metrics.edge_input_readings_total.labels(name, result)
            for result in ("accepted", "unchanged", "bad", "invalid", "unwanted", "retimed")
        }
        self._writer = SpoolWriter(name, spool, limits, self._results["accepted"])

    def skew_us(self, device: str) -> float:
        """Returns the µs by which a device's clock is estimated to be ahead."""
        return self.devices.state_for(device).skew_us

    @property
    def full(self) -> bool:
        """Whether `add_value` has gathered enough values for a batch."""
        return len(self._values) >= self.max_readings

    def add_value(
        self,
        device: str,
        machine: str,
        sensor: str,
        at_us: int | None,
        value: float,
        *,
        good: bool = True,
        arrival: Arrival | None = None,
        source: TagSource = ONLY_SOURCE,
    ) -> None:
        """Adds a value.

        Args:
            device: The device.
            machine: The machine, as the device names it.
            sensor: The sensor, as the device names it.
            at_us: The device's time; None if it sends none.
            value: The value; an int if the device sends an integer, which is counted if it must be rounded.
            good: Whether the device marks the value as good.
            arrival: The first arrival of a repeated message; None for a new one.
            source: What the device sends it by.
        """
        tag = self.tags.tag_for(machine, sensor, source)
        if tag.kind is TagKind.DROPPED:
            self._results["unwanted"].inc()
            return
        arrived = now_us() if arrival is None else arrival.at_us
        converted = tag.factor * value + tag.offset
        usable = good and tag.minimum <= converted <= tag.maximum and value not in tag.absent  # not if NaN or infinite
        stored = usable and (tag.kind is not TagKind.INVALID or self.tags.reclaim(tag))
        state = self.devices.state_for(device)
        state.record_value(arrived, at_us, good=stored)
        if not stored:
            if usable:
                self._count_refused(device, "invalid", Reason.INVALID_NAME, tag.problem or str(tag))
            else:
                self._count_refused(device, "bad", *tag.refusal(value, good=good))
            return
        tag.had_number = True
        if type(value) is int and int(float(value)) != value:
            self.refusals.correct(Reason.ROUNDED, f"{tag}: {value} is stored as {float(value):.0f}", device=device)
        at, wrong = self._reading_times.time_of(at_us, arrived, self._skew_us(state, arrival))
        if wrong is not None:
            self._count_retimed(device, tag, wrong)
        if tag.kind is TagKind.BANDED and not tag.passes(at, converted):
            tag.used_us = arrived
            self._results["unchanged"].inc()
            return
        state.record_stored(arrived, 1, tag, at, converted)
        self._indices.append(tag.index)
        self._times.append(at)
        self._values.append(converted)

    def add_past_value(
        self,
        device: str,
        machine: str,
        sensor: str,
        at_us: int,
        value: float,
        *,
        good: bool = True,
        source: TagSource = ONLY_SOURCE,
    ) -> bool:
        """Adds a value that was measured earlier, and that is stored by its own time whatever `clock` says.

        It does not count towards the skew of the device's clock. Without a usable time it is refused, because the time
        of arrival would be wrong.

        Args:
            device: The device.
            machine: The machine, as the device names it.
            sensor: The sensor, as the device names it.
            at_us: The time of the value.
            value: The value.
            good: Whether the device marks the value as good.
            source: What the device sends it by.

        Returns:
            Whether its time can be used.
        """
        arrived = now_us()
        at = self._reading_times.corrected(at_us, self.skew_us(device))
        if not self._reading_times.are_plausible(at, arrived):
            problem = shown_time(at)
            self.refuse_value(device, machine, sensor, Reason.WRONG_TIME, problem, source=source)
            return False
        self.add_value(device, machine, sensor, None, value, good=good, arrival=Arrival(at), source=source)
        self.devices.state_for(device).seen_us = arrived
        return True

    def refuse_value(
        self,
        device: str,
        machine: str,
        sensor: str,
        reason: Reason,
        problem: str,
        count: int = 1,
        *,
        source: TagSource = ONLY_SOURCE,
    ) -> None:
        """Counts and logs values that an input cannot store, unless a rule drops them anyway.

        Args:
            device: The device.
            machine: The machine, as the device names it.
            sensor: The sensor, as the device names it.
            reason: Why they are not stored. A text of a sensor that has had a number counts as not a number.
            problem: What they were.
            count: The number of values.
            source: What the device sends it by.
        """
        tag = self.tags.tag_for(machine, sensor, source)
        if tag.kind is TagKind.DROPPED:
            self._results["unwanted"].inc(count)
            return
        if reason is Reason.TEXT and tag.had_number:
            reason = Reason.NOT_A_NUMBER
        self.refuse(device, reason, f"{tag}: {problem}", count)

    def refuse(self, device: str, reason: Reason, example: str, count: int = 1) -> None:
        """Counts and logs values of a device that an input cannot store. They lower its quality if they are a fault.

        Args:
            device: The device.
            reason: Why they are not stored.
            example: One of them.
            count: The number of values.
        """
        state = self.devices.state_for(device)
        if reason in _NO_FAULT:
            state.seen_us = now_us()
        else:
            state.record_faults(now_us(), count)
        self._count_refused(device, "bad", reason, example, count)

    def add_values(self, device: str, indices: Indices, at_us: Timestamps, values: Values, good: Flags) -> None:
        """Adds many values of one device. The arrays have the same length.

        Args:
            device: The device.
            indices: The indices of the tags, of the present generation.
            at_us: The device's times; 0 where it sends none.
            values: The values.
            good: Whether the device marks each value as good.
        """
        kinds = self.tags.kinds[indices]
        wanted = kinds != TagKind.DROPPED
        with np.errstate(over="ignore", invalid="ignore"):
            converted = self.tags.factors[indices] * values + self.tags.offsets[indices]
        usable = good & self.tags.usable(indices, values, converted)
        stored = wanted & usable & (kinds != TagKind.INVALID)
        self._count("unwanted", ~wanted)
        if not stored.all():
            if self.tags.reclaim_all(indices[wanted & usable & ~stored]):
                kinds = self.tags.kinds[indices]
                stored = wanted & usable & (kinds != TagKind.INVALID)
            self._refuse_many(device, indices, values, good, wanted & ~usable, wanted & usable & ~stored)
        arrived = now_us()
        state = self.devices.state_for(device)
        state.record_values(arrived, at_us[wanted], stored[wanted])
        indices, at_us, values = indices[stored], at_us[stored], converted[stored]
        times, wrong = self._reading_times.times_of(at_us, arrived + occurrences(indices), state.skew_us)
        if len(wrong):
            tag = self.tags.tag_at(indices[wrong[-1]])
            self._count_retimed(
                device, tag, self._reading_times.corrected(int(at_us[wrong[-1]]), state.skew_us), len(wrong)
            )
        (banded,) = np.nonzero(kinds[stored] == TagKind.BANDED)
        if len(banded):
            passing = np.ones(len(values), bool)
            for position in banded.tolist():
                tag = self.tags.tag_at(indices[position])
                tag.used_us = arrived
                passing[position] = tag.passes(int(times[position]), float(values[position]))
            self._count("unchanged", ~passing)
            indices, times, values = indices[passing], times[passing], values[passing]
        if len(values):
            last = self.tags.tag_at(indices[-1])
            state.record_stored(arrived, len(values), last, int(times[-1]), float(values[-1]))
            self._blocks.append((indices, times, values))

    def convert_series(self, device: str, tag: Tag, series: Series) -> Series | None:
        """Converts the values of one tag, to be stored by `put`. Counts and logs those that cannot be stored.

        Args:
            device: The device.
            tag: The tag.
            series: Its values; NaN where there is none, which is not counted.

        Returns:
            The values that can be stored, in the stored unit; None if there are none.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            converted = tag.factor * series.values + tag.offset
        indices = np.full(len(converted), tag.index, np.int32)
        present = ~np.isnan(series.values)
        usable = present & self.tags.usable(indices, series.values, converted)
        named = tag.kind is not TagKind.INVALID or (bool(usable.any()) and self.tags.reclaim(tag))
        stored = usable if named else np.zeros(len(usable), bool)
        if not stored.all():
            self._refuse_many(device, indices, series.values, present, present & ~usable, usable & ~stored)
        times, values = series.timestamps[stored], converted[stored]
        state, now = self.devices.state_for(device), now_us()
        state.record_values(now, np.zeros(int(np.count_nonzero(present)), np.int64), stored[present])
        if not len(values):
            return None
        tag.used_us = now
        state.record_stored(now, len(values), tag, int(times[-1]), float(values[-1]))
        return Series(tag.machine_id, tag.sensor, times, values)

    async def commit(self) -> Awaitable[Any] | None:
        """Puts the gathered values into the spool, and waits while the spool is full.

        Returns:
            An awaitable that completes when all of them are durable. None if there are no values.
        """
        writing = [await self._writer.put(self._next_batch(columns)) for columns in self._take_columns()]
        if self.tags.over_limit and not self._values and not self._blocks:
            self.tags.forget()
        return asyncio.gather(*writing) if writing else None

    async def put(self, source_id: str, sequence: int, series: list[Series]) -> Awaitable[Written]:
        """Puts a batch with a given source and sequence into the spool, and waits while the spool is full.

        Returns:
            An awaitable that completes when the batch is durable.
        """
        return await self._writer.put(Batch.from_series(source_id, sequence, series))

    def _next_batch(self, columns: _Columns) -> Batch:
        self._sequence += 1
        return Batch.from_columns(self._source_id, self._sequence, *columns)

    def _count_refused(self, device: str, result: str, reason: Reason, example: str, count: int = 1) -> None:
        self._results[result].inc(count)
        self.refusals.refuse(reason, example, count, device=device)

    def _refuse_many(
        self, device: str, indices: Indices, values: Values, good: Flags, bad: Flags, unnamed: Flags
    ) -> None:
        """Counts and logs values that are not stored.

        Args:
            device: The device.
            indices: The tags of all values.
            values: All values of the device.
            good: Whether the device marks each value as good.
            bad: Which values are not good, or cannot be stored.
            unnamed: Which ones have an unusable name.
        """
        absent = np.isnan(values) | self.tags.are_absent(indices, values)
        unusable = bad & good & ~absent
        for reason, which in (
            (Reason.BAD_QUALITY, bad & ~good),
            (Reason.ABSENT, bad & good & absent),
            (Reason.NOT_A_NUMBER, unusable & np.isinf(values)),
            (Reason.OUT_OF_RANGE, unusable & ~np.isinf(values)),
            (Reason.INVALID_NAME, unnamed),
        ):
            if not which.any():
                continue
            last = int(np.flatnonzero(which)[-1])
            tag, count = self.tags.tag_at(indices[last]), int(np.count_nonzero(which))
            if reason is Reason.INVALID_NAME:
                self._count_refused(device, "invalid", reason, tag.problem or str(tag), count)
            else:
                example = tag.refusal(float(values[last]), good=bool(good[last]))[1]
                self._count_refused(device, "bad", reason, example, count)

    def _count(self, result: str, which: Flags) -> None:
        if count := np.count_nonzero(which):
            self._results[result].inc(int(count))

    def _take_columns(self) -> list[_Columns]:
        """Returns the gathered values as the columns of batches within the limits."""
        if self._values:
            block = np.array(self._indices, np.int32), np.array(self._times, np.int64), np.array(self._values)
            self._blocks.append(block)
            self._indices, self._times, self._values = [], [], []
        if not self._blocks:
            return []
        blocks, self._blocks = self._blocks, []
        indices, times, values = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
        batches: list[_Columns] = []
        for start in range(0, len(values), self.max_readings):
            part = slice(start, start + self.max_readings)
            columns = self._group_by_tag(indices[part], times[part], values[part])
            batches += _cut(_joined(columns) if self.tags.shared else columns)
        return batches

    def _group_by_tag(self, indices: Indices, times: Timestamps, values: Values) -> _Columns:
        order = np.argsort(indices, kind="stable")
        indices, times, values = indices[order], times[order], values[order]
        starts = np.flatnonzero(np.diff(indices, prepend=-1))
        lengths = np.diff(starts, append=len(values))
        self._count_replaced(indices, times, values, starts)
        self.tags.stored_us[indices[starts]] = times[starts + lengths - 1]
        self.tags.stored_values[indices[starts]] = values[starts + lengths - 1]
        now = now_us()
        keys = []
        for index in indices[starts].tolist():
            tag = self.tags.tag_at(index)
            tag.used_us, tag.had_number = now, True
            keys.append((tag.machine_id, tag.sensor))
        return _Columns(keys, lengths.astype(np.int32), times, values)

    def _count_replaced(
        self, indices: Indices, times: Timestamps, values: Values, starts: npt.NDArray[np.int64]
    ) -> None:
        """Counts values that a later value of the same tag and time replaces, in this batch or just before it.

        Args:
            indices: The tags, sorted.
            times: The times of each tag in the order of arrival.
            values: The values, likewise.
            starts: The position of the first value of each tag.
        """
        tags, positions = indices[starts], replaced_positions(indices, times, values)
        before = tags[(self.tags.stored_us[tags] == times[starts]) & (self.tags.stored_values[tags] != values[starts])]
        if not len(before) and not len(positions):
            return
        if len(positions):
            last = int(positions[-1])
            index, at_us, value = int(indices[last]), int(times[last]), float(values[last])
        else:
            index = int(before[-1])
            at_us, value = int(self.tags.stored_us[index]), float(self.tags.stored_values[index])
        example = f"{self.tags.tag_at(index)}: {value:g} is replaced by a later value of {shown_time(at_us)}"
        self.refusals.refuse(Reason.SAME_TIME, example, len(before) + len(positions))

    def _skew_us(self, state: DeviceState, arrival: Arrival | None) -> float:
        recorded = arrival.skew_us if arrival is not None else None
        return state.skew_us if recorded is None else recorded

    def _count_retimed(self, device: str, tag: Tag, at_us: int, count: int = 1) -> None:
        self._results["retimed"].inc(count)
        self.refusals.correct(Reason.WRONG_TIME, f"{tag}: {shown_time(at_us)}", count, device=device)


def _joined(columns: _Columns) -> _Columns:
    """Joins the values of tags that are stored as the same series, which a batch may have only once."""
    numbers: dict[SeriesKey, int] = {}
    of_series = np.array([numbers.setdefault(key, len(numbers)) for key in columns.keys], np.int64)
    of_readings = np.repeat(of_series, columns.lengths)
    order = np.argsort(of_readings, kind="stable")
    lengths = np.bincount(of_readings, minlength=len(numbers)).astype(np.int32)
    return _Columns(list(numbers), lengths, columns.times[order], columns.values[order])


def _cut(columns: _Columns) -> Iterator[_Columns]:
    """Cuts columns of more series than a batch may have."""
    ends = np.cumsum(columns.lengths)
    start = 0
    for first in range(0, len(columns.keys), _MAX_SERIES):
        keys, lengths = columns.keys[first : first + _MAX_SERIES], columns.lengths[first : first + _MAX_SERIES]
        end = int(ends[first + len(keys) - 1])
        yield _Columns(keys, lengths, columns.times[start:end], columns.values[start:end])
        start = end
