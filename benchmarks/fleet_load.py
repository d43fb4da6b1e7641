"""The plant of the fleet benchmark: a model of ten sensors, and readings of each machine and sensor every second."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from aurum.prediction.model.model_files import make_champion, write_model
from aurum.prediction.training.train import TrainingOptions, train
from aurum.readings.batch import Batch, Series, encode_series
from aurum.v1 import columns_pb2, ingestion_pb2, ingestion_pb2_grpc
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure

SENSORS = 10
LIFE = "operating_hours"
ALARM_SENSOR = "bearing_temperature_c"
_SERIES_AT_ONCE = 2000
_SOURCE = "benchmark"


def model(folder: Path) -> list[str]:
    """Trains a model of ten sensors. Returns its sensors."""
    chance = np.random.default_rng(1)
    runs = []
    for run in run_to_failure(PUMP, 10, seed=1):
        columns = dict(run.columns)
        chosen = [sensor for sensor in columns if sensor not in {LIFE, "fault"}]
        for number in range(SENSORS - len(chosen)):
            copied = columns[chosen[number]]
            columns[f"extra_{number}"] = copied + chance.normal(0, 0.1 * np.nanstd(copied), len(copied))
        runs.append(replace(run, columns=columns))
    _, files = train("pump", runs, "benchmark", TrainingOptions(rows=4000))
    write_model(folder, "pump", "trained", files)
    make_champion(folder, "pump", "trained")
    card = json.loads((folder / "pump" / "trained" / "card.json").read_text())
    return list(card["sensors"])


class Template:
    """The series of a batch with one reading each, so that many batches of them are made quickly."""

    def __init__(self, machines: Sequence[str], sensors: Sequence[str]) -> None:
        reading = np.zeros(1, np.int64), np.zeros(1)
        self.data = bytearray()
        ends = []
        for machine in machines:
            for sensor in sensors:
                self.data += encode_series([Series(machine, sensor, *reading)])
                ends.append(len(self.data))
        # A series ends with its time, a tag and a length, and its value
        self.values = np.array(ends)[:, None] + np.arange(-8, 0)
        self.times = self.values - 10

    def with_readings(self, sequence: int, at_us: int, values: np.ndarray) -> bytes:
        """A batch with a reading of each series at the same time."""
        data = np.array(self.data, np.uint8)
        data[self.times] = np.array([at_us], "<i8").view(np.uint8)
        data[self.values] = values.astype("<f8").view(np.uint8).reshape(-1, 8)
        return columns_pb2.BatchColumns(source_id=_SOURCE, sequence=sequence).SerializeToString() + data.tobytes()


class Load:
    """The readings of a plant, sent to ingestion."""

    def __init__(self, address: str, machines: int, sensors: Sequence[str]) -> None:
        self.address = address
        self.machines = [f"M-{number:05}" for number in range(machines)]
        self.sensors = [*sensors, LIFE]
        self.sequence = 0
        self.templates: dict[int, Template] = {}
        self.chance = np.random.default_rng(2)
        self.begin = 0.0  # when the first live readings are due (time.time())
        self.accepted: dict[str, float] = {}  # hot machine → when its batch was acknowledged (time.time())

    async def register(self) -> None:
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
            for start in range(0, len(self.machines), 100):
                await asyncio.gather(
                    *(
                        stub.RegisterMachine(
                            ingestion_pb2.RegisterMachineRequest(
                                machine_id=each, machine_type="pump", site="s", request_id="x"
                            )
                        )
                        for each in self.machines[start : start + 100]
                    )
                )

    def batches(self, times: np.ndarray, hot: Collection[str] = ()) -> list[bytes]:
        """Batches of readings of all machines at these times, in which hot machines are above the limit."""
        made = []
        at_once = max(1, _SERIES_AT_ONCE // len(self.sensors) // max(1, len(times) // 20))
        life = times / 3.6e9 - 490_000
        for start in range(0, len(self.machines), at_once):
            self.sequence += 1
            machines = self.machines[start : start + at_once]
            values = self.chance.normal(60, 1, (len(machines), len(self.sensors), len(times)))
            values[:, -1] = life
            values[[machine in hot for machine in machines], self.sensors.index(ALARM_SENSOR)] = 1000
            if len(times) == 1:
                data = self._template(start, machines).with_readings(self.sequence, int(times[0]), values.reshape(-1))
            else:
                series = [
                    Series(machine, sensor, times, values[row, column])
                    for row, machine in enumerate(machines)
                    for column, sensor in enumerate(self.sensors)
                ]
                data = Batch.from_series(_SOURCE, self.sequence, series).data
            made.append(columns_pb2.BatchRequest(batch=data).SerializeToString())
        return made

    def _template(self, start: int, machines: Sequence[str]) -> "Template":
        if start not in self.templates:
            self.templates[start] = Template(machines, self.sensors)
        return self.templates[start]

    async def send(self, requests: Sequence[bytes], due: Sequence[float], hot: dict[int, list[str]]) -> float:
        """Streams batches when they are due (time.time()). hot: the hot machines of a batch.

        Returns:
            The greatest delay of an acknowledgement, in seconds.
        """
        room = asyncio.Semaphore(64)

        async def feed() -> AsyncIterator[bytes]:
            for request, at in zip(requests, due, strict=True):
                await room.acquire()
                await asyncio.sleep(max(0.0, at - time.time()))
                yield request

        longest = 0.0
        async with grpc.aio.insecure_channel(self.address) as channel:
            call: Any = channel.stream_stream(
                "/aurum.v1.IngestionService/Ingest",
                request_serializer=None,
                response_deserializer=ingestion_pb2.IngestResponse.FromString,
            )
            acknowledged = 0
            async for response in call(feed()):
                now = time.time()
                for number in range(acknowledged, response.acknowledged):
                    room.release()
                    longest = max(longest, now - due[number])
                    self.accepted |= dict.fromkeys(hot.get(number, ()), now)
                acknowledged = response.acknowledged
        assert acknowledged == len(requests)
        return longest

    async def history(self, steps: int) -> None:
        """Sends readings of past steps, an hour apart."""
        now = int(time.time() * 1e6)
        times = now - 3_600_000_000 * np.arange(steps, 0, -1)
        requests = self.batches(times)
        await self.send(requests, [0.0] * len(requests), {})

    async def live(self, seconds: int, hot_each: int) -> float:
        """Sends a reading of each series every second."""
        made: list[bytes] = []
        due: list[float] = []
        hot: dict[int, list[str]] = {}
        self.begin = begin = time.time() + len(self.machines) * seconds / 20_000 + 3  # while they are made
        alarming: set[str] = set()
        for second in range(seconds):
            at = begin + second
            chosen = self.chance.choice(self.machines, hot_each, replace=False).tolist() if hot_each else []
            new = [machine for machine in chosen if machine not in alarming]
            alarming.update(new)
            requests = self.batches(np.array([int(at * 1e6)]), alarming)
            per_request = -(-len(self.machines) // len(requests))
            for machine in new:
                hot.setdefault(len(made) + self.machines.index(machine) // per_request, []).append(machine)
            due += [at + index / len(requests) for index in range(len(requests))]
            made += requests
        if time.time() > begin:
            raise SystemExit(f"fleet: making the readings took {time.time() - begin:.1f} s longer than expected")
        return await self.send(made, due, hot)
