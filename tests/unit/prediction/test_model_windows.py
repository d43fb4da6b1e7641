"""Windows that grow reading by reading give the same features, bit by bit, as all readings at once."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.prediction.fleet.model_windows import AddedReadings, ModelWindows
from aurum.prediction.model.features import TIME, Derived, FeatureSpec, features_of_windows, steps_of, window_of
from aurum.prediction.model.regimes import Regimes
from aurum.prediction.model.wear_index import WearIndex
from aurum.readings.batch import Column
from aurum.runtime.time_units import HOUR_US

START = 1_700_000_000_000_000
SENSORS = ("a", "b", "c")
REGIMES = Regimes(
    ("speed",),
    np.array([[0.0], [10.0]]),
    np.array([1.0]),
    SENSORS,
    np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]),
    np.array([[1.0, 2.0, np.inf], [4.0, 0.5, 1.0]]),
)
INDEX = WearIndex(np.array([3.0, -100.0, 0.1]), np.array([0.3, -1e-3, 7.0]), np.array([0.2, 0.5, 0.3]))
SPECS = {
    "time": FeatureSpec(TIME, 0.5, SENSORS),
    "life": FeatureSpec("life", 2.0, SENSORS),
    "time in regimes": FeatureSpec(TIME, 0.5, SENSORS, REGIMES),
    "life in regimes": FeatureSpec("life", 2.0, SENSORS, REGIMES),
    "life with deviations": FeatureSpec("life", 2.0, SENSORS, None, Derived(None, True)),
    "life with all derived": FeatureSpec("life", 2.0, SENSORS, REGIMES, Derived(INDEX, True)),
    "time in single precision": FeatureSpec(TIME, 0.5, SENSORS, single=True),
    "life with all derived in single precision": FeatureSpec("life", 2.0, SENSORS, REGIMES, Derived(INDEX, True), True),
}


def expected(columns: dict[str, Column], spec: FeatureSpec) -> np.ndarray | None:
    steps = steps_of(columns, spec)
    return features_of_windows([window_of(steps)])[0] if len(steps.ages) else None


def actual(windows: ModelWindows, row: int) -> np.ndarray | None:
    rows, features = windows.features(np.array([row]))
    return features[0] if len(rows) else None


def same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.tobytes() == second.tobytes() or bool(np.array_equal(first, second, equal_nan=True))


GAPS = [1, 1000, HOUR_US // 7, HOUR_US, 20 * HOUR_US, 50 * HOUR_US, 300 * HOUR_US]


def history(chance: np.random.Generator, sensors: tuple[str, ...]) -> dict[str, Column]:
    """Readings of sensors at irregular times, mostly together, with a life counter that sometimes falls."""
    count = int(chance.integers(1, 80))
    times = START + np.cumsum(chance.choice(GAPS[: chance.integers(1, 8)], count))
    missing = chance.choice([0.0, 0.0, 0.1])
    columns: dict[str, Column] = {}
    for sensor in sensors:
        values = np.round(chance.normal(0, 1e3, count), 3)
        if sensor == "life":
            life = 0.0
            for index, worked in enumerate(chance.choice([0.0, 0.3, 1.0, 5.0, 100.0, -1.0], count)):
                life = 0.0 if worked < 0 else life + worked
                values[index] = life
        elif sensor == "speed":
            values = chance.choice([0.0, 9.0], count)
        if chance.random() < 0.3:
            values[chance.random(count) < 0.1] = np.nan
        kept = chance.random(count) >= missing
        if kept.any():
            columns[sensor] = times[kept], values[kept]
    return columns


Reading = tuple[int, int, float]  # time, column, value


def chunks(columns: dict[str, Column], spec: FeatureSpec, ends: list[int], delays: list[int]) -> list[list[Reading]]:
    """The readings in parts, in the order in which they arrive: those of each sensor later by its delay."""
    rows = [
        (int(at) + delays[spec.queried.index(sensor)], (int(at), spec.queried.index(sensor), float(value)))
        for sensor, (times, values) in columns.items()
        for at, value in zip(times, values, strict=True)
    ]
    rows.sort(key=lambda row: row[0])
    cuts = sorted({0, len(rows), *(min(end, len(rows)) for end in ends)})
    return [[row for _, row in rows[start:end]] for start, end in itertools.pairwise(cuts)]


def add(windows: ModelWindows, row: int, part: list[Reading]) -> AddedReadings:
    return windows.add(
        np.full(len(part), row),
        np.array([column for _, column, _ in part], dtype=np.intp),
        np.array([at for at, _, _ in part], dtype=np.int64),
        np.array([value for _, _, value in part], dtype=np.float64),
    )


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_grown_windows_equal_whole_ones(name: str, seed: int) -> None:
    chance = np.random.default_rng(seed)
    spec = SPECS[name]
    columns = history(chance, spec.queried)
    delays = chance.choice([0, 0, 0, 0, HOUR_US, 30 * HOUR_US], len(spec.queried)).tolist()
    windows = ModelWindows(spec, 3)
    for row in range(3):
        windows.clear(row)
    parts = chunks(columns, spec, chance.integers(0, 400, chance.integers(0, 12)).tolist(), delays)
    begun = int(chance.integers(0, 2))  # whether the first part is read from the store
    if begun:
        windows.install(1, until_parts(parts[:begun], spec))
    for index in range(begun, len(parts)):
        seen = until_parts(parts[: index + 1], spec)
        outcome = add(windows, 1, parts[index])
        assert not outcome.unsettled
        if outcome.late:
            windows.install(1, seen)
        assert same(actual(windows, 1), expected(seen, spec))
        assert windows.as_of(np.array([1]))[0] == max(int(times[-1]) for times, _ in seen.values())


def test_single_precision_bounds_what_exceeds_its_range() -> None:
    """A reading beyond single precision gives the same finite features in a window and from all readings."""
    spec = FeatureSpec(TIME, 0.5, ("a",), single=True)
    columns = {"a": (START + np.arange(5) * HOUR_US, np.array([1.0, 1e300, -1e300, 0.1, 2.0]))}
    windows = ModelWindows(spec, 1)
    windows.clear(0)
    windows.install(0, columns)
    found = actual(windows, 0)
    assert same(found, expected(columns, spec))
    assert found is not None
    assert np.isfinite(found[1:]).all()


def test_single_precision_halves_the_memory_of_windows() -> None:
    double, single = (FeatureSpec(TIME, 0.5, SENSORS, single=single) for single in (False, True))
    assert ModelWindows.row_bytes(single) < 0.6 * ModelWindows.row_bytes(double)


def until_parts(parts: list[list[Reading]], spec: FeatureSpec) -> dict[str, Column]:
    columns: dict[str, list[tuple[int, float]]] = {}
    for part in parts:
        for at, column, value in part:
            columns.setdefault(spec.queried[column], []).append((at, value))
    return {
        sensor: (np.array([at for at, _ in rows]), np.array([value for _, value in rows]))
        for sensor, rows in columns.items()
    }


def test_readings_that_arrive_again_change_nothing() -> None:
    spec = SPECS["life"]
    windows = ModelWindows(spec, 1)
    windows.clear(0)
    part = [(START, 3, 5.0), (START, 0, 1.0), (START, 1, float("nan")), (START + 1, 3, 6.0), (START + 1, 0, 2.0)]
    assert not add(windows, 0, part).late
    before = actual(windows, 0)
    assert not add(windows, 0, part[3:]).late
    assert not add(windows, 0, [part[2]]).late
    assert same(actual(windows, 0), before)


@pytest.mark.parametrize(("at", "value"), [(START + 1, 3.0), (START, 1.0), (START + 1, float("nan"))])
def test_earlier_or_other_readings_are_late(at: int, value: float) -> None:
    windows = ModelWindows(SPECS["time"], 2)
    windows.clear(0)
    windows.clear(1)
    assert not add(windows, 0, [(START, 0, 1.0), (START + 1, 0, 2.0)]).late
    assert not add(windows, 1, [(START, 0, 1.0)]).late
    before = actual(windows, 1)
    assert add(windows, 0, [(at, 0, value)]).late == {0}
    assert same(actual(windows, 1), before)


def test_waiting_readings_are_bounded() -> None:
    windows = ModelWindows(SPECS["life"], 1)
    windows.clear(0)
    part = [(START + at, 0, 1.0) for at in range(5000)]
    assert add(windows, 0, part).unsettled == {0}


@pytest.mark.parametrize("life", [float("inf"), -1e300])
def test_impossible_ages_leave_other_machines_alone(life: float) -> None:
    spec = SPECS["life"]
    windows = ModelWindows(spec, 2)
    windows.clear(0)
    windows.clear(1)
    add(windows, 0, [(START, 3, life), (START, 0, 1.0)])
    add(windows, 1, [(START, 3, 4.0), (START, 0, 1.0)])
    assert actual(windows, 0) is None
    seen = {"life": (np.array([START]), np.array([4.0])), "a": (np.array([START]), np.array([1.0]))}
    assert same(actual(windows, 1), expected(seen, spec))
