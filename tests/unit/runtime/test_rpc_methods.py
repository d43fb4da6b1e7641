"""Servers, clients and pages take streams and criticality of methods from the options in the contracts."""

import asyncio
import subprocess
import sys
from importlib import resources
from pathlib import Path

import grpc
import pytest
from charts.telemetry.selectors import ANSWERED
from google.protobuf import descriptor_pb2

from aurum.resilience import Criticality
from aurum.runtime.errors import ResourceExhaustedError
from aurum.runtime.policy.call_catalog import calls_reference
from aurum.runtime.rpc_methods import METHODS, method_of
from aurum.v1 import ingestion_pb2
from tests.support.scripted_server import Bench, bench
from tests.support.waiting import until

PROTO = Path(__file__).parents[3] / "proto"
SHARES = (
    "servers: [{server: server, admission: {maxConcurrent: 2, maxQueued: 0, "
    "shares: {alarm: 1, telemetry: 1, query: 0.5, batch: 0.5}}}]"
)


def test_methods_have_the_options_of_their_contract() -> None:
    named = {method.short_name: method for method in METHODS.values()}
    assert {name for name, each in named.items() if each.endless} == {"Ingest", "Watch", "Follow"}
    assert {name for name, each in named.items() if each.client_streaming} == {"Ingest", "PredictBatch"}
    assert {name for name, each in named.items() if each.server_streaming} == {
        "Ingest",
        "PredictBatch",
        "Query",
        "Integrate",
        "Watch",
        "Follow",
    }
    classes = {name: each.criticality for name, each in named.items() if each.criticality is not Criticality.QUERY}
    assert classes == {
        "Ingest": Criticality.TELEMETRY,
        "Write": Criticality.TELEMETRY,
        "RegisterMachine": Criticality.TELEMETRY,
        "PublishPredictions": Criticality.ALARM,
        "PredictBatch": Criticality.BATCH,
    }


def test_method_of_another_contract_has_no_options() -> None:
    method = method_of("/grpc.health.v1.Health/Watch")
    assert not method.endless
    assert method.criticality is Criticality.QUERY


def test_selector_of_answered_calls_excludes_endless_streams() -> None:
    assert ANSWERED == 'method!~".+/(Ingest|Watch|Follow)"'


def test_call_reference_shows_streams_and_classes() -> None:
    page = calls_reference()
    assert "| `aurum.v1.IngestionService/Ingest` | both ways, endless | telemetry |" in page
    assert "| `aurum.v1.IngestionService/Query` | of the server | query |" in page
    assert "| `aurum.v1.PredictionService/Predict` | no | query |" in page
    assert "| `edge-sim`, `iot-sim` | `edge` |" in page
    assert "| `api` | `emission-factors`, `oidc` | `GET` |" in page


def test_contracts_compile_with_plain_protoc(tmp_path: Path) -> None:
    """Other languages need protoc and the contracts alone; the options are in the descriptors that it writes."""
    out = tmp_path / "contracts.bin"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={PROTO}",
            f"--proto_path={resources.files('grpc_tools') / '_proto'}",
            f"--descriptor_set_out={out}",
            "--include_imports",
            *map(str, sorted(PROTO.rglob("*.proto"))),
        ],
        check=True,
        timeout=60,
    )
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    assert {"aurum/v1/options.proto", "google/protobuf/descriptor.proto"} <= {file.name for file in files}


async def hold(running: Bench) -> tuple[asyncio.Task[ingestion_pb2.GetMachineResponse], asyncio.Event]:
    """Keeps a query in progress until the event is set."""
    release = asyncio.Event()
    running.server.behaviour = lambda number, context: release.wait()
    held = asyncio.create_task(running.get())
    await until(lambda: running.server.now == 1)
    return held, release


async def test_admission_uses_the_class_of_the_method(tmp_path: Path) -> None:
    """Registrations are telemetry without any metadata, so they get a place that queries do not."""
    async with bench(tmp_path, SHARES) as running:
        held, release = await hold(running)
        with pytest.raises(ResourceExhaustedError):
            await running.get()
        registering = asyncio.create_task(running.register())
        await until(lambda: running.server.now == 2)
        release.set()
        await asyncio.gather(held, registering)


async def test_endless_streams_take_no_place_of_calls(tmp_path: Path) -> None:
    async with bench(tmp_path, SHARES) as running:
        streams = [running.stub.Watch(ingestion_pb2.WatchRequest()) for _ in range(4)]
        for stream in streams:
            assert await stream.read() is not grpc.aio.EOF
        assert running.server_policies.admission().in_flight == 0
        await running.get()
        for stream in streams:
            stream.cancel()
