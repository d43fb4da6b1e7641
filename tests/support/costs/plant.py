"""A plant of a given size, so that the largest request of each route and RPC has something to answer with."""

import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from aurum.alarms.rules import load_rules
from aurum.readings.batch import MAX_READINGS, MAX_SERIES, Series, encode
from aurum.runtime.time_units import DAY_US
from aurum.security.api_keys import KeyFile, make_key, write_keys
from aurum.sustainability.plan import DEFAULT_PLAN
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2
from tests.support.costs.meter import MB, start_measured
from tests.support.http import Answer, http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

SITE = "costs"  # of the machines with meters
LONG, BROAD = "long-0", "broad"  # machines: with many readings, with many sensors
STEP_US = 1_200_000_000  # between two readings of a meter, the longest gap that is integrated
FEW = 16  # readings of each sensor of a machine that has many sensors
RULES = 10  # alarm rules, each of which is broken by every machine
MOST_ALARMS = 20_000  # that the API keeps
SERVICES = ("ingestion", "prediction", "edge", "api")
TARIFF = (
    "{currency: EUR, fixed_per_day: 1, demand_per_kw: 9, prices: [{name: night, per_kwh: 0.2, hours: [22:00-06:00]}, "
    "{name: day, per_kwh: 0.3}]}"
)
_sequences = itertools.count(1)


@dataclass(frozen=True)
class Size:
    """Size of a plant and of the requests that a caller makes of it.

    Attributes:
        machines: Machines without a type, and as many that have meters.
        sensors: Sensors of each machine without a type.
        broadest: Sensors of one more machine.
        readings: Readings of each sensor of a long machine.
        long: Long machines, with eight sensors each.
        days: Days for which the meters have readings.
        events: Events of each kind.
        versions: Versions of the model.
        at_once: Callers at a time.
    """

    machines: int
    sensors: int
    broadest: int
    readings: int
    long: int
    days: int
    events: int
    versions: int
    at_once: int


