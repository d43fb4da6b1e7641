"""Senders that send nonsense, take no answers, or open streams without end: they get an error, and little memory."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import grpc
import numpy as np
import psutil
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurum.readings.batch import Series, encode, now_us
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

METHODS = ["Write", "RegisterMachine", "GetMachine", "ListMachines", "RecordEvents", "ListEvents", "PublishPredictions"]
MEANT = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
}


def sample(method: str) -> bytes:
    """A right message, to be damaged."""
    at = np.arange(3) + now_us()
    messages = {
        "Write": ingestion_pb2.WriteRequest(batch=encode("fuzz", 1, [Series("fuzz", "s", at, np.ones(3))])),
        "RegisterMachine": ingestion_pb2.RegisterMachineRequest(machine_id="fuzz", machine_type="pump", request_id="r"),
        "GetMachine": ingestion_pb2.GetMachineRequest(machine_id="fuzz"),
        "ListMachines": ingestion_pb2.ListMachinesRequest(page_size=3, page_token="m"),  # noqa: S106
        "RecordEvents": ingestion_pb2.RecordEventsRequest(
            events=[ingestion_pb2.Event(kind="prediction", machine_id="fuzz", at_us=5, id="x", content=b"c")]
        ),
        "PublishPredictions": ingestion_pb2.PublishPredictionsRequest(
            predictions=[prediction_pb2.PredictResponse(machine_id="fuzz", risk_score=0.5, as_of_us=5)]
        ),
        "ListEvents": ingestion_pb2.ListEventsRequest(kind="prediction", machine_id="fuzz", limit=5),
    }
    return messages[method].SerializeToString()


@given(
    method=st.sampled_from(METHODS),
    noise=st.binary(max_size=200),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=6),
    damaged=st.booleans(),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_malformed_request_bytes_crash_no_method(
    serving: Platform, method: str, noise: bytes, flips: list[tuple[int, int]], damaged: bool
) -> None:
    """Random or damaged request bytes end in an expected status and never crash a method."""
    content = bytearray(sample(method))
    for place, value in flips:
        content[place % len(content)] = value
    with grpc.insecure_channel(f"127.0.0.1:{serving.port('ingestion')}") as channel:
        call = channel.unary_unary(f"/aurum.v1.IngestionService/{method}")
        try:
            call(bytes(content) if damaged else noise, timeout=10)
        except grpc.RpcError as error:
            assert error.code() in MEANT, (method, error.code(), error.details())  # noqa: PT017
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                details = rpc_status.from_call(error).details
                bad = error_details_pb2.BadRequest()
                assert any(detail.Unpack(bad) for detail in details)
                assert bad.field_violations[0].field


@given(
    st.lists(
        st.lists(
            st.one_of(st.sampled_from(["machine_id", "m", "s", "1", "nan", '"', "2026-05-04"]), st.text(max_size=8)),
            max_size=6,
        ),
        max_size=6,
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_malformed_csv_never_crashes_the_api(serving: Platform, cells: list[list[str]]) -> None:
    """Generated CSV is answered with 200, or with 422 that names the field."""
    body = "\n".join(",".join(row) for row in cells).encode()
    for head in (b"", b"machine_id,timestamp,sensor,value\n", b"machine_id,timestamp,s\n"):
        answer = http("POST", f"{serving.api}/api/readings", head + body, {"Content-Type": "text/csv"})
        assert answer.status in (200, 422), (answer.status, answer.body)
        if answer.status == 422:
            assert answer.json["errors"][0]["field"]


@pytest.fixture
def bounded(platform: Platform) -> tuple[Platform, psutil.Process]:
    platform.extra["AURUM_RPC_MAX_STREAMS"] = "500"
    process = platform.start("ingestion")
    return platform, psutil.Process(process.popen.pid)


@pytest.mark.proof("connections")
async def test_sender_ignoring_acks_leaves_memory_bounded(
    bounded: tuple[Platform, psutil.Process],
) -> None:
    """A sender that never reads acknowledgements leaves ingestion below 500 MB and ready."""
    platform, process = bounded
    rng = np.random.default_rng(1)
    at = now_us() - 10**9 + np.arange(20_000)
    sent = 0

    async def requests() -> AsyncIterator[ingestion_pb2.IngestRequest]:
        nonlocal sent
        for sequence in range(1, 100_000):
            series = [Series("greedy", "s", at + sequence, rng.random(20_000))]
            yield ingestion_pb2.IngestRequest(batch=encode("greedy", sequence, series))
            sent = sequence

    async with grpc.aio.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        call = ingestion_pb2_grpc.IngestionServiceStub(channel).Ingest(requests())
        before = -1
        while sent != before or sent < 10:  # until it gets no further, or has sent 1 GB
            before = sent
            await asyncio.sleep(2.0)
            assert process.memory_info().rss < 500_000_000
            if sent > 3000:
                break
        call.cancel()
    assert platform.processes["ingestion"].popen.poll() is None
    await asyncio.to_thread(wait_for, lambda: platform.is_ready("ingestion"), 20, "ready")


@pytest.mark.proof("connections")
async def test_ten_thousand_open_streams_are_limited(bounded: tuple[Platform, psutil.Process]) -> None:
    """Ten thousand open streams are limited and cost under 300 MB; others are served afterwards."""
    platform, process = bounded
    before = process.memory_info().rss
    address = f"127.0.0.1:{platform.port('ingestion')}"
    options = [("grpc.use_local_subchannel_pool", 1)]

    async def never() -> AsyncIterator[ingestion_pb2.IngestRequest]:
        await asyncio.sleep(600)
        yield ingestion_pb2.IngestRequest()

    async with contextlib.AsyncExitStack() as stack:
        calls = []
        for _ in range(20):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options))
            stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
            calls += [stub.Ingest(never()) for _ in range(500)]

        async def outcome(call: grpc.aio.StreamStreamCall) -> grpc.StatusCode | None:
            try:
                async with asyncio.timeout(40):
                    return await call.code()
            except TimeoutError:
                return None  # it is open, or waits in line; or, by this wait's own end, CANCELLED

        found = await asyncio.gather(*(outcome(call) for call in random.Random(1).sample(calls, 400)))
        assert set(found) <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED, None}
        assert (
            found.count(grpc.StatusCode.RESOURCE_EXHAUSTED) > 50
        )  # most of those beyond one caller's part, where the machine is quick
        assert process.memory_info().rss < before + 300_000_000
        for call in calls:
            call.cancel()

    def healthy() -> bool:
        with grpc.insecure_channel(address) as channel:
            batch = encode("healthy", 1, [Series("healthy", "s", np.array([now_us()]), np.ones(1))])
            try:
                ingestion_pb2_grpc.IngestionServiceStub(channel).Write(
                    ingestion_pb2.WriteRequest(batch=batch), timeout=5
                )
            except grpc.RpcError:
                return False
        return True

    await asyncio.to_thread(wait_for, healthy, 30, "others are served")
