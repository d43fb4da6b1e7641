"""From values to batches: names, units, deadbands, clocks, quality, limits and acknowledgements."""

import asyncio
import itertools
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.common.ack_tracker import AckTracker
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import TagRule
from aurum.edge.inputs.common.device_stats import DeviceState
from aurum.edge.inputs.common.refusals import Reason, Tally
from aurum.edge.inputs.common.tags import Tags
from aurum.edge.inputs.common.units import UnitError, conversion
from aurum.readings.batch import Series, now_us
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
    await gathered.commit()
    assert spool.readings() == {
        ("oven-1", "temperature_c"): [(at, pytest.approx(100.0))],
        ("pump-1", "temperature_raw"): [(at, pytest.approx(46.0))],
    }


async def test_unusable_names_are_refused_with_the_name() -> None:
    spool = MemorySpool()
    gathered = make_builder(spool)
    long = "Ö" * 40
    gathered.add_value("pump-1", "pump-1", long, None, 1.0)
    gathered.add_value("pump-1", "", "x", None, 1.0)
    gathered.add_values(
        "pump-1",
        np.array([gathered.tags.tag_for("pump-1", long).index] * 3, np.int32),
        np.zeros(3, np.int64),
        np.ones(3),
        np.ones(3, bool),
    )
    assert await gathered.commit() is None
    tally = gathered.refusals.refused[Reason.INVALID_NAME]
    assert tally.count == 5
    assert long in tally.example
    assert "becomes" in gathered.tags.unusable["pump-1", long]
    assert "has no name" in gathered.tags.unusable["", "x"]


async def test_two_tags_are_never_stored_as_one_sensor() -> None:
    spool = MemorySpool()
    gathered = make_builder(spool, TagRule(sensor="t_*", becomes="temperature"))
    for name in ("t_1", "t_2", "t_1"):
        gathered.add_value("m", "m", name, None, float(name[-1]))
    await gathered.commit()
    assert [value for _, value in spool.readings()["m", "temperature"]] == [1.0, 1.0]
    assert gathered.refusals.refused[Reason.INVALID_NAME].count == 1
    assert "m t_2 would be stored as m temperature, as m t_1 is" in gathered.tags.unusable["m", "t_2"]


async def test_machines_are_renamed_by_rules_and_by_the_map() -> None:
    spool = MemorySpool()
    rules = (TagRule(sensor="Pump*", machine="Cell [4]", machine_becomes="pump-4", becomes="speed"),)
    gathered = make_builder(spool, *rules, machines={"Cell [4]": "cell-4"})
    for machine, sensor in (("Cell [4]", "Pump speed"), ("Cell [4]", "temp"), ("Line 1", "temp")):
        gathered.add_value("d", machine, sensor, None, 1.0)
    await gathered.commit()
    assert set(spool.readings()) == {("pump-4", "speed"), ("cell-4", "temp"), ("Line_x0020_1", "temp")}
    assert [(tag.machine, tag.machine_id) for tag in gathered.tags.renamed] == [("Line 1", "Line_x0020_1")]


LIMITS = (
    TagRule(sensor="level", minimum=0, maximum=100, scale=0.1, absent=(-32768,)),
    TagRule(sensor="flow", absent=(-9999.9, 65535)),
)
LIMITED = [
    ("level", 500.0, None),
    ("level", 1001.0, Reason.OUT_OF_RANGE),
    ("level", -1.0, Reason.OUT_OF_RANGE),
    ("level", -32768.0, Reason.ABSENT),
    ("flow", -32768.0, None),
    ("flow", 65535.0, Reason.ABSENT),
    ("flow", float(np.float32(-9999.9)), Reason.ABSENT),
    ("flow", math.nan, Reason.ABSENT),
    ("other", math.inf, Reason.NOT_A_NUMBER),
    ("other", 65535.0, None),
]


