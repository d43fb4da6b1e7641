"""Batches for the benchmarks of ingestion, made beforehand, and senders of them."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np
from tests.support.platform import Platform

from aurum.readings.batch import Batch, Series, now_us
from aurum.v1 import columns_pb2, ingestion_pb2


@contextlib.contextmanager
def running(*services: str, **settings: str) -> Iterator[Platform]:
    """Services in a folder of their own."""
    with TemporaryDirectory() as folder:
        platform = Platform(Path(folder))
        platform.extra = settings
        try:
            for service in services:
                platform.start(service)
            yield platform
        finally:
            platform.stop()


def batches(
    source: str, count: int, *, prefix: str = "m", machines: int = 5, sensors: int = 10, readings: int = 100
) -> list[Batch]:
    """Random walks at 1 kHz. prefix: of the machines' names. readings: of each series in a batch."""
    start = now_us() - 3_600_000_000
    names = [f"{prefix}-{number}" for number in range(machines)]
    made = []
    for sequence in range(1, count + 1):
        rng = np.random.default_rng(sequence)
        at = start + (sequence * readings + np.arange(readings)) * 1000
        series = [
            Series(machine, f"s-{sensor}", at, np.cumsum(rng.standard_normal(readings)))
            for machine in names
            for sensor in range(sensors)
        ]
        made.append(Batch.from_series(source, sequence, series))
    return made


@dataclass
class Sent:
    """seconds: until the last was acknowledged. latencies: of each batch, in seconds."""

    readings: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.readings / self.seconds

    @property
    def p99_ms(self) -> float:
        return statistics.quantiles(self.latencies, n=100)[98] * 1e3


async def send(address: str, made: list[Batch], *, pause: float = 0.0, window: int = 8) -> Sent:
    """Streams batches. pause: seconds between two. window: batches that are not acknowledged yet."""
    requests = [columns_pb2.BatchRequest(batch=each.data).SerializeToString() for each in made]
    return await send_requests(address, requests, sum(each.readings for each in made), pause=pause, window=window)


async def send_requests(
    address: str,
    requests: list[bytes],
    readings: int,
    *,
    pause: float = 0.0,
    window: int = 8,
    first: int = 0,
    begin: Callable[[], None] = lambda: None,
) -> Sent:
    """Streams serialized requests.

    Args:
        address: The server.
        requests: The requests.
        readings: The readings in those that are measured.
        pause: See `send`.
        window: See `send`.
        first: How many requests at the beginning of the stream are not measured.
        begin: Called when the measurement begins.
    """
    result = Sent(readings)
    sent_at: list[float] = []
    room = asyncio.Semaphore(window)

    async def feed() -> AsyncIterator[bytes]:
        started = time.perf_counter()
        for number, request in enumerate(requests):
            await room.acquire()
            if pause:
                await asyncio.sleep(max(0.0, started + number * pause - time.perf_counter()))
            sent_at.append(time.perf_counter())
            yield request

    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        call = channel.stream_stream(
            "/aurum.v1.IngestionService/Ingest",
            request_serializer=None,
            response_deserializer=ingestion_pb2.IngestResponse.FromString,
        )
        started = time.perf_counter()
        acknowledged = 0
        async for response in call(feed()):
            now = time.perf_counter()
            if acknowledged < first <= response.acknowledged:
                started = now
                begin()
            for number in range(acknowledged, response.acknowledged):
                if number >= first:
                    result.latencies.append(now - sent_at[number])
                room.release()
            acknowledged = response.acknowledged
        result.seconds = time.perf_counter() - started
    assert acknowledged == len(requests)
    return result
