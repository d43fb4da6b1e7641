"""Continuous scoring: what it costs over all services, how old risks are, and how soon an alarm is visible.

Each machine has ten sensors and a life counter, and each of them has one new reading a second (the wide shape). Batches
of 2,000 readings are made beforehand and sent when they are due. The cost of scoring is the difference within one run
between the same load with and without the prediction service. Windows of all steps are filled before.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from tests.support.http import http
from tests.support.platform import Platform

from aurum.prediction.model.features import WINDOW
from aurum.prediction.model.model_files import make_champion, write_model
from aurum.prediction.training.train import TrainingOptions, train
from aurum.readings.batch import Batch, Series, encode_series
from aurum.v1 import columns_pb2, ingestion_pb2, ingestion_pb2_grpc
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure
from benchmarks.harness import Goal, report, spread

SENSORS = 10
SERIES_AT_ONCE = 2000
SOURCE = "benchmark"
LONGEST_FILL = 900  # seconds
SETTLED = 5  # seconds until the load has settled
LIFE = "operating_hours"
ALARM_SENSOR = "bearing_temperature_c"
RULES = {"rules": [{"name": "hot", "text": "Too hot", "sensor": {"sensor": ALARM_SENSOR, "above": 500}}]}


@dataclass
class Cost:
    """CPU seconds of each service, and what was done meanwhile."""

    seconds: float
    cpu: dict[str, float]
    scored: float = 0.0


@dataclass
class Observed:
    """ages: of risks in seconds. alarms: seconds from acceptance until the API shows them."""

    ages: list[float] = field(default_factory=list)
    alarms: list[float] = field(default_factory=list)


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
        return columns_pb2.BatchColumns(source_id=SOURCE, sequence=sequence).SerializeToString() + data.tobytes()


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
        at_once = max(1, SERIES_AT_ONCE // len(self.sensors) // max(1, len(times) // 20))
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
                data = Batch.from_series(SOURCE, self.sequence, series).data
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


def cpu(platform: Platform, services: Sequence[str]) -> dict[str, float]:
    found = {}
    for service in services:
        used = psutil.Process(platform.processes[service].popen.pid).cpu_times()
        found[service] = used.user + used.system
    return found


async def measured(platform: Platform, load: Load, seconds: int, hot_each: int) -> tuple[Cost, Observed, float]:
    """Runs the load, and observes risks and alarms meanwhile."""
    services = [each for each in ("ingestion", "prediction", "api") if each in platform.processes]
    observed = Observed()
    scores = "prediction" in services
    done = asyncio.Event()
    # The observers run without scoring too, so that what they cost is not counted
    watching = asyncio.create_task(watch(load, observed, done))
    asking = asyncio.create_task(ask(platform, load, observed, done))
    sending = asyncio.create_task(load.live(seconds, hot_each))
    await asyncio.sleep(1)
    await asyncio.sleep(load.begin + SETTLED - time.time())
    before, started = cpu(platform, services), time.time()
    scored = platform.metric("prediction", "prediction_fleet_scored_total ") if scores else 0.0
    observed.ages.clear()
    await asyncio.sleep(seconds - SETTLED - 1)
    after = cpu(platform, services)
    cost = Cost(time.time() - started, {each: after[each] - before[each] for each in services})
    if scores:
        cost.scored = platform.metric("prediction", "prediction_fleet_scored_total ") - scored
    ages = list(observed.ages)
    longest = await sending
    await asyncio.sleep(3)
    done.set()
    await asking
    watching.cancel()  # nothing changes any more
    await asyncio.gather(watching, return_exceptions=True)
    observed.ages = ages
    return cost, observed, longest


async def watch(load: Load, observed: Observed, done: asyncio.Event) -> None:
    """Notes every second how old the latest published prediction of each machine is."""
    latest: dict[str, int] = {}

    async def sample() -> None:
        while not done.is_set():
            await asyncio.sleep(1)
            now = time.time()
            observed.ages += [now - at / 1e6 for at in list(latest.values())]

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sample())
        tasks.create_task(receive(load, latest))


async def receive(load: Load, latest: dict[str, int]) -> None:
    """Keeps the time of the readings of the latest published predictions."""
    async with grpc.aio.insecure_channel(load.address, [("grpc.max_receive_message_length", 64_000_000)]) as channel:
        call = ingestion_pb2_grpc.IngestionServiceStub(channel).Watch(
            ingestion_pb2.WatchRequest(predictions=True, interval_ms=500)
        )
        async for response in call:
            for prediction in response.predictions:
                latest[prediction.machine_id] = prediction.as_of_us


async def ask(platform: Platform, load: Load, observed: Observed, done: asyncio.Event) -> None:
    """Notes when the API first shows the alarm of each hot machine."""
    seen: dict[str, float] = {}
    while not done.is_set():
        answer = await asyncio.to_thread(http, "GET", f"{platform.api}/api/alarms?limit=1000")
        now = time.time()
        for alarm in answer.json.get("items", ()):
            seen.setdefault(alarm["id"].partition("~")[0], now)
        await asyncio.sleep(0.1)
    observed.alarms = [seen.get(machine, time.time()) - at for machine, at in load.accepted.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 machines for a short time")
    parser.add_argument("--machines", type=int)
    parser.add_argument("--seconds", type=int)
    arguments = parser.parse_args()
    machines = arguments.machines or (1000 if arguments.quick else 10_000)
    seconds = arguments.seconds or (20 if arguments.quick else 60)
    with tempfile.TemporaryDirectory() as state:
        folder = Path(state)
        sensors = model(folder / "models")
        (folder / "rules.yaml").write_text(json.dumps(RULES))
        # With a PYTHONPATH, processes are started by the interpreter, so that their memory is their own
        extra = {"AURUM_ALARM_RULES": str(folder / "rules.yaml"), "PYTHONPATH": str(folder)}
        platform = Platform(folder, extra=extra)
        try:
            platform.start("ingestion")
            load = Load(f"127.0.0.1:{platform.port('ingestion')}", machines, sensors)
            asyncio.run(load.register())
            asyncio.run(load.history(WINDOW))
            platform.start("api")
            idle, _, _ = asyncio.run(measured(platform, load, seconds, 0))
            started = time.time()
            platform.start("prediction")
            filled = 'prediction_fleet_machines{by="model"}'
            while platform.metric("prediction", filled) < machines:
                if time.time() > started + LONGEST_FILL:
                    raise SystemExit(f"fleet: windows were not filled within {LONGEST_FILL} s")
                time.sleep(1)  # a scrape takes time too
            fill_seconds = time.time() - started
            busy, observed, longest = asyncio.run(measured(platform, load, seconds, 2))
            memory = psutil.Process(platform.processes["prediction"].popen.pid).memory_info().rss
            late = platform.metric("prediction", 'prediction_fleet_filled_total{reason="late"}')
        finally:
            platform.stop()
    rates = {each: busy.cpu[each] / busy.seconds - idle.cpu.get(each, 0.0) / idle.seconds for each in busy.cpu}
    per_machine = sum(rates.values()) * busy.seconds / max(1.0, busy.scored)
    ages, alarms = sorted(observed.ages), sorted(observed.alarms)
    report(
        "fleet",
        {
            "scoring_cpu_ms_per_machine": Goal(1e3 * per_machine, 0.2, at_most=True),
            "risk_age_p99_seconds": Goal(centile(ages, 0.99), 5, at_most=True),
            "alarm_p99_seconds": Goal(centile(alarms, 0.99), 2, at_most=True),
            "scorer_mb": Goal(memory / 1e6, 300, at_most=True),
        },
        {
            "machines": machines,
            "sensors": len(sensors),
            "scored_per_second": busy.scored / busy.seconds,
            "cpu_share_with_scoring": {each: value / busy.seconds for each, value in busy.cpu.items()},
            "cpu_share_without": {each: value / idle.seconds for each, value in idle.cpu.items()},
            "risk_age_seconds": {"p50": centile(ages, 0.5), "p95": centile(ages, 0.95), "samples": len(ages)},
            "alarm_seconds": {**spread(alarms), "p95": centile(alarms, 0.95)} if alarms else {},
            "longest_acknowledgement_seconds": longest,
            "fill_seconds": fill_seconds,
            "filled_again": late,
            "protocol": "one reading per series and second, batches of 2,000 series, stored by SQLite; the CPU of "
            "scoring is the difference to the same load without the prediction service",
        },
    )


def centile(values: Sequence[float], share: float) -> float:
    """The value below which this share of sorted values is; 999 without any."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 999.0


if __name__ == "__main__":
    main()
