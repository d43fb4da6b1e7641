"""The machines of a scorer: whatever the order of streams, queries and late readings, no reading is lost or counted
twice."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.prediction.fleet import held_readings
from aurum.prediction.fleet.fleet import Fill, Fleet
from aurum.prediction.fleet.machine_table import APART, BY_MODEL, BY_QUERY, BY_RULE, FILLING, StreamSeries
from aurum.prediction.fleet.scoring import FleetScoring
from aurum.prediction.model.features import features_of_windows, steps_of, window_of
from aurum.prediction.model.model import load_model
from aurum.prediction.model.model_files import make_champion, write_model
from aurum.prediction.serving.inputs import PredictionInput
from aurum.prediction.serving.readings_client import MachineReadings
from aurum.prediction.serving.registry import ModelRegistry
from aurum.prediction.serving.scoring import Prediction, Scorer
from aurum.readings.batch import Column
from tests.support.models import pump_model

START = 1_700_000_000_000_000
SECOND = 1_000_000
MACHINES = ["P-1", "P-2", "P-3"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("models")
    pump_model(folder)
    return ModelRegistry(folder)


class Store:
    """What ingestion has stored, and what it has not sent to the scorer yet."""

    def __init__(self, fleet: Fleet, sensors: tuple[str, ...], machines: list[str]) -> None:
        self.fleet = fleet
        self.sensors = sensors
        self.machines = machines
        self.readings: dict[str, dict[str, dict[int, float]]] = {machine: {} for machine in machines}
        self.stream: list[list[tuple[int, int, float]]] = []
        self.series = StreamSeries()
        keys = [(machine, sensor) for machine in machines for sensor in sensors]
        self.keys = keys
        fleet.define(self.series, [(number, *key) for number, key in enumerate(keys)])

    def write(self, rows: list[tuple[int, int, float]]) -> None:
        """Stores readings: the number of the series, time and value."""
        for number, at, value in rows:
            machine, sensor = self.keys[number]
            self.readings[machine].setdefault(sensor, {})[at] = value
        self.stream.append(rows)

    def columns(self, machine: str) -> dict[str, Column]:
        found = {}
        for sensor, readings in self.readings[machine].items():
            times = sorted(readings)
            found[sensor] = np.array(times), np.array([readings[at] for at in times])
        return found

    def deliver(self) -> None:
        rows = self.stream.pop(0)
        numbers, times, values = (np.array(column) for column in zip(*rows, strict=True))
        self.fleet.add(self.series, numbers.astype(np.intp), times.astype(np.int64), values.astype(np.float64))

    def query(self) -> tuple[Fill, dict[str, dict[str, Column]]] | None:
        fill = self.fleet.next_fill(2)
        return None if fill is None else (fill, {each: self.columns(each) for each in fill.machine_ids})


class Course:
    """A random course of events: writes, late readings, deliveries of the stream, queries, fills and gaps."""

    def __init__(self, registry: ModelRegistry, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        self.now = 100.0
        self.fleet = Fleet(registry, ("fault",), 10_000_000, lambda: self.now)
        model = registry.active("pump")
        assert model is not None
        self.spec = model.spec
        for machine in MACHINES:
            self.fleet.note_machine(machine, "pump")
        self.store = Store(self.fleet, self.spec.queried, MACHINES)
        self.queries: list[tuple[Fill, dict[str, dict[str, Column]]]] = []
        self.at, self.life = START, 100.0

    def run(self) -> None:
        events = [self.write, self.late, self.deliver, self.query, self.install, self.gap]
        for index in self.chance.choice(len(events), 60, p=[0.4, 0.05, 0.25, 0.15, 0.13, 0.02]).tolist():
            self.now += 0.5
            events[index]()
        while self.store.stream:
            self.store.deliver()
        while self.queries:
            self.install()
        for _ in range(20):
            self.now += 61
            while (found := self.store.query()) is not None:
                self._fill(*found)

    def write(self) -> None:
        self.at += int(self.chance.integers(1, 20 * SECOND))
        self.life += float(self.chance.choice([0.0, 0.3, 2.0]))
        width = len(self.spec.queried)
        rows = []
        for index in np.flatnonzero(self.chance.random(len(MACHINES)) < 0.7).tolist():
            rows += [(index * width + each, self.at, float(self.chance.normal())) for each in range(width - 1)]
            rows.append((index * width + width - 1, self.at, self.life))
        if rows:
            self.store.write(rows)

    def late(self) -> None:
        width = len(self.spec.queried)
        number = int(self.chance.integers(len(MACHINES))) * width + int(self.chance.integers(width - 1))
        self.store.write([(number, self.at - int(self.chance.integers(0, 30 * SECOND)), 9.0)])

    def deliver(self) -> None:
        if self.store.stream:
            self.store.deliver()

    def query(self) -> None:
        if (found := self.store.query()) is not None:
            self.queries.append(found)

    def install(self) -> None:
        if not self.queries:
            return
        fill, columns = self.queries.pop(int(self.chance.integers(len(self.queries))))
        if self.chance.random() < 0.1:
            self.fleet.put_back(fill, "failed")
        else:
            self._fill(fill, columns)

    def _fill(self, fill: Fill, columns: dict[str, dict[str, Column]]) -> None:
        for machine in self.fleet.install(fill, columns, columns):
            self.fleet.install_for_rule(fill, machine, columns[MACHINES[machine]], "few sensors")

    def gap(self) -> None:
        self.store.stream.clear()
        self.fleet.refill_all("gap")


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_no_reading_is_lost_or_counted_twice(registry: ModelRegistry, seed: int) -> None:
    course = Course(registry, seed)
    course.run()
    for index, machine in enumerate(MACHINES):
        columns = course.store.columns(machine)
        if course.fleet.table.mode[index] == BY_RULE:  # it has too few sensors for the model
            kept = course.fleet.recent.columns(index)
            assert {name: values.tolist() for name, (_, values) in kept.items()} == {
                name: values.tolist() for name, (_, values) in columns.items()
            }
            continue
        assert course.fleet.table.mode[index] == BY_MODEL
        group = course.fleet.group_of(index)
        assert group is not None
        rows, found = group.windows.features(course.fleet.table.row[index : index + 1])
        steps = steps_of(columns, course.spec)
        assert len(rows) == min(1, len(steps.ages))
        if len(rows):
            assert np.array_equal(found[0], features_of_windows([window_of(steps)])[0], equal_nan=True)
            assert course.fleet.table.last_seen[index] == max(int(times[-1]) for times, _ in columns.values())


def filled(registry: ModelRegistry, columns: dict[str, dict[str, Column]], max_bytes: int = 10_000_000) -> Fleet:
    fleet = Fleet(registry, ("fault",), max_bytes)
    for machine in columns:
        fleet.note_machine(machine, "" if machine.startswith("X") else "pump")
    while (fill := fleet.next_fill(10)) is not None:
        fleet.install(fill, columns, columns)
    return fleet


def history(sensors: tuple[str, ...], seed: int = 0) -> dict[str, Column]:
    chance = np.random.default_rng(seed)
    times = START + SECOND * np.arange(40)
    return {
        sensor: (times, 100 + np.arange(40.0) if sensor == "operating_hours" else chance.normal(60, 1, 40))
        for sensor in sensors
    }


def test_continuous_answers_equal_those_to_requests(registry: ModelRegistry) -> None:
    model = registry.active("pump")
    assert model is not None
    columns = {name: history(model.spec.queried, seed) for seed, name in enumerate(["P-1", "P-2", "X-1"])}
    fleet = filled(registry, columns)
    assert fleet.table.mode[:3].tolist() == [BY_MODEL, BY_MODEL, BY_RULE]
    scoring = FleetScoring(fleet, registry, Scorer())
    scored = [each for _, machines in fleet.due(0) for each in scoring.score(machines)]
    reason = "there is no model for a machine that was never registered; the rule for such machines answered"
    inputs = [
        PredictionInput("P-1", "pump", model, MachineReadings("P-1", columns["P-1"])),
        PredictionInput("P-2", "pump", model, MachineReadings("P-2", columns["P-2"])),
        PredictionInput("X-1", "", None, MachineReadings("X-1", columns["X-1"]), reason=reason),
    ]
    answers = {each.machine_id: each for each in Scorer().score(inputs)}  # type: ignore[union-attr]
    assert {each.prediction.machine_id: each.prediction for each in scored} == answers
    assert np.isnan(fleet.table.risk[2])
    assert fleet.table.risk[0] == answers["P-1"].risk_score  # type: ignore[union-attr]
    assert not fleet.due(0)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_windows_answer_requests_as_queries_do(registry: ModelRegistry, seed: int) -> None:
    course = Course(registry, seed)
    course.run()
    model = registry.active("pump")
    answers = FleetScoring(course.fleet, registry, Scorer()).answer([*MACHINES, "unknown", *MACHINES])
    for index, machine_id in enumerate(MACHINES):
        columns = course.store.columns(machine_id)
        by_query = Scorer().score([PredictionInput(machine_id, "pump", model, MachineReadings(machine_id, columns))])[0]
        if course.fleet.table.mode[index] == BY_MODEL and isinstance(by_query, Prediction):
            assert answers[index] == by_query
        else:
            assert answers[index] is None
    assert answers[len(MACHINES)] is None
    assert answers[len(MACHINES) + 1 :] == answers[: len(MACHINES)]


def test_windows_do_not_answer_for_a_new_champion(tmp_path: Path) -> None:
    pump_model(tmp_path)
    registry = ModelRegistry(tmp_path)
    model = registry.active("pump")
    assert model is not None
    fleet = filled(registry, {"P-1": history(model.spec.queried)})
    scoring = FleetScoring(fleet, registry, Scorer())
    assert scoring.answer(["P-1"])[0] is not None
    files = {path.name: path.read_text() for path in (tmp_path / "pump" / model.card.version).iterdir()}
    card = files["card.json"].replace(model.card.version, "second")
    write_model(tmp_path, "pump", "second", {**files, "card.json": card})
    make_champion(tmp_path, "pump", "second")
    assert registry.refresh()
    assert scoring.answer(["P-1"]) == [None]
    fleet.follow_models()
    answer = scoring.answer(["P-1"])[0]
    assert answer is not None
    assert answer.model_version == "second"


def test_windows_do_not_answer_if_the_shadow_needs_others(tmp_path: Path) -> None:
    pump_model(tmp_path)
    registry = ModelRegistry(tmp_path)
    model = registry.active("pump")
    assert model is not None
    scoring = FleetScoring(filled(registry, {"P-1": history(model.spec.queried)}), registry, Scorer())
    files = {path.name: path.read_text() for path in (tmp_path / "pump" / model.card.version).iterdir()}
    card = json.loads(files["card.json"]) | {"version": "same"}
    write_model(tmp_path, "pump", "same", {**files, "card.json": json.dumps(card)})
    registry.set_shadow("pump", "same")
    assert scoring.answer(["P-1"]) != [None]
    card |= {"version": "wider", "step": 2 * card["step"]}
    write_model(tmp_path, "pump", "wider", {**files, "card.json": json.dumps(card)})
    registry.set_shadow("pump", "wider")
    assert scoring.answer(["P-1"]) == [None]


def test_windows_that_are_filled_again_answer_nothing(registry: ModelRegistry) -> None:
    model = registry.active("pump")
    assert model is not None
    fleet = filled(registry, {"P-1": history(model.spec.queried)})
    scoring = FleetScoring(fleet, registry, Scorer())
    assert scoring.answer(["P-1"]) != [None]
    fleet.refill_all("gap")
    assert scoring.answer(["P-1"]) == [None]


def test_machines_beyond_the_memory_are_scored_by_queries(registry: ModelRegistry) -> None:
    model = registry.active("pump")
    assert model is not None
    columns = {f"P-{number}": history(model.spec.queried) for number in range(100)}
    fleet = filled(registry, columns, 600_000)
    modes = fleet.table.mode[:100].tolist()
    assert modes.count(BY_MODEL) > 50
    assert modes.count(BY_QUERY) == 100 - modes.count(BY_MODEL)
    assert len(fleet.due_by_query(0, 4)) == 4


def test_machines_that_wait_hold_no_readings(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings are held only for machines whose fill has begun, so those that wait do not use up the room."""
    monkeypatch.setattr(held_readings, "_MOST", 100)
    course = Course(registry, 1)
    course.write()
    fill = course.fleet.next_fill(1)
    assert fill is not None
    width = len(course.spec.queried)
    for second in range(1, 11):
        at = course.at + second * SECOND
        course.store.write([(number, at, 100.0 + second) for number in (*range(width), *range(width, 2 * width))])
    while course.store.stream:
        course.store.deliver()
    assert width * 10 < 100 < 2 * width * 10
    course.fleet.install(fill, {}, {})
    assert course.fleet.table.mode[fill.machines[0]] == BY_MODEL


