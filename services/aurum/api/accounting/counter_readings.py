"""Reads the counters of machines: all readings of a time range, and those around it that decide what they mean."""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from aurum.api.backends import IngestionBackend
from aurum.readings.batch import Column
from aurum.readings.transport.query_columns import decode_columns
from aurum.sustainability.hourly import LONGEST_BRIDGE_US, Floats, TimeRange, Times
from aurum.sustainability.plan import Meters
from aurum.v1 import columns_pb2, ingestion_pb2

MAX_COUNTS = 10_000  # readings of a counter in a query for several machines
MOST_COUNTS = 400_000  # readings of a counter of a single machine; more are reduced, although means hide falls
_PROBE_POINTS = 500  # to which the time after the range is reduced, to find the first reading in it

_Series = tuple[str, str]  # machine and sensor


@dataclass(slots=True)
class CounterReadings:
    """The readings of counters.

    Attributes:
        columns: Times and counts of each series, which has a machine and a sensor. Their order is not defined.
        reduced: The series that have too many readings, and are reduced to means.
    """

    columns: dict[_Series, Column] = field(default_factory=dict)
    reduced: set[_Series] = field(default_factory=set)

    def add(self, series: _Series, times: Times, counts: Floats) -> None:
        """Adds readings to a series."""
        known = self.columns.get(series)
        if known is not None:
            times, counts = np.concatenate([known[0], times]), np.concatenate([known[1], counts])
        self.columns[series] = times, counts


async def read_counters(  # noqa: PLR0917 - what to read, and how much of it
    ingestion: IngestionBackend,
    machine_ids: Sequence[str],
    meters: Meters,
    over: TimeRange,
    longest_gap: float,
    points: int = MAX_COUNTS,
) -> CounterReadings:
    """Reads the counters of machines for a range.

    What it reads is bounded by the range and the declared recovery times, whatever the length of the gaps around it.

    Args:
        ingestion: Client of the ingestion service.
        machine_ids: The machines.
        meters: Their meters.
        over: The range.
        longest_gap: Seconds. A longer time without a reading is a gap.
        points: Number of readings to which a series that has more is reduced.

    Raises:
        AurumError: Ingestion did not answer.
    """
    read = CounterReadings()
    if not meters.counters:
        return read
    recovery = max(meter.recovery_seconds for meter in meters.counting)
    start = max(1, over.start - round(max(2 * recovery, longest_gap) * 1e6))
    end = over.end + round(max(recovery, longest_gap) * 1e6)
    query = _CounterQuery(ingestion, meters.counters)
    for series, times, counts in decode_columns(await query.read(machine_ids, start, end, points)):
        key = series.machine_id, series.sensor
        if series.counts:
            read.reduced.add(key)
        read.add(key, _middles(times) if series.counts else times, counts)
    expected = [(machine_id, sensor) for machine_id in machine_ids for sensor in meters.counters]
    await _read_before(read, query, expected, over.start, start)
    await _read_after(read, query, expected, over.end, end)
    return read


def _middles(starts: Times) -> Times:
    """Returns the middle of each interval of equal length, some of which are missing, by their starts."""
    return starts + (int(np.diff(starts).min()) // 2 if len(starts) > 1 else 0)


@dataclass(frozen=True, slots=True)
class _CounterQuery:
    """Queries of some sensors."""

    ingestion: IngestionBackend
    sensors: Sequence[str]

    async def read(
        self, machine_ids: Collection[str], start: int, end: int, points: int = 0, last: int = 0
    ) -> list[columns_pb2.QueriedColumns]:
        if not machine_ids or start >= end:
            return []
        request = ingestion_pb2.QueryRequest(
            machine_ids=machine_ids, sensors=self.sensors, start_us=start, end_us=end, points=points, last=last
        )
        return await self.ingestion.query_readings(request)


async def _read_before(
    read: CounterReadings, query: _CounterQuery, expected: Iterable[_Series], needed: int, start: int
) -> None:
    """Adds the last reading before `start` of each series that has none up to `needed`."""
    lacking = {key for key in expected if key not in read.columns or int(read.columns[key][0].min()) > needed}
    machine_ids = sorted({machine_id for machine_id, _ in lacking})
    for series, times, counts in decode_columns(
        await query.read(machine_ids, max(1, needed - LONGEST_BRIDGE_US), start, last=1)
    ):
        if (series.machine_id, series.sensor) in lacking:
            read.add((series.machine_id, series.sensor), times, counts)


async def _read_after(
    read: CounterReadings, query: _CounterQuery, expected: Iterable[_Series], needed: int, end: int
) -> None:
    """Adds the first reading from `end` on of each series that has earlier ones, but none from `needed` on."""
    until = min(needed + LONGEST_BRIDGE_US, int(time.time() * 1e6))
    lacking = {key for key in expected if key in read.columns and int(read.columns[key][0].max()) < needed}
    machine_ids = sorted({machine_id for machine_id, _ in lacking})
    for series, times, counts in decode_columns(await query.read(machine_ids, end, until, _PROBE_POINTS)):
        key = series.machine_id, series.sensor
        if key not in lacking or not len(times):
            continue
        if series.counts:  # times are the starts of intervals, and counts their means
            width = -(-(until - end) // _PROBE_POINTS)
            first = _CounterQuery(query.ingestion, [series.sensor])
            exact = await first.read([series.machine_id], int(times[0]), int(times[0]) + width, MAX_COUNTS)
            for _, exact_times, exact_counts in decode_columns(exact):
                read.add(key, exact_times[:1], exact_counts[:1])
        else:
            read.add(key, times[:1], counts[:1])
