"""Checks requests for what meters measured, and answers them from the store."""

import math
from collections.abc import AsyncGenerator, Sequence

import numpy as np

from aurum.ingestion import metrics
from aurum.ingestion.meter_sums import Grid, MeteredSeries, MeterSums, sum_meters
from aurum.ingestion.meter_window import SeriesReads
from aurum.readings.batch import machine_id_problem
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import DAY_US, HOUR_US
from aurum.sustainability.counters import CounterRules
from aurum.sustainability.hourly import Floats, TimeRange
from aurum.v1 import columns_pb2, ingestion_pb2

_MAX_MACHINES = 1000
_MAX_METERS = 16
_MAX_INTERVALS = 1_000_000  # of all meters together; each is two or three numbers in memory
_SHORTEST_WIDTH_US = 60_000_000
_LONGEST_RECOVERY = 3 * 86_400.0  # seconds
_SERIES_AT_ONCE = 64  # summed before they are sent
_NUMBERS_PER_MESSAGE = 20_000


def check_integration(request: ingestion_pb2.IntegrateRequest) -> None:
    """Raises InvalidArgumentError if a field of a request is out of range."""
    if not 1 <= len(request.machine_ids) <= _MAX_MACHINES:
        raise InvalidArgumentError.for_field("machine_ids", f"must name 1 to {_MAX_MACHINES} machines")
    for index, machine_id in enumerate(request.machine_ids):
        if problem := machine_id_problem(machine_id):
            raise InvalidArgumentError.for_field(f"machine_ids[{index}]", problem)
    if not 1 <= len(request.meters) <= _MAX_METERS:
        raise InvalidArgumentError.for_field("meters", f"must name 1 to {_MAX_METERS} meters")
    for index, meter in enumerate(request.meters):
        _check_counter(meter.counter, f"meters[{index}].counter.")
    _check_grid(request)
    numbers = _grid(request).intervals * len(request.machine_ids) * len(request.meters)
    if numbers > _MAX_INTERVALS:
        raise InvalidArgumentError.for_field(
            "machine_ids",
            f"have {numbers} intervals of all meters; at most {_MAX_INTERVALS} are allowed: ask for fewer machines, "
            "a shorter range or wider intervals",
        )


def _check_grid(request: ingestion_pb2.IntegrateRequest) -> None:
    if request.start_us <= 0:
        raise InvalidArgumentError.for_field("start_us", "must be later than 0")
    if request.end_us <= request.start_us:
        raise InvalidArgumentError.for_field("end_us", "must be after start_us")
    if not 0 < request.longest_gap_us <= DAY_US:
        raise InvalidArgumentError.for_field("longest_gap_us", "must be above 0, and at most a day")
    if request.width_us and request.width_us < _SHORTEST_WIDTH_US:
        raise InvalidArgumentError.for_field("width_us", "must be at least a minute; 0 stands for an hour")


def _check_counter(counter: ingestion_pb2.CounterMeter, prefix: str) -> None:
    if not (math.isfinite(counter.modulus) and counter.modulus >= 0):
        raise InvalidArgumentError.for_field(f"{prefix}modulus", "must be a number of at least 0")
    if not 0 <= counter.recovery_seconds <= _LONGEST_RECOVERY:
        raise InvalidArgumentError.for_field(f"{prefix}recovery_seconds", f"must be 0 to {_LONGEST_RECOVERY:.0f}")


async def integrate_meters(
    reads: SeriesReads, metered: Sequence[tuple[str, int]], request: ingestion_pb2.IntegrateRequest
) -> AsyncGenerator[columns_pb2.IntegratedResponse]:
    """Yields what the meters of some series measured, in messages of limited size. Those without readings are left out.

    Args:
        reads: Reads the series.
        metered: Machines, each with the place of a meter in the request.
        request: The range and the meters; it has been checked.

    Raises:
        InvalidArgumentError: A counter has too many readings.
        AurumError: The store did not answer.
    """
    grid = _grid(request)
    message, numbers = columns_pb2.IntegratedResponse(), 0
    for start in range(0, len(metered), _SERIES_AT_ONCE):
        some = metered[start : start + _SERIES_AT_ONCE]
        series = [_metered_series(machine_id, request.meters[place]) for machine_id, place in some]
        for (machine_id, place), sums in zip(some, await sum_meters(reads, series, grid), strict=True):
            metrics.ingestion_integrated_readings_total.inc(sums.readings)
            if not sums.readings:
                continue
            message.meters.append(_amounts_message(machine_id, place, request.meters[place].sensor, sums))
            numbers += grid.intervals
            if numbers >= _NUMBERS_PER_MESSAGE:
                yield message
                message, numbers = columns_pb2.IntegratedResponse(), 0
    if numbers:
        yield message


def _grid(request: ingestion_pb2.IntegrateRequest) -> Grid:
    over = TimeRange(request.start_us, request.end_us)
    return Grid(over, request.width_us or HOUR_US, request.longest_gap_us / 1e6)


def _metered_series(machine_id: str, meter: ingestion_pb2.Meter) -> MeteredSeries:
    key = machine_id, meter.sensor
    if not meter.HasField("counter"):
        return MeteredSeries(key, None, meter.both_ways)
    counter = meter.counter
    rules = CounterRules(
        counter.modulus or None, counter.detects_registers, counter.recovery_seconds, both_ways=meter.both_ways
    )
    return MeteredSeries(key, rules, meter.both_ways)


def _amounts_message(machine_id: str, place: int, sensor: str, sums: MeterSums) -> columns_pb2.MeterColumns:
    return columns_pb2.MeterColumns(
        machine_id=machine_id,
        meter=place,
        sensor=sensor,
        amounts=_bytes(sums.amounts),
        reverse_amounts=b"" if sums.reverse is None else _bytes(sums.reverse),
        covered_seconds=_bytes(sums.covered),
        bridged_seconds=sums.bridged,
        corrections=[
            ingestion_pb2.CounterCorrection(
                kind=each.kind, start_us=each.start_us, end_us=each.end_us, amount=each.amount
            ).SerializeToString()
            for each in sums.corrections
        ],
        correction_counts=sums.counts,
    )


def _bytes(numbers: Floats) -> bytes:
    return np.ascontiguousarray(numbers, "<f8").tobytes()