def test_shares_are_given_up_and_taken_over(registry: ModelRegistry) -> None:
    model = registry.active("pump")
    assert model is not None
    columns = {f"P-{number}": history(model.spec.queried) for number in range(40)}
    fleet = filled(registry, columns)
    fleet.divide(["a", "b"], "a")
    own = set(fleet.machine_ids())
    assert 5 < len(own) < 35
    other = filled(registry, columns)
    other.divide(["a", "b"], "b")
    assert set(other.machine_ids()) == set(columns) - own
    fleet.divide(["a"], "a")
    assert set(fleet.machine_ids()) == set(columns)
    modes = fleet.table.mode[:40].tolist()
    assert modes.count(FILLING) == 40 - len(own)
    fleet.divide(["b"], "a")
    assert set(fleet.table.mode[:40].tolist()) == {APART}


def test_a_new_champion_gets_new_windows_only_if_needed(tmp_path: Path) -> None:
    pump_model(tmp_path)
    registry = ModelRegistry(tmp_path)
    model = registry.active("pump")
    assert model is not None
    columns = {"P-1": history(model.spec.queried)}
    fleet = filled(registry, columns)
    folder = tmp_path / "pump" / model.card.version
    files = {path.name: path.read_text() for path in folder.iterdir()}
    card = files["card.json"].replace(model.card.version, "same")
    write_model(tmp_path, "pump", "same", {**files, "card.json": card})
    make_champion(tmp_path, "pump", "same")
    assert load_model(tmp_path / "pump" / "same").card.version == "same"
    assert registry.refresh()
    fleet.follow_models()
    assert fleet.table.mode[0] == BY_MODEL
    assert fleet.groups["pump"].model.card.version == "same"
    other = SimpleNamespace(card=model.card, spec=type(model.spec)("time", 1.0, model.spec.sensors))
    fleet.groups["pump"].model = other  # type: ignore[assignment]
    fleet.follow_models()
    assert fleet.table.mode[0] == FILLING
