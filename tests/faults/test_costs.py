"""The largest request of each route and RPC: what it costs its service in memory, and others in waiting."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

MB = 1_000_000
PEAK = 200 * MB  # above idle: 100 for each of two at a time
PAUSE = 1.0  # seconds that a probe may take, on a machine with nothing to spare
START = time.time_ns() // 1000 - 3_600_000_000


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A machine with eight sensors of 120,000 readings each, and a thousand machines with a hundred sensors each."""
    running = Platform(tmp_path_factory.mktemp("costs"), extra={"AURUM_FEATURE_PREDICTIVE": "false"})
    for service in ("ingestion", "prediction", "api"):
        running.start(service)
    with _channel(running, "ingestion") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        at = START + np.arange(120_000, dtype=np.int64) * 30_000
        for sensor in range(8):
            values = np.random.default_rng(sensor).random(len(at))
            batch = encode(f"long-{sensor}", 1, [Series("long", f"s{sensor}", at, values)])
            stub.Write(ingestion_pb2.WriteRequest(batch=batch), timeout=60)
        one = np.array([START], np.int64), np.array([1.0])
        for part in range(10):
            series = [Series(f"m-{part}-{n:02}", f"{'s' * 40}{k:02}", *one) for n in range(100) for k in range(100)]
            stub.Write(ingestion_pb2.WriteRequest(batch=encode(f"wide-{part}", 1, series)), timeout=60)
    count = f"{running.api}/api/machines?limit=1000"
    wait_for(lambda: len(http("GET", count).json["items"]) == 1000, 60, "the machines are there")
    yield running
    running.stop()


def _channel(platform: Platform, service: str) -> grpc.Channel:
    sizes = [(f"grpc.max_{way}_message_length", 64 * MB) for way in ("send", "receive")]
    return grpc.insecure_channel(f"127.0.0.1:{platform.port(service)}", options=sizes)


def json_body() -> bytes:
    one = b'{"machine_id":"cost","sensor":"s","timestamp":1700000000,"value":1.5}'
    return b'{"readings":[' + b",".join([one] * 200_000) + b"]}"


def csv_body() -> bytes:
    return b"machine_id,timestamp,sensor,value\n" + b"cost,1700000000,s,1.5\n" * 200_000


REQUESTS: dict[str, tuple[str, str, Any, dict[str, str], set[int]]] = {
    "JSON of readings": ("POST", "/api/readings", json_body, {"Content-Type": "application/json"}, {200}),
    "CSV of readings": ("POST", "/api/readings", csv_body, {"Content-Type": "text/csv"}, {200}),
    "every reading": ("GET", "/api/machines/long/metrics?points=0", None, {}, {200}),
    "most points": ("GET", "/api/machines/long/metrics?points=10000", None, {}, {200}),
    "most machines": ("GET", "/api/machines?limit=1000", None, {}, {200}),
    "longest journal": ("GET", "/api/alarms/journal?limit=1000", None, {}, {200}),
    "every alarm": ("GET", "/api/alarms?limit=1000", None, {}, {200}),
    "long path": ("GET", f"/api/machines/{'a' * 60_000}", None, {}, {404}),
    "unknown route": ("GET", f"/nothing/{'a' * 60_000}", None, {}, {404}),
}


