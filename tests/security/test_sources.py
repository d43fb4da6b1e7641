"""One source that sends without end has its share; another notices nothing."""

import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.platform import Platform

RATE, BURST = 1000, 2000  # readings


@pytest.fixture(scope="module")
def ingestion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ingestion_pb2_grpc.IngestionServiceStub]:
    running = Platform(
        tmp_path_factory.mktemp("sources"),
        extra={"AURUM_INGESTION_SOURCE_RATE": str(RATE), "AURUM_INGESTION_SOURCE_BURST": str(BURST)},
    )
    running.start("ingestion")
    with grpc.insecure_channel(f"127.0.0.1:{running.port('ingestion')}") as channel:
        yield ingestion_pb2_grpc.IngestionServiceStub(channel)
    running.stop()


def batch(source: str, sequence: int, readings: int) -> ingestion_pb2.Batch:
    times = np.arange(readings, dtype=np.int64) + time.time_ns() // 1000 + sequence * readings
    return encode(source, sequence, [Series(f"m-{source}", "s", times, np.ones(readings))])


def test_rate_limit_rejects_one_source_and_serves_another(
    ingestion: ingestion_pb2_grpc.IngestionServiceStub,
) -> None:
    """A source that writes above its rate is rejected, and another one is accepted."""
    refused = None
    for sequence in range(1, 9):
        try:
            ingestion.Write(ingestion_pb2.WriteRequest(batch=batch("loud", sequence, 500)), timeout=5)
        except grpc.RpcError as error:
            refused = error
            break
    assert refused is not None
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "AURUM_INGESTION_SOURCE_RATE" in refused.details()
    ingestion.Write(ingestion_pb2.WriteRequest(batch=batch("quiet", 1, 500)), timeout=5)


def test_stream_above_its_rate_is_slowed_without_loss(ingestion: ingestion_pb2_grpc.IngestionServiceStub) -> None:
    """A stream above its rate is slowed down, and all of its batches are acknowledged."""
    requests = [ingestion_pb2.IngestRequest(batch=batch("stream", sequence, 500)) for sequence in range(1, 11)]
    started = time.monotonic()
    responses = list(ingestion.Ingest(iter(requests), timeout=60))
    assert responses[-1].acknowledged == 10
    assert time.monotonic() - started >= (10 * 500 - BURST) / RATE - 0.5
