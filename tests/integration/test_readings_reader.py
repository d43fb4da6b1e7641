"""What predictions read of an ingestion service: always a whole window, and little more."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from aurum.ingestion.service import ingestion
from aurum.ingestion.settings import IngestionSettings
from aurum.prediction.model.features import TIME, WINDOW, FeatureSpec
from aurum.prediction.serving.readings_client import MachineReadings, ReadingsClient
from aurum.runtime.audit import AuditLog
from aurum.runtime.errors import InvalidArgumentError, NotFoundError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.policy.policies import Policies
from aurum.runtime.service import Service
from aurum.runtime.settings import load_settings
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.ports import free_port

START = 1_760_000_000_000_000
SECOND = 1_000_000
LAST = 256  # readings of a sensor that the first query asks for
HOURS = FeatureSpec("hours", 1.0, ("x",))


@dataclass
class Plant:
    """An ingestion service, a writer to it, and a reader; asked: the requests of the reader."""

    dependency: Dependency
    reader: ReadingsClient
    asked: list[ingestion_pb2.QueryRequest] = field(default_factory=list)
    sequence: int = 0

    async def write(self, machine: str, sensors: Mapping[str, np.ndarray], seconds: float = 1.0, at: int = 0) -> None:
        """Writes values that were read every so many seconds. at: index of the first."""
        self.sequence += 1
        count = len(next(iter(sensors.values())))
        times = [START + int((at + index) * seconds * SECOND) for index in range(count)]
        series = [
            ingestion_pb2.Series(machine_id=machine, sensor=name, timestamps_us=times, values=values.tolist())
            for name, values in sensors.items()
        ]
        batch = ingestion_pb2.Batch(source_id="test", sequence=self.sequence, series=series)
        stub = ingestion_pb2_grpc.IngestionServiceStub(self.dependency.channel)
        await self.dependency.unary(stub.Write, ingestion_pb2.WriteRequest(batch=batch))

    async def register(self, machine: str) -> None:
        stub = ingestion_pb2_grpc.IngestionServiceStub(self.dependency.channel)
        request = ingestion_pb2.RegisterMachineRequest(machine_id=machine, machine_type="pump")
        await self.dependency.unary(stub.RegisterMachine, request)

    async def run(self, machine: str, hours: np.ndarray, seconds: float = 1.0, at: int = 0) -> None:
        """Writes a life counter, and a sensor that follows it."""
        await self.write(machine, {"hours": hours, "x": 2 * hours}, seconds, at)

    async def read(
        self, *machines: str, spec: FeatureSpec | None = HOURS, end_us: int = 0
    ) -> dict[str, MachineReadings]:
        self.asked.clear()
        return await self.reader.latest(machines, spec, end_us)


@pytest.fixture
async def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plant]:
    settings = load_settings(IngestionSettings, state_dir=tmp_path, ingestion_port=free_port(), shutdown_grace=0.1)
    service = Service("ingestion", settings, None, AuditLog(None))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(service.running())
        await stack.enter_async_context(ingestion(service))
        service.health.started()
        address = f"127.0.0.1:{settings.ingestion_port}"
        dependency = Dependency("prediction", "ingestion", address, Policies("prediction", settings), 10_000_000)
        stack.push_async_callback(dependency.close)
        made = Plant(dependency, ReadingsClient(dependency))
        stream = dependency.stream

        async def noted(method: object, request: ingestion_pb2.QueryRequest) -> object:
            made.asked.append(request)
            return await stream(method, request)

        monkeypatch.setattr(dependency, "stream", noted)
        yield made


def hours_of(found: MachineReadings) -> np.ndarray:
    return found.columns["hours"][1]


async def test_slowly_read_machine_needs_one_query(plant: Plant) -> None:
    await plant.run("m", np.arange(300.0))
    await plant.register("silent")
    found = await plant.read("m", "silent")
    assert list(found) == ["m"]
    assert hours_of(found["m"]).tolist() == list(range(300 - LAST, 300))
    assert found["m"].columns["x"][1].tolist() == [2.0 * hour for hour in range(300 - LAST, 300)]
    assert found["m"].as_of_us == START + 299 * SECOND
    assert [each.last for each in plant.asked] == [LAST]


async def test_second_query_asks_for_what_the_window_needs(plant: Plant) -> None:
    await plant.run("m", np.arange(0.0, 900.0, 3.0))
    await plant.read("m")
    found = await plant.read("m")
    (asked,) = plant.asked
    assert asked.last < LAST // 2
    hours = hours_of(found["m"])
    assert len(hours) == asked.last
    assert hours[-1] - hours[0] >= WINDOW


async def test_machine_read_more_often_later_gets_whole_window(plant: Plant) -> None:
    await plant.run("m", np.arange(0.0, 900.0, 3.0))
    await plant.read("m")
    await plant.run("m", np.arange(900.0, 1100.0), at=300)
    hours = hours_of((await plant.read("m"))["m"])
    assert hours[-1] - hours[0] >= WINDOW
    assert plant.asked[-1].last == LAST


async def test_often_read_machine_is_read_by_range_and_reduced(plant: Plant) -> None:
    await plant.run("m", np.arange(0.0, 400.0, 0.1))
    hours = hours_of((await plant.read("m"))["m"])
    assert hours[-1] - hours[0] >= 0.95 * WINDOW
    assert len(hours) <= 512
    assert plant.asked[-1].points == 512
    again = hours_of((await plant.read("m"))["m"])
    assert again.tolist() == hours.tolist()
    assert LAST not in [each.last for each in plant.asked], "its range is known"


async def test_young_machine_is_read_from_its_first_reading(plant: Plant) -> None:
    await plant.run("m", np.arange(0.0, 60.0, 0.1))
    hours = hours_of((await plant.read("m"))["m"])
    assert hours[0] < 1.0
    assert hours[-1] > 59.0


async def test_run_that_began_lately_needs_no_more_readings(plant: Plant) -> None:
    await plant.run("m", np.concatenate([np.arange(500.0, 530.0, 0.1), np.arange(0.0, 10.0, 0.1)]))
    found = await plant.read("m")
    assert len(hours_of(found["m"])) == LAST
    assert [each.last for each in plant.asked] == [LAST]


async def test_machine_without_life_counter_is_read_by_time(plant: Plant) -> None:
    spec = FeatureSpec(TIME, 0.01, ("x",))
    await plant.write("m", {"x": np.arange(1000.0)}, seconds=10.0)
    await plant.write("few", {"x": np.arange(20.0)}, seconds=10.0)
    found = await plant.read("m", "few", spec=spec)
    window_us = int(0.01 * WINDOW * 3600 * SECOND)
    times = found["m"].columns["x"][0]
    assert window_us * 0.98 <= times[-1] - times[0] <= window_us
    assert found["few"].columns["x"][1].tolist() == list(range(20))


async def test_readings_end_before_the_moment_that_was_asked(plant: Plant) -> None:
    await plant.run("m", np.arange(0.0, 400.0, 0.1))
    end = START + 2000 * SECOND
    found = await plant.read("m", end_us=end)
    assert found["m"].as_of_us < end
    hours = hours_of(found["m"])
    assert hours[-1] - hours[0] >= 0.95 * WINDOW


async def test_all_sensors_are_read_of_few_machines_at_a_time(plant: Plant) -> None:
    """One query has at most a thousand series, as far as the numbers of sensors are known from the machines' types."""
    names = [f"m{number}" for number in range(9)]
    sensors = {f"s{number}": np.arange(3.0) for number in range(300)}
    for name in names:
        await plant.write(name, sensors)
    await plant.reader.machine_types(names)
    found = await plant.read(*names, spec=None)
    assert [len(each.machine_ids) for each in plant.asked] == [3, 3, 3]
    assert {name: set(readings.columns) for name, readings in found.items()} == {name: set(sensors) for name in names}


async def test_query_of_too_many_series_is_split(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurum.ingestion.servicer.MAX_SERIES", 4)
    for number in range(5):
        await plant.run(f"m{number}", np.arange(3.0))
    found = await plant.read(*(f"m{number}" for number in range(5)))
    assert sorted(found) == [f"m{number}" for number in range(5)]
    assert all(hours_of(each).tolist() == [0.0, 1.0, 2.0] for each in found.values())
    monkeypatch.setattr("aurum.ingestion.servicer.MAX_SERIES", 1)
    with pytest.raises(InvalidArgumentError, match="at most 1"):
        await plant.read("m0", "m1")


async def test_machine_types_are_asked_once_and_errors_kept_apart(plant: Plant) -> None:
    await plant.register("m")
    await plant.run("unregistered", np.arange(3.0))
    kind, missing, none = await plant.reader.machine_types(["m", "unknown", "unregistered"])
    assert (kind, none) == ("pump", "")
    assert isinstance(missing, NotFoundError)
    await plant.dependency.close()
    assert await plant.reader.machine_types(["m"]) == ["pump"]
    assert await plant.reader.machine_type("m") == "pump"
