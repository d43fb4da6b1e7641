"""What a gRPC server takes of one request, and what a client that passes an answer on holds of it."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurum.runtime.errors import FieldViolation, InvalidArgumentError, UnavailableError
from aurum.v1 import ingestion_pb2
from tests.support.scripted_server import QUICK, Bench, bench, failing
from tests.support.waiting import until

INGESTION = "/aurum.v1.IngestionService"
RETRIES = QUICK % "retry: {maxAttempts: 3, baseDelay: 1ms, maxDelay: 1ms}"


async def refusal(running: Bench, method: str, request: bytes) -> tuple[grpc.StatusCode, str]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        call = channel.unary_unary(f"{INGESTION}/{method}")(request, timeout=10)
        return await call.code(), await call.details()


async def test_request_beyond_its_methods_limit_is_refused(tmp_path: Path) -> None:
    """A method takes no larger request, and no more entries, than the largest that makes sense."""
    name = ingestion_pb2.GetMachineRequest(machine_id="m" * 999_996).SerializeToString()
    async with bench(tmp_path) as running:
        assert len(name) == 1_000_000
        assert (await refusal(running, "GetMachine", name))[0] is grpc.StatusCode.OK
        code, details = await refusal(running, "GetMachine", name + b"\x0a\x00")
        assert (code, details) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "request: has 1000002 bytes; 1000000 are allowed for this method",
        )
        code, details = await refusal(running, "RecordEvents", b"\x0a\x00" * 1001)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "more than 1000 entries" in details
        code, _ = await refusal(running, "RecordEvents", b"\x0a\x00" * 1000)
        assert code is grpc.StatusCode.INTERNAL, "the method was reached, which the scripted server lacks"


async def test_watch_of_health_keeps_no_long_name(tmp_path: Path) -> None:
    """The watch of an unknown service is kept open, but not under a name that takes memory."""
    async with bench(tmp_path) as running, grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="s" * 200), timeout=10)  # type: ignore[attr-defined]
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        long = stub.Watch(health_pb2.HealthCheckRequest(service="s" * 201), timeout=10)  # type: ignore[attr-defined]
        assert await long.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_error_that_quotes_a_long_name_arrives(tmp_path: Path) -> None:
    """An error travels in headers of limited size, so its texts are cut off, by their bytes."""
    long = "\N{SNOWMAN}" * 1_000_000
    cut = "\N{SNOWMAN}" * 333 + "…"
    async with bench(tmp_path) as running:
        running.server.behaviour = failing(100, InvalidArgumentError.for_field(long, long))
        for _ in range(20):  # larger headers are refused at random
            with pytest.raises(InvalidArgumentError) as refused:
                await running.get()
            assert (refused.value.message, refused.value.violations) == (cut, (FieldViolation(cut, cut),))


async def test_relayed_answer_comes_message_by_message(tmp_path: Path) -> None:
    """What is passed on is held only as far as the reader is behind, and the reader may take its time."""
    async with bench(tmp_path, QUICK % "timeout: {attempt: 500ms, deadline: 500ms}") as running:
        gate = asyncio.Event()

        async def behave(number: int, context: Any) -> None:
            if number > 1:
                await gate.wait()

        running.server.behaviour = behave
        answers = running.dependency.relay(running.stub.Query, ingestion_pb2.QueryRequest())
        assert await anext(answers) == ingestion_pb2.QueryResponse()
        await asyncio.sleep(0.7)
        gate.set()
        assert len([answer async for answer in answers]) == 19


async def test_relay_tries_again_until_the_first_message(tmp_path: Path) -> None:
    """A call that fails at once is tried again; one that fails in the middle is told, not begun anew."""
    async with bench(tmp_path, RETRIES) as running:
        running.server.behaviour = failing(1, UnavailableError("not yet"))
        answers = running.dependency.relay(running.stub.Query, ingestion_pb2.QueryRequest())
        assert len([answer async for answer in answers]) == 20

        async def break_off(number: int, context: Any) -> None:
            if number == 25:
                raise UnavailableError("in the middle")

        running.server.behaviour = break_off
        answers = running.dependency.relay(running.stub.Query, ingestion_pb2.QueryRequest())
        with pytest.raises(UnavailableError, match="in the middle"):
            [answer async for answer in answers]
        assert len(running.server.seen) == 25


async def test_abandoned_relay_ends_its_call(tmp_path: Path) -> None:
    """Who no longer reads what is passed on leaves no call open behind it."""
    async with bench(tmp_path) as running:

        async def behave(number: int, context: Any) -> None:
            if number > 1:
                await asyncio.sleep(60)

        running.server.behaviour = behave
        answers = running.dependency.relay(running.stub.Query, ingestion_pb2.QueryRequest())
        await anext(answers)
        await until(lambda: running.server.now == 1)
        await answers.aclose()
        await until(lambda: running.server.now == 0)
        assert running.server.cancelled == 1
