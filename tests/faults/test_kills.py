"""Nothing acknowledged is lost and nothing is stored twice, whatever is killed: a ledger of the sender is compared."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from aurum.readings.batch import Series, encode, now_us
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from aurum_sim.machine_types import MACHINE_TYPES
from tests.support.http import http
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


def test_killed_prediction_degrades_until_restarted(platform: Platform, models: Path) -> None:
    """While prediction is down answers are degraded and the breaker opens; a restart ends both."""
    platform.extra = {"AURUM_MODEL_DIR": str(models), "AURUM_CIRCUIT_BREAKER_TIMEOUT": "1"}
    for service in ("ingestion", "prediction", "api"):
        platform.start(service)
    rows = [
        {"machine_id": "m-1", "sensor": "x", "timestamp": time.time() - index, "value": float(index % 5)}
        for index in range(40)
    ]
    assert http("POST", f"{platform.api}/api/readings", {"readings": rows}).status == 200
    ask = lambda: http("POST", f"{platform.api}/api/predict", {"machine_id": "m-1"})  # noqa: E731
    wait_for(lambda: ask().status == 200, 15, "a prediction")
    listed = lambda: http("GET", f"{platform.api}/api/machines").json["items"]  # noqa: E731
    wait_for(lambda: listed()[0]["risk_score"] is not None, 15, "the prediction is in the list")
    platform.processes["prediction"].kill(signal.SIGKILL)
    answer = ask()
    assert answer.status == 200
    assert "stands in" in answer.json["degraded_reason"]
    wait_for(
        lambda: ask() and b'circuit_breaker_state{name="api/prediction"} 1.0' in platform.admin("api", "/metrics").body,
        20,
        "the breaker opens",
    )
    assert http("POST", f"{platform.api}/api/predict", {"machine_id": "unknown"}).status == 404
    platform.restart("prediction")
    wait_for(lambda: "stands in" not in (ask().json["degraded_reason"] or ""), 20, "predictions are fresh again")
    wait_for(
        lambda: b'circuit_breaker_state{name="api/prediction"} 0.0' in platform.admin("api", "/metrics").body,
        20,
        "the breaker closes",
    )


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc to find the processes that the supervisor started")
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended in the meantime
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


def test_supervisor_restarts_killed_service(platform: Platform, models: Path) -> None:
    """The supervisor restarts a killed service, and stops every process on SIGINT."""
    environment = platform.environment("ingestion")
    for name in MACHINE_TYPES:  # a model for each, so that nothing has to be trained
        shutil.copytree(models / "pump", platform.folder / "models" / name)
    procfile = platform.folder / "Procfile"
    procfile.write_text("ingestion: aurum ingestion\n")
    with (platform.folder / "up.log").open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, "-m", "aurum.cli", "up", "--procfile", str(procfile)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    shown = (platform.folder / "up.log").read_text
    try:
        wait_for(lambda: "AurumAI runs at" in shown() or up.poll() is not None, 60, "the platform runs")
        (first,) = children(up.pid)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: "was killed by SIGKILL; it is started again" in shown(), 15, "the kill is seen")
        sender = Sender(f"127.0.0.1:{platform.port('ingestion')}", "after")

        def acknowledged() -> bool:
            sender.send(0.5)
            return sender.next > 1

        wait_for(acknowledged, 30, "the service that was started again acknowledges")
        up.send_signal(signal.SIGINT)
        assert up.wait(20) == 0
        assert "has stopped" in shown()
        assert not children(up.pid)
    finally:
        if up.poll() is None:
            up.terminate()
            up.wait(20)
