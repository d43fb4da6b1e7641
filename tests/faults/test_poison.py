"""Batches that ingestion refuses for good: they become dead letters, and what others send flows on."""

import subprocess
import time
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support import processes
from tests.support.platform import Platform
from tests.support.waiting import wait_for

START = time.time_ns() // 1000 - 600_000_000


def write(platform: Platform, service: str, *series: Series, source: str, sequence: int = 1, owner: str = "") -> None:
    batch = encode(source, sequence, series)
    batch.owner = owner
    with grpc.insecure_channel(f"127.0.0.1:{platform.port(service)}") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        stub.Write(ingestion_pb2.WriteRequest(batch=batch), timeout=10)


def one(machine: str, at: int = 0) -> Series:
    return Series(machine, "s", np.array([START + at], np.int64), np.array([float(at)]))


def stored(platform: Platform, machine: str) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        asked = ingestion_pb2.QueryRequest(machine_ids=[machine], sensors=["s"])
        try:
            answers = list(ingestion_pb2_grpc.IngestionServiceStub(channel).Query(asked, timeout=10))
        except grpc.RpcError:
            return 0
    return sum(len(series.values) for answer in answers for series in answer.series)


def dead_letters(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.run("edge", "dead-letters", *arguments, environment=platform.environment("dead-letters"))


def start_ingestion(platform: Platform, **limits: Any) -> None:
    usual = dict(platform.extra)
    platform.extra |= {f"AURUM_{name.upper()}": str(value) for name, value in limits.items()}
    platform.start("ingestion")
    platform.extra = usual


def reasons(lines: Sequence[str]) -> list[str]:
    return sorted(line.split()[1] for line in lines)


def test_poison_batches_hold_up_nobody(platform: Platform) -> None:
    """Batches that are too large, name too many machines or use another's source are put aside, listed and replayed."""
    platform.extra |= {"AURUM_RETRY_BASE_DELAY": "0.02", "AURUM_RETRY_MAX_DELAY": "0.1"}  # five refusals come quickly
    start_ingestion(platform, ingestion_max_machines=2, rpc_max_message_bytes=1_000_000)
    platform.start("edge")
    write(platform, "ingestion", one("good"), source="taken", owner="site/other")
    large = 150_000
    at = START + np.arange(large, dtype=np.int64)
    poison = [
        (Series("good", "large", at, np.random.default_rng(1).random(large)), "large"),
        (one("new-1"), "crowd-1"),
        (one("new-2"), "crowd-2"),
        (one("good", 99), "taken"),
    ]
    for number, (series, source) in enumerate(poison, start=1):
        write(platform, "edge", one("good", 2 * number), source="device", sequence=2 * number)
        write(platform, "edge", series, source=source, sequence=2)
        write(platform, "edge", one("good", 2 * number + 1), source="device", sequence=2 * number + 1)
    wait_for(lambda: stored(platform, "good") == 9, 30, "what the good device sent is stored")
    # One of the two new machines had room
    wait_for(lambda: platform.metric("edge", "edge_dead_letters_waiting") == 3, 30, "three batches are put aside")
    wait_for(lambda: platform.metric("edge", "edge_spool_batches") == 0, 10, "the spool is empty")
    listed = dead_letters(platform, "list")
    assert reasons(listed.stdout.splitlines()) == ["RESOURCE_EXHAUSTED", "SOURCE_TAKEN", "TOO_MANY_MACHINES"]
    assert "AURUM_INGESTION_MAX_MACHINES" in listed.stdout
    assert "source taken, sequence 2, 1 readings" in listed.stdout

    platform.processes["ingestion"].kill()
    start_ingestion(platform)
    replayed = dead_letters(platform, "replay")
    assert replayed.returncode == 1
    assert f"{large} readings stored" in replayed.stdout
    assert "belongs to another caller" in replayed.stdout
    assert stored(platform, "new-2") == 1
    (left,) = dead_letters(platform, "list").stdout.splitlines()
    assert dead_letters(platform, "delete", left.split()[0]).returncode == 0
    assert "no dead letters" in dead_letters(platform, "list").stdout
    wait_for(lambda: platform.metric("edge", "edge_dead_letters_waiting") == 0, 10, "the gauge follows")


def test_gateway_refuses_batch_too_large_for_ingestion(platform: Platform) -> None:
    """A batch that would be too large for ingestion with what the gateway adds is refused by the gateway."""
    platform.extra["AURUM_RPC_MAX_MESSAGE_BYTES"] = "1000000"
    start_ingestion(platform)
    platform.start("edge")
    count = 62_300
    at = START + np.arange(count, dtype=np.int64)
    with pytest.raises(grpc.RpcError) as refused:
        write(platform, "edge", Series("m", "s", at, np.ones(count)), source="large")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 995904" in refused.value.details()
    write(platform, "edge", Series("m", "s", at[:62_200], np.ones(62_200)), source="fits")
    wait_for(lambda: stored(platform, "m") == 62_200, 20, "the largest that is accepted is stored")


def test_replay_waits_for_ingestion(platform: Platform) -> None:
    """Dead letters stay where they are while ingestion is away."""
    start_ingestion(platform, ingestion_max_machines=1)
    platform.start("edge")
    write(platform, "edge", one("a"), one("b"), source="device")
    wait_for(lambda: platform.metric("edge", "edge_dead_letters_waiting") == 1, 30, "the batch is put aside")
    platform.processes["ingestion"].kill()
    platform.extra |= {"AURUM_TIMEOUT_CONNECT": "0.2", "AURUM_RETRY_MAX_ATTEMPTS": "1"}
    replayed = dead_letters(platform, "replay")
    assert (replayed.returncode, replayed.stdout.splitlines()[-1].split()[0]) == (1, "1")
    start_ingestion(platform)
    assert "2 readings stored" in dead_letters(platform, "replay").stdout
