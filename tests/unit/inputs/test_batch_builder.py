"""From values to batches: names, units, deadbands, clocks, quality, limits and acknowledgements."""

import asyncio
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.common.ack_tracker import AckTracker
from aurum.edge.inputs.common.configuration import TagRule
from aurum.edge.inputs.common.device_stats import DeviceState
from aurum.edge.inputs.common.units import UnitError, conversion
from aurum.readings.batch import now_us
from aurum.readings.transport.ingest_stream import Written
from aurum.runtime.errors import ResourceExhaustedError
from tests.support.batch_builder import MemorySpool, make_builder


@pytest.mark.parametrize(
    ("unit", "to", "value", "expected"),
    [("degF", "degC", 212, 100), ("bar", "kPa", 2, 200), ("W", "kW", 1500, 1.5), ("rpm", "rad/s", 60, 2 * math.pi)],
)
def test_units_are_converted(unit: str, to: str, value: float, expected: float) -> None:
    factor, offset = conversion(unit, to)
    assert factor * value + offset == pytest.approx(expected)


def test_invalid_unit_conversions_are_rejected() -> None:
    for unit, to in (("furlongs per", "m"), ("degC", "kg"), ("", "m"), ("import os", "m"), ("dB", "W"), ("rpm", "Hz")):
        with pytest.raises(UnitError):
            conversion(unit, to)


async def test_first_matching_rule_transforms_the_sensor() -> None:
    spool = MemorySpool()
    gathered = make_builder(
        spool,
        TagRule(sensor="debug*", drop=True),
        TagRule(sensor="t_*", machine="oven-*", becomes="temperature_c", unit="degF", to="degC"),
        TagRule(sensor="t_*", becomes="temperature_raw", scale=0.1, offset=-4),
    )
    at = now_us()
    for machine, sensor, value in (("oven-1", "t_1", 212.0), ("pump-1", "t_1", 500.0), ("pump-1", "debug_x", 1.0)):
        gathered.add_value(machine, machine, sensor, at, value)
    gathered.add_value("pump-1", "no machine!", "x", at, 1.0)
    await gathered.commit()
    assert spool.readings() == {
        ("oven-1", "temperature_c"): [(at, pytest.approx(100.0))],
        ("pump-1", "temperature_raw"): [(at, pytest.approx(46.0))],
    }
    assert "is not a machine id" in (gathered.tags.tag_for("no machine!", "x").problem or "")


async def test_deadband_drops_small_changes() -> None:
    spool = MemorySpool()
    gathered = make_builder(spool, TagRule(deadband=0.5, deadband_seconds=10))
    start = now_us() - 60_000_000
    for second, value in enumerate([1.0, 1.2, 1.4, 1.6, 1.5, 3.0, *[3.1] * 12]):
        gathered.add_value("m", "m", "x", start + second * 1_000_000, value)
    await gathered.commit()
    kept = [((at - start) // 1_000_000, value) for at, value in spool.readings()["m", "x"]]
    assert kept == [(0, 1.0), (3, 1.6), (5, 3.0), (15, 3.1)]


def test_clock_skew_follows_the_fastest_messages() -> None:
    state, at = DeviceState(), 10**15
    for second in range(100):
        delay = 2_000_000 if second % 7 else 50_000
        state.record_value(at + second * 10**6 + delay, at + second * 10**6 + 30_000_000, good=True)
    assert state.skew_us == 30_000_000 - 50_000
    for second in range(100, 300):  # somebody has set it
        state.record_value(at + second * 10**6, at + second * 10**6 - 5_000_000, good=second % 2 == 0)
    assert state.skew_us == -5_000_000
    assert 0.3 < state.quality < 0.7


async def test_timestamps_far_ahead_are_corrected_to_now() -> None:
    for clock, expected in (("device", 0), ("corrected", 0), ("arrival", 0)):
        spool = MemorySpool()
        gathered = make_builder(spool, clock=clock)
        now = now_us()
        gathered.add_value("m", "m", "x", now + 3_600_000_000, 1.0)
        gathered.add_value("m", "m", "y", None, 2.0)
        await gathered.commit()
        (((at, _),), ((other, _),)) = spool.readings().values()
        assert abs(at - now) < 2_000_000 + expected
        assert abs(other - now) < 2_000_000


async def test_bad_values_are_dropped_and_lower_quality() -> None:
    spool = MemorySpool()
    gathered = make_builder(spool)
    gathered.add_value("m", "m", "x", None, math.nan)
    gathered.add_value("m", "m", "x", None, math.inf)
    gathered.add_value("m", "m", "x", None, 1.0, good=False)
    assert await gathered.commit() is None
    assert gathered.devices.worst_quality < 0.99


async def test_acknowledgements_are_ordered_and_wait_for_durability() -> None:
    told: list[int] = []
    following = AckTracker(told.extend)
    durable: list[asyncio.Future[Written]] = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for number, each in enumerate(durable):
        await following.track(each, [number])
    durable[1].set_result(Written(1, 0))
    following.acknowledge_durable()
    assert told == []
    durable[0].set_result(Written(1, 0))
    following.acknowledge_durable()
    assert told == [0, 1]
    durable[2].set_exception(OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        await following.wait_for_all()
    assert told == [0, 1]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from([0, 5, -700_000_000]),
            st.sampled_from([1.0, 1.2, 1e308, math.nan]),
            st.booleans(),
        ),
        max_size=40,
    ),
    st.sampled_from(["device", "arrival"]),
)
async def test_bulk_add_matches_single_adds(rows: list[tuple[int, int, float, bool]], clock: Any) -> None:
    rules = (
        TagRule(sensor="s0", scale=2.0, offset=1.0),
        TagRule(sensor="s1", deadband=0.5, deadband_seconds=60),
        TagRule(sensor="s2", drop=True),
        TagRule(sensor="s3", becomes="s0"),
    )
    now = now_us()
    at = [0 if ahead == 0 else now - ahead * 1_000_000 for _, ahead, _, _ in rows]
    names = [("m" if number < 5 else "no machine!", f"s{number}") for number, _, _, _ in rows]
    one, all_ = MemorySpool(), MemorySpool()
    alone = make_builder(one, *rules, clock=clock)
    for (machine, sensor), moment, (_, _, value, good) in zip(names, at, rows, strict=True):
        alone.add_value("d", machine, sensor, moment or None, value, good=good)
    together = make_builder(all_, *rules, clock=clock)
    indices = np.array([together.tags.tag_for(*name).index for name in names], np.int32)
    values, good = np.array([row[2] for row in rows], float), np.array([row[3] for row in rows], bool)
    together.add_values("d", indices, np.array(at, np.int64), values, good)
    await alone.commit()
    await together.commit()
    assert {key: [value for _, value in found] for key, found in one.readings().items()} == {
        key: [value for _, value in found] for key, found in all_.readings().items()
    }
    assert together.devices.worst_quality == pytest.approx(alone.devices.worst_quality)
    if clock == "device":
        told = {moment for moment in at if 0 < moment <= now}
        assert {at for found in all_.readings().values() for at, _ in found if at < now - 1} <= told