class Watch:
    """Memory of a service, and how long a probe of its event loop takes, while a block runs."""

    def __init__(self, platform: Platform, service: str) -> None:
        self._platform, self._service = platform, service
        self._process = psutil.Process(platform.processes[service].popen.pid)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._memory, self._probe)]
        self.idle = self._process.memory_info().rss
        self.peak, self.slowest = self.idle, 0.0

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _memory(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def _probe(self) -> None:
        while not self._stop.wait(0.05):
            started = time.monotonic()
            self._platform.admin(self._service, "/livez")
            self.slowest = max(self.slowest, time.monotonic() - started)


def check(watch: Watch) -> None:
    assert watch.peak - watch.idle < PEAK, f"{(watch.peak - watch.idle) // MB} MB above idle"
    assert watch.slowest < PAUSE, f"a probe took {watch.slowest:.2f} s"


@pytest.mark.proof("costs")
@pytest.mark.parametrize("what", REQUESTS)
def test_largest_request_is_bounded(wide: Platform, what: str) -> None:
    """The largest request of a route, made four times, two at once, costs bounded memory and stops nobody else."""
    method, path, body, headers, expected = REQUESTS[what]
    content = body() if body else None
    with Watch(wide, "api") as watch, ThreadPoolExecutor(2) as callers:
        answers = list(callers.map(lambda _: http(method, f"{wide.api}{path}", content, headers, 120), range(4)))
    assert {answer.status for answer in answers} <= expected | {429}
    assert expected & {answer.status for answer in answers}
    check(watch)


def long_batch(number: int) -> ingestion_pb2.Batch:
    at = START + np.arange(200_000, dtype=np.int64)
    return encode(f"cost-long-{number}", 1, [Series("cost", "s", at, np.random.default_rng(number).random(len(at)))])


def wide_batch(number: int) -> ingestion_pb2.Batch:
    one = np.array([START], np.int64), np.array([1.0])
    return encode(
        f"cost-wide-{number}", 1, [Series(f"w{n:03}", f"s{k:02}", *one) for n in range(400) for k in range(50)]
    )


def machines(stub: ingestion_pb2_grpc.IngestionServiceStub, _: int) -> Iterator[Any]:
    """Every page of machines with their sensors."""
    token = ""
    while True:
        page = stub.ListMachines(ingestion_pb2.ListMachinesRequest(page_size=1000, page_token=token), timeout=60)
        yield page
        if not (token := page.next_page_token):
            return


def everything_watched(stub: ingestion_pb2_grpc.IngestionServiceStub, _: int) -> Iterator[Any]:
    """The first answers of a stream of all machines, until each machine was in one."""
    stream = stub.Watch(ingestion_pb2.WatchRequest(interval_ms=1000), timeout=60)
    seen: set[str] = set()
    for answer in stream:
        seen |= {machine.machine_id for machine in answer.machines}
        yield answer
        if len(seen) > 1000:
            stream.cancel()
            return


def events(stub: ingestion_pb2_grpc.IngestionServiceStub, number: int) -> Iterator[Any]:
    """As many events as one request may have, each as large as that allows, and the question for them."""
    kept = [
        ingestion_pb2.Event(kind="cost", machine_id="cost", at_us=START + n, id=f"{number}-{n}", content=b"x" * 10_000)
        for n in range(100)
    ]
    yield stub.RecordEvents(ingestion_pb2.RecordEventsRequest(events=kept), timeout=60)
    yield stub.ListEvents(ingestion_pb2.ListEventsRequest(kind="cost", machine_id="cost", limit=1000), timeout=60)


def query(**asked: Any) -> Callable[[ingestion_pb2_grpc.IngestionServiceStub, int], Iterator[Any]]:
    return lambda stub, _: stub.Query(ingestion_pb2.QueryRequest(**asked), timeout=120)


def predictions(stub: prediction_pb2_grpc.PredictionServiceStub, _: int) -> Iterator[Any]:
    """A batch of machines with a hundred sensors each; all that are allowed take longer than callers wait."""
    asked = [prediction_pb2.PredictRequest(machine_id=f"m-{n // 100}-{n % 100:02}") for n in range(100)]
    return stub.PredictBatch(iter([prediction_pb2.PredictBatchRequest(requests=asked)]), timeout=120)


Calls = Callable[[Any, int], Iterator[Any]]
RPCS: dict[str, tuple[str, Calls]] = {
    "longest batch": (
        "ingestion",
        lambda stub, n: iter([stub.Write(ingestion_pb2.WriteRequest(batch=long_batch(n)), timeout=60)]),
    ),
    "widest batch": (
        "ingestion",
        lambda stub, n: iter([stub.Write(ingestion_pb2.WriteRequest(batch=wide_batch(n)), timeout=60)]),
    ),
    "every reading of a machine": ("ingestion", query(machine_ids=["long"])),
    "most points": ("ingestion", query(machine_ids=["long"], points=10_000)),
    "last readings of most series": (
        "ingestion",
        query(machine_ids=[f"m-{n // 100}-{n % 100:02}" for n in range(200)], last=256),
    ),
    "every machine": ("ingestion", machines),
    "every machine watched": ("ingestion", everything_watched),
    "most events": ("ingestion", events),
    "large batch of predictions": ("prediction", predictions),
}
STUBS = {
    "ingestion": ingestion_pb2_grpc.IngestionServiceStub,
    "prediction": prediction_pb2_grpc.PredictionServiceStub,
}


@pytest.mark.proof("costs")
@pytest.mark.parametrize("what", RPCS)
def test_largest_rpc_is_bounded(wide: Platform, what: str) -> None:
    """The largest request of an RPC, made four times, two at once, costs bounded memory and stops nobody else."""
    service, calls = RPCS[what]

    def outcome(number: int) -> str:
        try:
            return "OK" if sum(1 for _ in calls(stub, number)) else "nothing"
        except grpc.RpcError as error:
            return str(error.code().name)

    with _channel(wide, service) as channel, Watch(wide, service) as watch, ThreadPoolExecutor(2) as callers:
        stub = STUBS[service](channel)
        outcomes = set(callers.map(outcome, range(4)))
    assert outcomes <= {"OK", "RESOURCE_EXHAUSTED"}
    assert "OK" in outcomes
    check(watch)
