"""Amounts of meters over any partition of a range: they add up, and are those of all readings."""

import asyncio
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.ingestion.meter_answer import check_integration
from aurum.readings.transport.query_columns import decode_floats
from aurum.runtime.errors import InvalidArgumentError
from aurum.v1 import ingestion_pb2
from tests.support.metered_plant import MeteredPlant

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 20_000 * DAY + 7 * HOUR + 11
GAP = 20 * MINUTE
RATE, SIGNED = ingestion_pb2.Meter(sensor="v"), ingestion_pb2.Meter(sensor="v", both_ways=True)
COUNTER = ingestion_pb2.Meter(
    sensor="v", counter=ingestion_pb2.CounterMeter(detects_registers=True, recovery_seconds=1800)
)

steps = st.sampled_from([1, 999_999, MINUTE, 7 * MINUTE + 3, GAP, GAP + 1, 5 * HOUR, 3 * DAY])
values = st.one_of(st.floats(-50, 50), st.just(math.nan))
cuts = st.lists(st.integers(0, 10 * DAY), min_size=3, max_size=6, unique=True)


def integrated(
    readings: tuple[np.ndarray, np.ndarray], meter: ingestion_pb2.Meter, start: int, end: int, width: int = 0
) -> tuple[np.ndarray, float, float]:
    """Returns the amounts by interval, what ran backwards, and the covered seconds."""
    request = ingestion_pb2.IntegrateRequest(
        machine_ids=["m"], meters=[meter], start_us=start, end_us=end, width_us=width, longest_gap_us=GAP
    )
    answer = asyncio.run(MeteredPlant({("m", "v"): readings}).integrate_meters(request))
    if not answer:
        return np.zeros(1), 0.0, 0.0
    (found,) = answer
    reverse = math.fsum(decode_floats(found.reverse_amounts))
    return decode_floats(found.amounts), reverse, math.fsum(decode_floats(found.covered_seconds))


@given(st.lists(st.tuples(steps, values), min_size=1, max_size=30), cuts, st.sampled_from([RATE, SIGNED]))
@settings(deadline=None, max_examples=100)
def test_rate_adds_up_over_any_partition(
    readings: Sequence[tuple[int, float]], bounds: Sequence[int], meter: ingestion_pb2.Meter
) -> None:
    times = START + np.cumsum([step for step, _ in readings])
    read = np.array([value for _, value in readings])
    edges = [START + bound for bound in sorted(bounds)]
    parts = [integrated((times, read), meter, *pair) for pair in itertools.pairwise(edges)]
    for width in (0, 15 * MINUTE, 7 * HOUR):
        amounts, reverse, covered = integrated((times, read), meter, edges[0], edges[-1], width)
        assert math.fsum(math.fsum(part[0]) for part in parts) == pytest.approx(math.fsum(amounts), abs=1e-9)
        assert math.fsum(part[1] for part in parts) == pytest.approx(reverse, abs=1e-9)
        assert math.fsum(part[2] for part in parts) == pytest.approx(covered, abs=1e-6)


@given(st.lists(st.tuples(steps, st.floats(0, 50)), min_size=2, max_size=30), cuts)
@settings(deadline=None, max_examples=100)
def test_amounts_never_fall_as_readings_arrive(readings: Sequence[tuple[int, float]], bounds: Sequence[int]) -> None:
    """Neither with time nor with readings that arrive in order."""
    times = START + np.cumsum([step for step, _ in readings])
    read = np.array([value for _, value in readings])
    ends = sorted(START + bound + 1 for bound in bounds)
    totals = [math.fsum(integrated((times, read), RATE, START, end)[0]) for end in ends]
    arriving = [
        math.fsum(integrated((times[:n], read[:n]), RATE, START, ends[-1])[0]) for n in range(1, len(times) + 1)
    ]
    for running in (totals, arriving):
        assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(running))


@given(st.lists(st.tuples(steps, st.integers(0, 200)), min_size=2, max_size=30), cuts)
@settings(deadline=None, max_examples=100)
def test_counter_adds_up_over_any_partition(readings: Sequence[tuple[int, int]], bounds: Sequence[int]) -> None:
    times = START + np.cumsum([step for step, _ in readings])
    read = np.array([float(value) for _, value in readings])
    edges = [START + bound for bound in sorted(bounds)]
    parts = [integrated((times, read), COUNTER, *pair)[0] for pair in itertools.pairwise(edges)]
    whole = math.fsum(integrated((times, read), COUNTER, edges[0], edges[-1])[0])
    assert math.fsum(math.fsum(part) for part in parts) == pytest.approx(whole, abs=1e-9)


def test_long_range_of_dense_readings_is_exact() -> None:
    """Ten readings a second over a day are more than the store returns at once; no reading is left out."""
    times = START + np.arange(864_000, dtype=np.int64) * 100_000
    read = np.random.default_rng(1).random(len(times))
    by_hand = float(((read[1:] + read[:-1]) / 2).sum()) * 0.1 / 3600
    amounts, _, covered = integrated((times, read), RATE, START - DAY, START + 9 * DAY)
    assert math.fsum(amounts) == pytest.approx(by_hand, rel=1e-12)
    assert covered == pytest.approx(86_399.9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start_us", 0),
        ("end_us", START),
        ("longest_gap_us", 0),
        ("longest_gap_us", DAY + 1),
        ("width_us", MINUTE - 1),
        ("machine_ids", []),
        ("machine_ids", ["m"] * 1001),
        ("meters", []),
        ("end_us", START + 10_000 * 365 * DAY),
    ],
)
def test_invalid_request_names_its_field(field: str, value: object) -> None:
    asked = {"machine_ids": ["m"], "meters": [RATE], "start_us": START, "end_us": START + HOUR, "longest_gap_us": GAP}
    with pytest.raises(InvalidArgumentError) as refused:
        check_integration(ingestion_pb2.IntegrateRequest(**(asked | {field: value})))
    named = "machine_ids" if value == START + 10_000 * 365 * DAY else field
    assert named in refused.value.message