async def test_bulk_add_corrects_clock_skew() -> None:
    spool = MemorySpool()
    gathered = make_builder(spool, clock="corrected")
    now = now_us()
    at = now + 120_000_000 - np.arange(5, dtype=np.int64)[::-1] * 1_000_000
    indices = np.full(5, gathered.tags.tag_for("m", "x").index, np.int32)
    gathered.add_values("d", indices, at, np.arange(5.0), np.ones(5, bool))
    await gathered.commit()
    found = [moment for moment, _ in spool.readings()["m", "x"]]
    assert found[-1] == pytest.approx(now, abs=1_000_000)
    assert [later - sooner for sooner, later in itertools.pairwise(found)] == [1_000_000] * 4
    assert gathered.devices.largest_skew_seconds == pytest.approx(120, abs=1)


async def test_bulk_values_without_time_get_distinct_timestamps() -> None:
    spool = MemorySpool()
    gathered = make_builder(spool)
    indices = np.array([gathered.tags.tag_for("m", name).index for name in "xyxxy"], np.int32)
    gathered.add_values("d", indices, np.zeros(5, np.int64), np.arange(5.0), np.ones(5, bool))
    await gathered.commit()
    for name, values_ in (("x", [0, 2, 3]), ("y", [1, 4])):
        found = spool.readings()["m", name]
        assert [value for _, value in found] == values_
        assert [at for at, _ in found] == sorted({at for at, _ in found})


async def test_large_commit_is_split_into_batches() -> None:
    spool = MemorySpool()
    gathered = make_builder(spool)
    at = now_us() - 1_000_000_000
    indices = np.array([gathered.tags.tag_for("m", f"s{number}").index for number in range(15_000)], np.int32)
    for turn in range(16):
        times = np.full(15_000, at + turn, np.int64)
        gathered.add_values("d", indices, times, np.full(15_000, float(turn)), np.ones(15_000, bool))
    durable = await gathered.commit()
    assert durable is not None
    await durable
    assert all(batch.readings <= 100_000 and len(batch.series) <= 10_000 for batch in spool.batches)
    assert [batch.sequence for batch in spool.batches] == list(range(1, len(spool.batches) + 1))
    found = spool.readings()
    assert len(found) == 15_000
    assert all(series == [(at + turn, float(turn)) for turn in range(16)] for series in found.values())


async def test_batches_are_small_for_a_small_spool() -> None:
    spool = MemorySpool()
    spool.max_bytes = 1_000_000
    gathered = make_builder(spool)
    for number in range(2500):
        gathered.add_value("m", "m", f"s{number}", None, 1.0)
    assert gathered.full
    await gathered.commit()
    assert [batch.readings for batch in spool.batches] == [1000, 1000, 500]


async def test_full_disk_delays_acknowledgement_until_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurum.edge.inputs.common.batch_builder._RETRY_SECONDS", 0.01)
    spool = MemorySpool(at_once=False)
    gathered = make_builder(spool)
    gathered.add_value("m", "m", "x", None, 1.0)
    acknowledged: list[int] = []
    acknowledgements = AckTracker(acknowledged.extend)
    await acknowledgements.track(await gathered.commit(), [7])
    for _ in range(3):
        spool.waiting[-1].set_exception(ResourceExhaustedError("the store cannot be written: the disk is full"))
        tries = len(spool.waiting)
        for _ in range(500):
            if len(spool.waiting) > tries:
                break
            await asyncio.sleep(0.01)
        acknowledgements.acknowledge_durable()
        assert acknowledged == []
    spool.waiting[-1].set_result(Written(1, 0))
    await acknowledgements.wait_for_all()
    assert acknowledged == [7]
    assert len({(batch.source_id, batch.sequence) for batch in spool.batches}) == 1


async def test_tag_overflow_forgets_and_relearns_names() -> None:
    spool = MemorySpool()
    gathered = make_builder(spool, TagRule(sensor="x*", scale=3.0))
    for number in range(200_001):
        gathered.tags.tag_for("m", str(number))
    generation = gathered.tags.generation
    gathered.add_value("m", "m", "x1", None, 2.0)
    await gathered.commit()
    assert gathered.tags.generation == generation + 1
    gathered.add_value("m", "m", "x1", None, 4.0)
    await gathered.commit()
    assert [value for _, value in spool.readings()["m", "x1"]] == [6.0, 12.0]