@dataclass
class CostPlant:
    """A running plant. Each service can be measured."""

    platform: Platform
    size: Size
    key: str
    started_us: int
    channels: dict[str, grpc.Channel] = field(default_factory=dict)

    def channel(self, service: str) -> grpc.Channel:
        if service not in self.channels:
            sizes = [(f"grpc.max_{way}_message_length", 64 * MB) for way in ("send", "receive")]
            self.channels[service] = grpc.insecure_channel(f"127.0.0.1:{self.platform.port(service)}", options=sizes)
        return self.channels[service]

    def http(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        return http(method, f"{self.platform.api}{path}", body, {"X-API-Key": self.key, **(headers or {})}, 120)

    def wide(self, count: int) -> list[str]:
        """Ids of machines without a type."""
        return [_wide(number) for number in range(min(count, self.size.machines))]

    @property
    def long(self) -> list[str]:
        return [f"long-{number}" for number in range(self.size.long)]


@contextlib.contextmanager
def cost_plant(folder: Path, size: Size, models: Path) -> Iterator[CostPlant]:
    """Starts all services and fills them."""
    key, record = make_key("costs", ("admin",))
    write_keys(folder / "keys.yaml", KeyFile(keys=(record,)))
    rules = [
        f"  - {{name: silent_{number}, text: Nothing comes, priority: low, stale: {{after_seconds: 1}}}}"
        for number in range(RULES)
    ]
    (folder / "rules.yaml").write_text("\n".join(["rules:", *rules, ""]))
    load_rules(folder / "rules.yaml")
    plan = DEFAULT_PLAN.read_text()
    assert "{zone: WORLD}" in plan
    (folder / "plan.yaml").write_text(plan.replace("{zone: WORLD}", f"{{zone: WORLD, tariffs: [{TARIFF}]}}"))
    platform = Platform(
        folder,
        extra={
            "AURUM_SUSTAINABILITY_PLAN": str(folder / "plan.yaml"),
            "AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"),
            "AURUM_ALARM_RULES": str(folder / "rules.yaml"),
            "AURUM_FAULTS_ENABLED": "true",
            # CPU time is what counts: on a busy machine everything may take long
            "AURUM_TIMEOUT_READ": "60",
            "AURUM_TIMEOUT_DB": "60",
            "AURUM_FEATURE_WATER": "true",
            "AURUM_MODEL_DIR": str(models),
        },
    )
    plant = CostPlant(platform, size, key, time.time_ns() // 1000 - DAY_US)
    try:
        for service in SERVICES:
            start_measured(platform, service)
        _fill(plant)
        yield plant
    finally:
        for channel in plant.channels.values():
            channel.close()
        platform.stop()


def write(plant: CostPlant, source: str, series: list[Series]) -> None:
    stub = ingestion_pb2_grpc.IngestionServiceStub(plant.channel("ingestion"))
    request = ingestion_pb2.WriteRequest(batch=encode(source, next(_sequences), series))

    def stored() -> bool:
        try:
            stub.Write(request, timeout=60)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:  # the tables are behind
                return False
            raise
        return True

    wait_for(stored, 60, "the batch is stored")


def _wide(number: int) -> str:
    return f"m-{number:04}"


def _fill(plant: CostPlant) -> None:
    size, start = plant.size, plant.started_us
    few = start + np.arange(FEW, dtype=np.int64) * 1_000_000, np.random.default_rng(0).random(FEW)
    at = start + np.arange(size.readings, dtype=np.int64) * 30_000
    stub = ingestion_pb2_grpc.IngestionServiceStub(plant.channel("ingestion"))
    metered = [f"pump-{number:04}" for number in range(size.machines)]
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda machine: _register(stub, machine, SITE), metered))
        list(callers.map(lambda machine: _register(stub, machine, "other"), plant.long))
    for machine in plant.long:
        for sensor in range(8):
            values = np.random.default_rng(sensor).random(len(at))
            write(plant, f"{machine}-{sensor}", [Series(machine, f"s{sensor}", at, values)])
    names = [f"{'s' * 36}{number:04}" for number in range(max(size.sensors, size.broadest))]
    write(plant, BROAD, [Series(BROAD, name, *few) for name in names[: size.broadest]])
    part = max(1, min(MAX_SERIES, MAX_READINGS // FEW) // size.sensors)
    for first in range(0, size.machines, part):
        machines = range(first, min(first + part, size.machines))
        write(plant, "wide", [Series(_wide(n), name, *few) for n in machines for name in names[: size.sensors]])
    _write_meters(plant, metered)
    _events(plant, stub)
    _leave_a_trace(plant)
    alarms = min(MOST_ALARMS, RULES * (2 * size.machines + size.long + 1))
    live = [(machine, "s0") for machine in plant.long] + [(machine, "flow_m3_h") for machine in metered]
    live += [(machine, names[0]) for machine in (BROAD, *map(_wide, range(size.machines)))]
    sent_at = -math.inf

    def alarmed() -> bool:
        """Only machines that have been live become silent. A scorer that is behind may miss a reading."""
        nonlocal sent_at
        if time.monotonic() - sent_at > 20:
            now = np.array([time.time_ns() // 1000]), np.zeros(1)
            write(plant, "live", [Series(machine, sensor, *now) for machine, sensor in live])
            sent_at = time.monotonic()
        return _counts(plant) >= alarms

    wait_for(alarmed, 120, "every machine has its alarms")


def _register(stub: ingestion_pb2_grpc.IngestionServiceStub, machine: str, site: str) -> None:
    request = ingestion_pb2.RegisterMachineRequest(machine_id=machine, machine_type="pump", site=site)
    stub.RegisterMachine(request, timeout=20)


def _write_meters(plant: CostPlant, machines: list[str]) -> None:
    end = time.time_ns() // 1000
    at = np.arange(end - plant.size.days * DAY_US, end, STEP_US, dtype=np.int64)
    values = np.random.default_rng(1).random(len(at))
    sensors = ("power_kw", "water_l_h", "flow_m3_h")
    part = max(1, 200_000 // (len(sensors) * len(at)))
    for first in range(0, len(machines), part):
        write(
            plant,
            "meters",
            [Series(machine, sensor, at, values) for machine in machines[first : first + part] for sensor in sensors],
        )


def _events(plant: CostPlant, stub: ingestion_pb2_grpc.IngestionServiceStub) -> None:
    prediction = prediction_pb2.PredictResponse(machine_id=LONG, degraded_reason="x" * 200)
    prediction.rul.quantiles.extend(float(number) for number in range(19))
    note = b'{"text": "%s", "by": "%s"}' % (b"t" * 500, b"b" * 100)
    for kind, content in (("prediction", prediction.SerializeToString()), ("maintenance", note)):
        events = [
            ingestion_pb2.Event(
                kind=kind, machine_id=LONG, at_us=plant.started_us + number, id=f"{number}", content=content
            )
            for number in range(plant.size.events)
        ]
        stub.RecordEvents(ingestion_pb2.RecordEventsRequest(events=events), timeout=60)


def _leave_a_trace(plant: CostPlant) -> None:
    """Makes a request that takes long enough for its trace to be kept."""
    faults, delay = "/api/platform/faults/ingestion", b'{"kind": "delay", "method": "GetMachine", "delay": "700ms"}'
    plant.http("POST", faults, delay)
    plant.http("GET", f"/api/machines/{LONG}")
    plant.http("DELETE", faults)
    wait_for(lambda: plant.http("GET", "/api/platform/traces").json["items"], 20, "the trace is kept")


def _counts(plant: CostPlant) -> int:
    answer = plant.http("GET", "/api/alarms?limit=1")
    return sum(answer.json["counts"].values()) if answer.status == 200 else 0
