"""A status that a servicer sends itself is counted, traced and logged under the code that the client receives."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider
from prometheus_client import REGISTRY

import aurum.runtime.grpc.server as server_module
from aurum.runtime.errors import NotFoundError
from aurum.runtime.telemetry import tracing
from aurum.v1 import ingestion_pb2
from tests.support.scripted_server import Bench, bench
from tests.support.waiting import until

SERVICE = "/aurum.v1.IngestionService/"
Send = Callable[[Any, grpc.StatusCode | int], Awaitable[None]]


async def abort(context: Any, code: grpc.StatusCode | int) -> None:
    await context.abort(code, "by hand")


async def set_code(context: Any, code: grpc.StatusCode | int) -> None:
    context.set_code(code)
    context.set_details("by hand")


async def swallowed_abort(context: Any, code: grpc.StatusCode | int) -> None:
    with contextlib.suppress(grpc.aio.AbortError):
        await context.abort(code, "by hand")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans of the server."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for module in (server_module, tracing):
        monkeypatch.setattr(module, "get_tracer", provider.get_tracer)
    return exporter


def counted(method: str) -> dict[str, float]:
    """The calls of a method by code."""
    return {
        sample.labels["code"]: sample.value
        for family in REGISTRY.collect()
        if family.name == "rpc_server_requests"
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels["method"] == SERVICE + method and sample.value
    }


async def one_call(running: Bench, method: str) -> tuple[grpc.StatusCode, dict[str, float]]:
    """The code that a client receives, and how the server has counted the call."""
    before = counted(method)
    stub = running.stub
    call = {
        "GetMachine": lambda: stub.GetMachine(ingestion_pb2.GetMachineRequest(machine_id="m")),
        "Query": lambda: stub.Query(ingestion_pb2.QueryRequest(machine_ids=["m"])),
        "Watch": lambda: stub.Watch(ingestion_pb2.WatchRequest()),
    }[method]()
    with contextlib.suppress(grpc.aio.AioRpcError):
        if method == "GetMachine":
            await call
        else:
            async for _ in call:
                pass
    code = await call.code()
    await until(lambda: counted(method) != before, f"the server has counted the call, which ended as {code}")
    return code, {
        name: count - before.get(name, 0) for name, count in counted(method).items() if count != before.get(name, 0)
    }


def of_server(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


@pytest.mark.parametrize(
    ("method", "send"),
    [
        ("GetMachine", abort),
        ("GetMachine", set_code),
        ("GetMachine", swallowed_abort),
        ("Query", abort),
        ("Query", set_code),
    ],
)
@pytest.mark.parametrize(
    ("code", "failed"), [(grpc.StatusCode.NOT_FOUND, False), (grpc.StatusCode.DATA_LOSS, True), (77, True)]
)
async def test_status_of_servicer_is_counted_and_traced(  # noqa: PLR0917
    tmp_path: Path,
    spans: InMemorySpanExporter,
    method: str,
    send: Send,
    code: grpc.StatusCode | int,
    failed: bool,
) -> None:
    async with bench(tmp_path) as running:
        running.server.behaviour = lambda number, context: send(context, code)
        received, change = await one_call(running, method)
        await until(lambda: bool(spans.get_finished_spans()))
    assert received is (grpc.StatusCode.UNKNOWN if code == 77 else code)
    assert change == {received.name: 1}
    span = of_server(spans)
    assert span.attributes is not None
    assert span.attributes["rpc.grpc.status_code"] == received.value[0]
    assert span.attributes["error.type"] == received.name
    assert (span.status.status_code.name == "ERROR") == failed
    assert span.status.description == ("by hand" if failed else None)


async def test_abort_of_endless_stream_is_traced(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    """Endless streams have no span, so the abort has a span of its own."""
    async with bench(tmp_path) as running:
        running.server.behaviour = lambda number, context: abort(context, grpc.StatusCode.UNAVAILABLE)
        received, change = await one_call(running, "Watch")
        await until(lambda: bool(spans.get_finished_spans()))
    assert received is grpc.StatusCode.UNAVAILABLE
    assert change == {"UNAVAILABLE": 1}
    span = of_server(spans)
    assert span.name == f"{SERVICE}Watch ended"
    assert dict(span.attributes or {}) == {"rpc.grpc.status_code": 14, "error.type": "UNAVAILABLE"}
    assert span.status.status_code.name == "ERROR"


async def test_error_after_set_code_is_sent_and_counted(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    """An error that a servicer raises counts more than the code that it has set before."""

    async def behave(number: int, context: Any) -> None:
        context.set_code(grpc.StatusCode.INTERNAL)
        raise NotFoundError("there is no such machine")

    async with bench(tmp_path) as running:
        running.server.behaviour = behave
        assert await one_call(running, "GetMachine") == (grpc.StatusCode.NOT_FOUND, {"NOT_FOUND": 1})
        await until(lambda: bool(spans.get_finished_spans()))
    assert (of_server(spans).attributes or {})["rpc.grpc.status_code"] == 5


async def test_spans_of_answered_and_cancelled_calls_have_codes(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    async with bench(tmp_path) as running:
        await running.get()
        await until(lambda: len(spans.get_finished_spans()) == 1)
        running.server.behaviour = lambda number, context: asyncio.sleep(60)
        call = running.stub.GetMachine(ingestion_pb2.GetMachineRequest(machine_id="m"))
        await until(lambda: running.server.now == 1)
        call.cancel()
        await until(lambda: len(spans.get_finished_spans()) == 2)
    codes = [(span.attributes or {}).get("rpc.grpc.status_code") for span in spans.get_finished_spans()]
    assert codes == [0, 1]


async def test_calls_are_logged_while_tracing_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (server_module, tracing):
        monkeypatch.setattr(module, "get_tracer", NoOpTracerProvider().get_tracer)
    with caplog.at_level(logging.INFO, "aurum.access"):
        async with bench(tmp_path) as running:
            await running.get()
            running.server.behaviour = lambda number, context: abort(context, grpc.StatusCode.UNAVAILABLE)
            await one_call(running, "Watch")  # an endless stream has no line of its own
    lines = [record.getMessage() for record in caplog.records if record.name == "aurum.access"]
    assert lines == [f"{SERVICE}GetMachine OK"]


async def test_refusal_by_servicer_is_overload_for_admission(tmp_path: Path) -> None:
    """An adaptive admission limit shrinks when a servicer aborts calls with RESOURCE_EXHAUSTED."""
    policy = (
        "servers: [{server: server, admission: {maxConcurrent: 64, adaptiveConcurrency: "
        "{algorithm: aimd, initialLimit: 64, minLimit: 1, maxLimit: 64}}}]"
    )
    async with bench(tmp_path, policy) as running:
        running.server.behaviour = lambda number, context: abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED)
        limit = running.server_policies.admission()

        async def refused() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await running.stub.GetMachine(ingestion_pb2.GetMachineRequest(machine_id="m"))
            return limit.limit < 64

        async with asyncio.timeout(10):
            while not await refused():
                pass
