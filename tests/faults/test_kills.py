"""Nothing acknowledged is lost and nothing is stored twice, whatever is killed: a ledger of the sender is compared."""

import random
import signal

import grpc
import numpy as np
import pytest

from aurum.readings.batch import Series, encode, now_us
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.ledger import Sender, check_ledger, stored
from tests.support.platform import Platform
from tests.support.waiting import wait_for


def test_ingestion_killed_loses_no_acknowledged_reading(platform: Platform) -> None:
    """A SIGKILL of ingestion loses no acknowledged reading and stores none twice."""
    platform.start("ingestion")
    sender = Sender(f"127.0.0.1:{platform.port('ingestion')}", "kill-1")
    chance = random.Random(1)
    for _ in range(5):
        sender.send(chance.uniform(0.3, 0.8))
        platform.processes["ingestion"].kill(signal.SIGKILL)
        platform.restart("ingestion")
    sender.send(0.5)
    assert platform.processes["ingestion"].kill(signal.SIGTERM) == 0
    assert sender.next > 100
    check_ledger(sender, stored(platform.folder / "store.db", "kill-1"))


def test_edge_and_ingestion_killed_lose_no_reading(platform: Platform) -> None:
    """SIGKILLs of edge and ingestion lose no reading the gateway acknowledged; none is stored twice."""
    platform.start("ingestion")
    platform.start("edge")
    sender = Sender(f"127.0.0.1:{platform.port('edge')}", "kill-2")
    for victim in ("edge", "ingestion", "edge", "ingestion"):
        sender.send(0.5)
        platform.processes[victim].kill(signal.SIGKILL)
        if victim == "ingestion":
            sender.send(0.4)  # the gateway goes on without it
        platform.restart(victim)
    sender.send(0.3)
    wait_for(lambda: b"\nedge_spool_batches 0.0" in platform.admin("edge", "/metrics").body, 30, "the spool is empty")
    assert platform.processes["ingestion"].kill(signal.SIGTERM) == 0
    assert sender.next > 100
    check_ledger(sender, stored(platform.folder / "store.db", "kill-2"))


def test_gateway_waits_until_spool_is_released(platform: Platform) -> None:
    """A second gateway on the same spool waits for the first to end, and no reading is lost."""
    platform.start("ingestion")
    before = platform.start("edge")
    sender = Sender(f"127.0.0.1:{platform.port('edge')}", "kill-3")
    sender.send(0.5)
    for name in ("edge", "edge admin"):
        del platform.ports[name]
    after = platform.start("edge", ready=False)
    sender.send(1.0)
    wait_for(lambda: any("in use by another process; waiting" in line for line in after.lines()), 10, "it waits")
    assert before.popen.poll() is None
    before.kill(signal.SIGKILL)
    wait_for(lambda: platform.is_ready("edge"), 20, "the successor takes over")
    sender.address = f"127.0.0.1:{platform.port('edge')}"
    sender.send(0.5)
    wait_for(lambda: b"\nedge_spool_batches 0.0" in platform.admin("edge", "/metrics").body, 30, "the spool is empty")
    assert b'edge_spool_dropped_total{reason="damaged"} 0.0' in platform.admin("edge", "/metrics").body
    assert platform.processes["ingestion"].kill(signal.SIGTERM) == 0
    check_ledger(sender, stored(platform.folder / "store.db", "kill-3"))


def test_full_spool_rejects_writes_until_drained(platform: Platform) -> None:
    """A full spool rejects writes until it has drained, and loses nothing that it accepted."""
    platform.extra["AURUM_EDGE_SPOOL_MAX_BYTES"] = "1000000"
    platform.extra["AURUM_CIRCUIT_BREAKER_TIMEOUT"] = "0.5"
    platform.start("edge")  # and no ingestion
    values = np.random.default_rng(1).random(5000)
    at = np.arange(5000) + now_us() - 10**7
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('edge')}") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)

        def write(sequence: int) -> None:
            batch = encode("full", sequence, [Series("full", "s", at + sequence * 10_000, values)])
            stub.Write(ingestion_pb2.WriteRequest(batch=batch), timeout=10)

        accepted = 0

        def fill() -> None:
            nonlocal accepted
            for sequence in range(1, 100):
                write(sequence)
                accepted = sequence

        with pytest.raises(grpc.RpcError) as caught:
            fill()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "spool is full" in caught.value.details()
        assert 5 < accepted < 40
        platform.start("ingestion")
        wait_for(lambda: b"\nedge_spool_batches 0.0" in platform.admin("edge", "/metrics").body, 30, "the spool drains")
        write(accepted + 1)
    wait_for(lambda: b"\nedge_spool_batches 0.0" in platform.admin("edge", "/metrics").body, 30, "the spool drains")
    platform.processes["ingestion"].kill(signal.SIGTERM)
    assert len(stored(platform.folder / "store.db", "s")) == (accepted + 1) * 5000
