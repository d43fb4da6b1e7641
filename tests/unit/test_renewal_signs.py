"""Stops after which a machine reads as new: found after overhauls of the simulated plant, and not on healthy data."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.maintenance.records import Record, RecordKind
from aurum.maintenance.renewal_signs import renewal_signs, stops_between
from aurum.readings.batch import Values
from aurum.readings.history import FAULT, LIFE_NUMBERS, OPERATING_HOURS, Run
from aurum.runtime.time_units import HOUR_US
from aurum_sim.machine_types import MACHINE_TYPES
from aurum_sim.plant_model import run_to_failure

BEGIN = 1_700_000_000_000_000
STOPS = 6  # of each life


def without_counter(run: Run) -> Run:
    """A life of which no counter and no fault signal tells."""
    return replace(run, columns={name: v for name, v in run.columns.items() if name not in (OPERATING_HOURS, FAULT)})


def part_of(run: Run, kept: np.ndarray) -> Run:
    return replace(
        run, timestamps=run.timestamps[kept], columns={name: values[kept] for name, values in run.columns.items()}
    )


def stopped(run: Run, rng: np.random.Generator) -> Run:
    """A life without the readings of some stops of half a day to three days."""
    count = len(run.timestamps)
    kept = np.ones(count, dtype=bool)
    for start in rng.integers(count // 10, count - count // 10, STOPS):
        kept[start : start + rng.integers(12, 72)] = False
    return part_of(run, kept)


def overhauled(first: Run, second: Run, worn: float) -> tuple[Run, int, int]:
    """Two lives of a machine with a stop of a day between them; the first one ends at a share of its length."""
    first = part_of(first, np.arange(len(first.timestamps)) < worn * len(first.timestamps))
    last = int(first.timestamps[-1])
    shifted = second.timestamps - second.timestamps[0] + last + 24 * HOUR_US
    columns = {name: np.concatenate([values, second.columns[name]]) for name, values in first.columns.items()}
    return (
        replace(first, timestamps=np.concatenate([first.timestamps, shifted]), columns=columns),
        last,
        int(shifted[0]),
    )


@pytest.fixture(scope="module")
def lives() -> dict[str, list[Run]]:
    return {
        name: [without_counter(run) for run in run_to_failure(kind, 24, 11)] for name, kind in MACHINE_TYPES.items()
    }


def test_stops_of_wearing_machines_are_no_new_lives(lives: dict[str, list[Run]]) -> None:
    """Of several hundred stops of machines that wear on, at most one in a hundred is a sign."""
    rng = np.random.default_rng(3)
    found = stops = 0
    for runs in lives.values():
        for run in runs:
            life = stopped(run, rng)
            stops += len(stops_between(life.timestamps))
            found += len(renewal_signs(life))
    assert stops > 300
    assert found <= 0.01 * stops


def test_overhauls_without_a_record_are_found(lives: dict[str, list[Run]]) -> None:
    """Most overhauls of worn machines are signs, at their stop and nowhere else."""
    rng = np.random.default_rng(4)
    hits = others = pairs = 0
    for runs in lives.values():
        for first, second in zip(runs[::2], runs[1::2], strict=True):
            life, last, resumed = overhauled(first, second, rng.uniform(0.75, 1.0))
            signs = renewal_signs(life)
            pairs += 1
            hits += any((sign.from_us, sign.to_us) == (last, resumed) for sign in signs)
            others += sum(sign.from_us != last for sign in signs)
    assert hits >= 0.6 * pairs
    assert others == 0


def healthy(kind: str, rng: np.random.Generator, count: int) -> Iterator[Values]:
    """Five sensors of a machine that does not wear."""
    common = rng.normal(0, 1, count)
    for _ in range(5):
        noise = rng.normal(0, 1, count)
        if kind == "daily":
            yield 50 + 5 * np.sin(np.arange(count) * 2 * np.pi / 24 + rng.uniform(0, 6)) + noise
        elif kind == "slow":  # correlated over days
            values = np.empty(count)
            values[0] = 0
            for index in range(1, count):
                values[index] = 0.99 * values[index - 1] + noise[index]
            yield 50 + values
        elif kind == "common":  # a load that all sensors follow
            yield 50 + 3 * np.repeat(common[::24], 24)[:count] + noise
        else:
            yield 50 + noise


@pytest.mark.parametrize("kind", ["white", "daily", "slow", "common"])
def test_healthy_machines_have_hardly_any_signs(kind: str) -> None:
    """With weekly stops, at most one stop of a hundred of a machine that does not wear is a sign."""
    found = stops = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        hours = np.array([hour for hour in range(60 * 24) if hour % 168 < 120])  # not on weekends
        columns = {f"sensor_{index}": each[hours] for index, each in enumerate(healthy(kind, rng, 60 * 24))}
        life = Run("m", False, BEGIN + hours * HOUR_US, columns)
        stops += len(stops_between(life.timestamps))
        found += len(renewal_signs(life))
    assert stops >= 300
    assert found <= 0.01 * stops


def told(kind: RecordKind | None, from_us: int, to_us: int) -> Record:
    return Record(from_us, "d", from_us, "told", "Ada", kind, to_us)


def test_record_beside_a_stop_answers_its_sign(lives: dict[str, list[Run]]) -> None:
    """Any record with a kind answers; a note, a deleted record and one of another day do not."""
    life, last, resumed = overhauled(lives["motor"][0], lives["motor"][1], 0.95)
    (sign,) = renewal_signs(life)
    assert len(sign.levels) >= 2
    assert all(abs(each.after - each.begin) < abs(each.before - each.begin) for each in sign.levels)
    kinds: tuple[RecordKind, ...] = ("inspection", "overhaul", "repair")
    for kind in kinds:
        assert not renewal_signs(life, [told(kind, last + HOUR_US, resumed)])
    assert renewal_signs(life, [told(None, last, resumed)]) == [sign]
    assert renewal_signs(life, [replace(told("inspection", last, resumed), deleted=True)]) == [sign]
    assert renewal_signs(life, [told("inspection", last - 100 * HOUR_US, last - 90 * HOUR_US)]) == [sign]


def test_counters_and_labels_are_no_signs(lives: dict[str, list[Run]]) -> None:
    """What counts, numbers or labels lives is known otherwise, so it neither makes nor prevents a sign."""
    life, *_ = overhauled(lives["motor"][0], lives["motor"][1], 0.95)
    meter = np.arange(len(life.timestamps), dtype=float)
    extra = {"energy_kwh": meter, FAULT: (meter > 10).astype(float), next(iter(LIFE_NUMBERS)): meter}
    assert renewal_signs(replace(life, columns={**life.columns, **extra})) == renewal_signs(life)
    assert renewal_signs(replace(life, columns=extra)) == []


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=12, max_size=300), max_size=4),
    gaps=st.lists(st.integers(1, 200), min_size=300, max_size=300),
)
def test_any_readings_are_examined(values: list[list[float]], gaps: list[int]) -> None:
    """Whatever a machine sends: signs are at stops, in order, and tell finite levels."""
    rows = min((len(each) for each in values), default=0)
    times = BEGIN + np.cumsum(np.array(gaps[:rows], dtype=np.int64)) * HOUR_US
    columns = {f"s{index}": np.array(each[:rows]) for index, each in enumerate(values)}
    signs = renewal_signs(Run("m", False, times, columns))
    assert [sign.from_us for sign in signs] == sorted(sign.from_us for sign in signs)
    for sign in signs:
        assert sign.to_us - sign.from_us >= 2 * HOUR_US
        assert all(np.isfinite([each.begin, each.before, each.after]).all() for each in sign.levels)
