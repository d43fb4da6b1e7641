"""The largest request that each route allows: what it costs the API in memory, and everybody else in waiting."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

MB = 1_000_000
PEAK = 200 * MB  # above idle: 100 for each of two at a time
PAUSE = 1.0  # seconds that a probe may take, on a machine with nothing to spare
START = time.time_ns() // 1000 - 3_600_000_000


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, psutil.Process]]:
    """A machine with eight sensors of 120,000 readings each, and a thousand machines with a hundred sensors each."""
    running = Platform(tmp_path_factory.mktemp("costs"), extra={"AURUM_FEATURE_PREDICTIVE": "false"})
    running.start("ingestion")
    api = running.start("api")
    with grpc.insecure_channel(
        f"127.0.0.1:{running.port('ingestion')}", options=[("grpc.max_send_message_length", 64 * MB)]
    ) as channel:
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
    yield running, psutil.Process(api.popen.pid)
    running.stop()


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
    """Memory of a process, and how long a probe takes, while a block runs."""

    def __init__(self, platform: Platform, process: psutil.Process) -> None:
        self._platform, self._process = platform, process
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._memory, self._probe)]
        self.idle = process.memory_info().rss
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
            http("GET", f"{self._platform.api}/livez")
            self.slowest = max(self.slowest, time.monotonic() - started)


@pytest.mark.proof("costs")
@pytest.mark.parametrize("what", REQUESTS)
def test_largest_request_is_bounded(wide: tuple[Platform, psutil.Process], what: str) -> None:
    """The largest request of a route, made four times, two at once, costs bounded memory and stops nobody else."""
    platform, process = wide
    method, path, body, headers, expected = REQUESTS[what]
    content = body() if body else None
    with Watch(platform, process) as watch, ThreadPoolExecutor(2) as callers:
        answers = list(callers.map(lambda _: http(method, f"{platform.api}{path}", content, headers, 120), range(4)))
    assert {answer.status for answer in answers} <= expected | {429}
    assert expected & {answer.status for answer in answers}
    assert watch.peak - watch.idle < PEAK, f"{(watch.peak - watch.idle) // MB} MB above idle"
    assert watch.slowest < PAUSE, f"a probe took {watch.slowest:.2f} s"
