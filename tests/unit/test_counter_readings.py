"""Which readings of counters an account reads: enough for the same sums however a range is divided, and no more."""

import asyncio
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.api.accounting.budget import AccountBudget
from aurum.api.accounting.measurement import MachineSelection, measure_use
from aurum.api.backends import IngestionBackend
from aurum.runtime.errors import InvalidArgumentError
from aurum.sustainability.hourly import TimeRange
from aurum.sustainability.machine_use import MachineUse
from aurum.sustainability.plan import AccountingPlan, FlowMeter, Meters
from tests.support.metered_plant import MeteredPlant

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 470_000 * HOUR


def store_of(times: np.ndarray, counts: np.ndarray) -> MeteredPlant:
    return MeteredPlant({("m", "meter_l"): (times, counts)}, types={"m": "meter"})


def plan(recovery_seconds: float = 43_200) -> AccountingPlan:
    meter = FlowMeter(sensor="meter_l", kind="counter", recovery_seconds=recovery_seconds)
    return AccountingPlan(meters={"meter": Meters(water=meter)}, longest_gap_seconds=1200)


async def measure(store: MeteredPlant, start: int, end: int, accounting: AccountingPlan | None = None) -> MachineUse:
    ingestion = cast("IngestionBackend", store)
    with AccountBudget().reservation() as reservation:
        (use,) = await measure_use(
            ingestion, accounting or plan(), MachineSelection("m"), TimeRange(start, end), ["water"], reservation
        )
    return use


def litres(use: MachineUse) -> float:
    assert use.water is not None
    return use.water.total


def each_minute(days: int) -> MeteredPlant:
    minutes = np.arange(days * 1440, dtype=np.int64)
    return store_of(START + minutes * MINUTE, 1e6 + minutes * 10.0)


async def test_cost_of_an_account_is_that_of_its_range() -> None:
    """Not that of the history before and after it: an hour reads an hour, and what decides about its falls."""
    for days, first in ((10, 5), (400, 5), (400, 300)):
        store = each_minute(days)
        start = START + first * DAY
        assert litres(await measure(store, start, start + HOUR)) == pytest.approx(600)
        assert store.answered == [(1 + 36) * 60]


async def test_gap_around_a_range_costs_a_few_readings() -> None:
    """The ends of a gap of six days are found, however many readings are beyond them."""
    store = each_minute(100)
    times, counts = store.series["m", "meter_l"]
    kept = (times <= START + 40 * DAY) | (times > START + 46 * DAY)
    gappy = store_of(times[kept], counts[kept])
    start = START + 43 * DAY
    use = await measure(gappy, start, start + HOUR)
    assert litres(use) == pytest.approx(600)
    assert [each.kind for each in use.corrections.listed] == ["gap"]
    assert len(gappy.answered) <= 4
    assert sum(gappy.answered) < 1500


async def test_many_readings_of_a_counter_are_read_whole() -> None:
    """More than a query for several machines contains; a false reading among them is found."""
    seconds = np.arange(60_000, dtype=np.int64)
    counts = 1e6 + seconds * 1.0
    counts[30_000] = 0
    store = store_of(START + seconds * SECOND, counts)
    use = await measure(store, START + HOUR, START + 15 * HOUR)
    assert litres(use) == pytest.approx(14 * 3600)
    assert use.corrections.counts == {"false_reading": 1}


async def test_counter_with_many_readings_is_never_reduced() -> None:
    """More than the store answers at once: the range is divided, and a false reading is found in each part of it."""
    tenths = np.arange(1_500_000, dtype=np.int64)
    counts = 1e6 + tenths * 0.1
    counts[[300_000, 1_200_000]] = 0
    store = store_of(START + tenths * (SECOND // 10), counts)
    use = await measure(store, START + HOUR, START + 40 * HOUR, plan(600.0))
    assert litres(use) == pytest.approx(39 * 3600, rel=1e-9)
    assert use.corrections.counts == {"false_reading": 2}


async def test_counter_too_dense_for_its_recovery_is_refused() -> None:
    """A day and a half must be in memory to decide about a fall, which are too many readings here."""
    tenths = np.arange(1_500_000, dtype=np.int64)
    store = store_of(START + tenths * (SECOND // 10), 1e6 + tenths * 0.1)
    with pytest.raises(InvalidArgumentError, match="sensor meter_l has too many readings"):
        await measure(store, START + 30 * HOUR, START + 31 * HOUR)


counts = st.one_of(st.integers(0, 20), st.integers(90, 130), st.sampled_from([0, 0, 100, 1000, 65_530, 65_535]))


@given(
    st.lists(st.tuples(st.sampled_from([1, 1, 5, 20, 21, 100, 1000, 5000]), counts), min_size=2, max_size=40),
    st.lists(st.integers(0, 4000), min_size=3, max_size=3, unique=True),
    st.sampled_from([0.0, 1800.0, 7200.0]),
)
@settings(deadline=None, max_examples=150)
def test_accounts_of_adjacent_ranges_add_up(
    readings: Sequence[tuple[int, int]], bounds: Sequence[int], recovery_seconds: float
) -> None:
    minutes = np.cumsum([step for step, _ in readings])
    store = store_of(START + minutes * MINUTE, np.array([float(count) for _, count in readings]))
    begin, middle, end = (START + bound * MINUTE for bound in sorted(bounds))

    async def sums() -> list[float]:
        ranges = ((begin, end), (begin, middle), (middle, end))
        return [litres(await measure(store, start, until, plan(recovery_seconds))) for start, until in ranges]

    whole, first, second = asyncio.run(sums())
    assert first + second == pytest.approx(whole, abs=1e-6)