@pytest.mark.parametrize("many", [False, True])
async def test_absent_and_invalid_values_are_refused_by_reason(many: bool) -> None:
    spool = MemorySpool()
    gathered = make_builder(spool, *LIMITS)
    if many:
        indices = np.array([gathered.tags.tag_for("m", sensor).index for sensor, _, _ in LIMITED], np.int32)
        values = np.array([value for _, value, _ in LIMITED])
        gathered.add_values("d", indices, np.zeros(len(values), np.int64), values, np.ones(len(values), bool))
    else:
        for sensor, value, _ in LIMITED:
            gathered.add_value("d", "m", sensor, None, value)
    gathered.add_value("d", "m", "level", None, 1.0, good=False)
    await gathered.commit()
    stored = {sensor: [value for _, value in found] for (_, sensor), found in spool.readings().items()}
    assert stored == {"level": [50.0], "flow": [-32768.0], "other": [65535.0]}
    counts = {reason: tally.count for reason, tally in gathered.refusals.refused.items()}
    expected = {reason: sum(each is reason for _, _, each in LIMITED) for _, _, reason in LIMITED if reason}
    assert counts == {**expected, Reason.BAD_QUALITY: 1}
    state = gathered.devices.state_for("d")
    assert {reason: tally.count for reason, tally in state.refused.items()} == counts
    assert state.accepted == 3
    assert gathered.refusals.refused[Reason.ABSENT].example == "m flow: nan"
    assert gathered.refusals.refused[Reason.OUT_OF_RANGE].example == "m level: -0.1 is less than 0"


def test_text_in_place_of_a_number_is_told_apart_from_a_state() -> None:
    gathered = make_builder(MemorySpool())
    gathered.add_value("d", "m", "temperature", None, 21.5)
    for sensor in ("state", "temperature", "state"):
        gathered.refuse_value("d", "m", sensor, Reason.TEXT, "'ON' is not a number")
    counts = {reason: tally.count for reason, tally in gathered.refusals.refused.items()}
    assert counts == {Reason.TEXT: 2, Reason.NOT_A_NUMBER: 1}


@pytest.mark.parametrize("many", [False, True])
async def test_clocks_that_were_never_set_are_retimed(many: bool) -> None:
    spool = MemorySpool()
    gathered = make_builder(spool)
    now = now_us()
    times = [24_000_000, 946_684_800_000_000, 978_307_200_000_000, now - 5_000_000]
    if many:
        indices = np.full(4, gathered.tags.tag_for("m", "x").index, np.int32)
        gathered.add_values("d", indices, np.array(times), np.arange(4.0), np.ones(4, bool))
    else:
        for number, at in enumerate(times):
            gathered.add_value("d", "m", "x", at, float(number))
    await gathered.commit()
    found = {value: at for at, value in spool.readings()["m", "x"]}
    assert found.pop(3.0) == now - 5_000_000
    assert all(abs(at - now) < 2_000_000 for at in found.values())
    tally = gathered.refusals.corrected[Reason.WRONG_TIME]
    assert (tally.count, tally.example) == (3, "m x: 2001-01-01T00:00:00+00:00")
    assert gathered.devices.state_for("d").corrected[Reason.WRONG_TIME].count == 3


async def test_a_plant_may_declare_its_own_earliest_time() -> None:
    spool = MemorySpool()
    gathered = make_builder(spool, earliest=datetime(2020, 1, 1, tzinfo=UTC))
    gathered.add_value("d", "m", "x", 1_500_000_000_000_000, 1.0)
    gathered.add_value("d", "m", "y", 1_600_000_000_000_000, 1.0)
    await gathered.commit()
    assert abs(spool.readings()["m", "x"][0][0] - now_us()) < 2_000_000
    assert spool.readings()["m", "y"][0][0] == 1_600_000_000_000_000


def test_rate_of_a_device_follows_its_latest_values() -> None:
    state, tags, start = DeviceState(), Tags(()), 10**15
    for number in range(1, 301):
        state.record_stored(start + number * 100_000, 1, tags.tag_for("m", "x"), start, 1.0)
    assert state.rate(start + 30_100_000) == pytest.approx(10, rel=0.05)
    assert state.rate(start + 330_000_000) < 0.5
    assert state.accepted == 300


async def test_columns_of_files_are_screened_like_single_values() -> None:
    gathered = make_builder(MemorySpool(), *LIMITS)
    tag = gathered.tags.tag_for("m", "level")
    times = np.arange(4, dtype=np.int64)
    series = gathered.convert_series("d", tag, Series("m", "level", times, np.array([500, math.nan, 2000, -32768])))
    assert series is not None
    assert (series.timestamps.tolist(), series.values.tolist()) == ([0], [50.0])
    assert gathered.devices.state_for("d").accepted == 1
    assert {reason: tally.count for reason, tally in gathered.refusals.refused.items()} == {
        Reason.OUT_OF_RANGE: 1,
        Reason.ABSENT: 1,
    }


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
    names = [("m" if number < 5 else "m" * 129, f"s{number}") for number, _, _, _ in rows]
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
    monkeypatch.setattr("aurum.edge.inputs.common.spool_writer._RETRY_SECONDS", 0.01)
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


@pytest.mark.parametrize("reason", Reason)
def test_refused_values_lower_the_quality(reason: Reason) -> None:
    gathered = make_builder(MemorySpool())
    gathered.refuse_value("d", "m", "level", reason, "of a test", 200)
    assert (gathered.devices.state_for("d").quality < 0.2) == (reason not in (Reason.TEXT, Reason.OLD))


def test_values_with_unusable_names_lower_the_quality() -> None:
    gathered = make_builder(MemorySpool())
    tag = gathered.tags.tag_for("m", "")
    one = np.ones(1)
    for _ in range(200):
        gathered.add_value("single", "m", "", None, 1.0)
        gathered.add_values("many", np.array([tag.index], np.int32), np.zeros(1, np.int64), one, one > 0)
        gathered.convert_series("file", tag, Series("m", "", np.array([10**15]), one))
    assert [gathered.devices.state_for(name).quality < 0.2 for name in ("single", "many", "file")] == [True] * 3


Row = tuple[str, int, float]  # a sensor, µs after a moment, and a value


async def commit_rows(builder: BatchBuilder, at: int, rows: list[Row], *, many: bool) -> None:
    """Adds values one by one or as arrays, and commits them."""
    if many:
        indices = [builder.tags.tag_for("m", sensor).index for sensor, _, _ in rows]
        times = np.array([at + after for _, after, _ in rows], np.int64)
        values = np.array([value for *_, value in rows], float)
        builder.add_values("m", np.array(indices, np.int32), times, values, np.ones(len(rows), bool))
    else:
        for sensor, after, value in rows:
            builder.add_value("m", "m", sensor, at + after, value)
    await builder.commit()


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    ("commits", "replaced", "example"),
    [
        ([[("a", 0, 1.0), ("a", 0, 2.0), ("a", 0, 3.0), ("a", 1, 4.0)]], 2, "m a: 2 is replaced by a later value of"),
        ([[("a", 0, 1.0)], [("a", 0, 2.0)], [("a", 0, 3.0), ("b", 0, 3.0)]], 2, "m a: 2 is replaced"),
        ([[("a", 5, 1.0), ("a", 1, 2.0), ("b", 5, 3.0), ("a", 5, 4.0)]], 1, "m a: 1 is replaced"),
        ([[("a", 0, 1.0), ("a", 0, 1.0)], [("a", 0, 1.0)]], 0, ""),  # sent again
        ([[("a", 0, 1.0), ("b", 0, 2.0)], [("a", 1, 1.0), ("b", 1, 2.0)]], 0, ""),
    ],
)
async def test_values_of_one_time_are_counted(
    many: bool, commits: list[list[Row]], replaced: int, example: str
) -> None:
    """A device with times in whole seconds sends several values a second: all but one of each second are lost."""
    builder, at = make_builder(MemorySpool()), now_us() - 10_000_000
    for rows in commits:
        await commit_rows(builder, at, rows, many=many)
    tally = builder.refusals.refused.get(Reason.SAME_TIME, Tally())
    assert tally.count == replaced
    assert tally.example.startswith(example)


@pytest.mark.parametrize(
    ("value", "counted"),
    [(2**53 + 1, 1), (2**64 - 1, 1), (-(2**63) + 1, 1), (2**53, 0), (2**60, 0), (-(2**63), 0), (True, 0), (1e300, 0)],
)
async def test_integers_that_must_be_rounded_are_counted(value: float, counted: int) -> None:
    spool = MemorySpool()
    builder = make_builder(spool)
    builder.add_value("m", "m", "a", None, value)
    await builder.commit()
    assert [stored for _, stored in spool.readings()["m", "a"]] == [float(value)]
    tally = builder.refusals.corrected.get(Reason.ROUNDED, Tally())
    assert tally.count == counted
    assert tally.example == (f"m a: {value} is stored as {float(value):.0f}" if counted else "")
