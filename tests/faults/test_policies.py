"""Each policy against a real server that fails, hangs, drips, disappears and returns: what the caller sees."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from aurum.resilience import Criticality, criticality_scope, deadline_scope
from aurum.runtime.errors import (
    AurumError,
    DeadlineError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from aurum.runtime.faults import Fault
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.http.client import HttpDependency
from aurum.runtime.http.server import http_server
from aurum.runtime.listener import listen
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings, load_settings
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.ports import free_port
from tests.support.scripted_server import ONCE, QUICK, Bench, bench, failing, hang
from tests.support.waiting import until

RETRY = QUICK % "retry: {maxAttempts: 3, baseDelay: 10ms, maxDelay: 20ms, budgetFloor: 10}"


async def test_retry_hides_transient_failures(tmp_path: Path) -> None:
    """A retry hides two transient failures from the caller."""
    async with bench(tmp_path, RETRY) as b:
        b.server.behaviour = failing(2, UnavailableError("not yet"))
        assert (await b.get()).machine.machine_id == "m"
        assert len(b.server.seen) == 3


async def test_non_idempotent_rpc_is_not_retried(tmp_path: Path) -> None:
    """An RPC that is not idempotent reaches the server once, even when it fails."""
    async with bench(tmp_path, RETRY) as b:
        b.server.behaviour = failing(2, UnavailableError("not yet"))
        with pytest.raises(UnavailableError):
            await b.register()
        assert len(b.server.seen) == 1


async def test_invalid_request_is_neither_retried_nor_counted(tmp_path: Path) -> None:
    """An invalid request is neither retried nor counted by the breaker."""
    async with bench(tmp_path, RETRY) as b:
        b.server.behaviour = failing(100, InvalidArgumentError.for_field("machine_id", "is wrong"))
        for _ in range(10):
            with pytest.raises(InvalidArgumentError) as caught:
                await b.get()
        assert caught.value.violations[0].field == "machine_id"
        assert len(b.server.seen) == 10
        assert b.breaker == "closed"


async def test_retry_respects_retry_after_of_server(tmp_path: Path) -> None:
    """A retry waits at least for the delay that the server named."""
    async with bench(tmp_path, RETRY) as b:
        b.server.behaviour = failing(1, ResourceExhaustedError("busy", retry_after=0.4))
        await b.get()
        (first, _), (second, _) = b.server.seen
        assert second - first >= 0.39


async def test_retries_during_outage_stay_within_budget(tmp_path: Path) -> None:
    """During an outage 200 calls cause at most 40 retries, the budget's share."""
    policy = (
        "retry: {maxAttempts: 4, baseDelay: 0s, maxDelay: 1ms, budgetRatio: 0.2, budgetFloor: 0}, "
        "circuitBreaker: {enabled: false}"
    )
    async with bench(tmp_path, QUICK % policy) as b:
        b.server.behaviour = failing(10_000, UnavailableError("down"))
        for _ in range(200):
            with pytest.raises(UnavailableError):
                await b.get()
        assert 200 < len(b.server.seen) <= 240


async def test_hanging_attempt_times_out_and_is_cancelled(tmp_path: Path) -> None:
    """A hanging attempt ends with its timeout and is cancelled in the server."""
    async with bench(tmp_path, QUICK % f"{ONCE}, timeout: {{attempt: 300ms, deadline: 1s}}") as b:
        b.server.behaviour = hang
        with pytest.raises(DeadlineError):
            await b.get()
        await until(lambda: b.server.cancelled == 1)
        assert b.server.now == 0
        left = b.server.seen[0][1]
        assert left is not None
        assert left < 0.301  # it is sent rounded up


async def test_dripping_response_times_out(tmp_path: Path) -> None:
    """A response stream that only drips ends with its timeout."""
    async with bench(tmp_path, QUICK % f"{ONCE}, timeout: {{attempt: 300ms, deadline: 1s}}") as b:
        b.faults.inject(Fault(kind="drip", method="Query", delay="100ms"))
        with pytest.raises(DeadlineError):
            await b.dependency.stream(b.stub.Query, ingestion_pb2.QueryRequest())


async def test_callers_deadline_reaches_the_server(tmp_path: Path) -> None:
    """The server sees no more time than the caller's deadline leaves."""
    async with bench(tmp_path) as b:
        with deadline_scope(0.5):
            await b.get()
        left = b.server.seen[0][1]
        assert left is not None
        assert left <= 0.51, "gRPC rounds a timeout up by a part of it"


async def test_cancelled_call_ends_work_on_server(tmp_path: Path) -> None:
    """A cancelled call ends the work in the server and frees its place in the limit."""
    async with bench(tmp_path) as b:
        b.server.behaviour = hang
        call = asyncio.create_task(b.get())
        await until(lambda: b.server.now == 1)
        call.cancel()
        await until(lambda: b.server.cancelled == 1)
        pipeline = b.dependency.pipeline("GetMachine")
        assert pipeline.limit.in_flight == 0


BREAKER = QUICK % (ONCE + ", circuitBreaker: {failMax: 3, open: 300ms, openJitter: 0, openGrowth: 1}")


async def test_breaker_opens_after_consecutive_failures(tmp_path: Path) -> None:
    """After three failures the breaker keeps calls from the server, and later closes by itself."""
    async with bench(tmp_path, BREAKER) as b:
        b.server.behaviour = failing(3, UnavailableError("down"))
        for _ in range(3):
            with pytest.raises(UnavailableError, match="down"):
                await b.get()
        for _ in range(50):
            with pytest.raises(UnavailableError, match="circuit breaker client/server is open") as caught:
                await b.get()
        assert caught.value.reason == "CIRCUIT_OPEN"
        assert caught.value.retry_after is not None
        assert len(b.server.seen) == 3
        await asyncio.sleep(0.31)
        await b.get()
        assert b.breaker == "closed"


async def test_breaker_opens_at_failure_rate_of_window(tmp_path: Path) -> None:
    """A window of calls opens the breaker at its failure rate, once it has enough calls."""
    count = "circuitBreaker: {mode: count, windowCalls: 10, minimumCalls: 10, failureRate: 0.5, open: 60s}"
    async with bench(tmp_path, QUICK % f"{ONCE}, {count}") as b:

        async def every_other(number: int, context: Any) -> None:
            if number % 2:
                raise UnavailableError("odd")

        b.server.behaviour = every_other
        outcomes = await asyncio.gather(*(b.get() for _ in range(9)), return_exceptions=True)
        assert b.breaker == "closed"
        outcomes += await asyncio.gather(b.get(), b.get(), return_exceptions=True)
        assert sum(isinstance(each, UnavailableError) for each in outcomes) >= 5
        assert b.breaker == "open"


async def test_slow_calls_open_breaker(tmp_path: Path) -> None:
    """Successful calls that are too slow open the breaker."""
    slow = "circuitBreaker: {mode: time, window: 30s, minimumCalls: 4, slowCall: 50ms, slowCallRate: 0.9, open: 60s}"
    async with bench(tmp_path, QUICK % f"{ONCE}, {slow}") as b:
        b.server.behaviour = lambda number, context: asyncio.sleep(0.08)
        for _ in range(4):
            await b.get()
        assert b.breaker == "open"


async def test_breaker_follows_server_outage_and_return(tmp_path: Path) -> None:
    """A server that disappears opens the breaker, and its return closes it."""
    policy = BREAKER.replace("circuitBreaker", "timeout: {connect: 100ms}, circuitBreaker")
    async with bench(tmp_path, policy, serving=False) as b:
        async with b.serving():
            await b.get()
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await b.get()
        assert b.breaker == "open"
        async with b.serving():
            await until(lambda: answers(b))
            assert b.breaker == "closed"


async def test_call_waits_for_starting_server(tmp_path: Path) -> None:
    """A call waits within its connect timeout for a server that is starting."""
    async with bench(
        tmp_path, QUICK % f"{ONCE}, timeout: {{connect: 5s, attempt: 5s, deadline: 5s}}", serving=False
    ) as b:
        call = asyncio.create_task(b.get())
        await asyncio.sleep(0.2)
        async with b.serving():
            assert (await call).machine.machine_id == "m"


async def test_bulkhead_bounds_concurrent_calls(tmp_path: Path) -> None:
    """A bulkhead of two running and two queued calls rejects the other six of ten."""
    async with bench(tmp_path, QUICK % f"{ONCE}, bulkhead: {{maxConcurrent: 2, maxQueued: 2, maxWait: 5s}}") as b:
        b.server.behaviour = lambda number, context: asyncio.sleep(0.1)
        outcomes = await asyncio.gather(*(b.get() for _ in range(10)), return_exceptions=True)
        refused = [each for each in outcomes if isinstance(each, ResourceExhaustedError)]
        assert len(refused) == 6
        assert refused[0].reason == "CONCURRENCY_LIMIT"
        assert b.server.most == 2


async def test_hedge_answers_for_hanging_call(tmp_path: Path) -> None:
    """A hedge answers for a call that hangs, and the hanging attempt is cancelled."""
    async with bench(tmp_path, QUICK % "hedge: {delay: 50ms}, retry: {maxAttempts: 1, budgetFloor: 5}") as b:

        async def first_hangs(number: int, context: Any) -> None:
            await asyncio.sleep(30 if number == 1 else 0)

        b.server.behaviour = first_hangs
        await b.get()
        assert len(b.server.seen) == 2
        await until(lambda: b.server.cancelled == 1)


async def test_overloaded_server_admits_calls_by_criticality(tmp_path: Path) -> None:
    """An overloaded server keeps places for more critical calls, by their admission shares."""
    servers = (
        "servers: [{server: server, admission: {maxConcurrent: 10, maxQueued: 0, "
        "shares: {alarm: 1, telemetry: 0.8, query: 0.6, batch: 0.4}}}]"
    )
    async with bench(tmp_path, f"{QUICK % ONCE}\n{servers}") as b:
        release = asyncio.Event()
        b.server.behaviour = lambda number, context: release.wait()
        calls: dict[Criticality, list[asyncio.Task[Any]]] = {}
        held = 0
        for criticality, admitted in ((3, 4), (2, 2), (1, 2), (0, 2)):
            with criticality_scope(Criticality(criticality)):
                calls[Criticality(criticality)] = [asyncio.create_task(b.get()) for _ in range(6)]
            held += admitted
            await until(lambda held=held: b.server.now == held)
        await until(lambda: sum(task.done() for tasks in calls.values() for task in tasks) == 24 - held)
        release.set()
        served = {}
        for criticality, tasks in calls.items():
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, ResourceExhaustedError) for each in outcomes if isinstance(each, BaseException))
            served[criticality.name] = sum(not isinstance(each, BaseException) for each in outcomes)
        assert served == {"BATCH": 4, "QUERY": 2, "TELEMETRY": 2, "ALARM": 2}


async def test_failures_to_open_endless_stream_open_breaker(tmp_path: Path) -> None:
    """Failures to open an endless stream open the breaker; closing a stream ends it in the server."""
    async with bench(tmp_path, BREAKER) as b:
        stream = b.dependency.endless(b.stub.Watch, ingestion_pb2.WatchRequest())
        assert await anext(stream) == ingestion_pb2.WatchResponse()
        await stream.aclose()
        await until(lambda: b.server.now == 0)
        b.server.behaviour = failing(100, UnavailableError("down"))
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await anext(b.dependency.endless(b.stub.Watch, ingestion_pb2.WatchRequest()))
        with pytest.raises(UnavailableError, match="open"):
            await anext(b.dependency.endless(b.stub.Watch, ingestion_pb2.WatchRequest()))


async def test_calls_reach_all_addresses_of_a_target(tmp_path: Path) -> None:
    """Calls to a target of two addresses reach both servers."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(bench(tmp_path))
        second = await stack.enter_async_context(bench(tmp_path))
        both = Dependency(
            "client", "server", f"ipv4:127.0.0.1:{first.port},127.0.0.1:{second.port}", first.policies, 1_000_000
        )
        stack.push_async_callback(both.close)
        stub = ingestion_pb2_grpc.IngestionServiceStub(both.channel)
        request = ingestion_pb2.GetMachineRequest(machine_id="m")

        async def reached() -> bool:
            await both.unary(stub.GetMachine, request)
            return bool(first.server.seen and second.server.seen)

        await until(reached)


async def test_thousand_reloads_under_load_fail_no_call(tmp_path: Path) -> None:
    """A thousand policy reloads under load fail no call and leave no place taken."""
    text = (
        "generation: {0}\n"
        "policies: [{{target: client/server/{1}, timeout: {{attempt: {2}s, deadline: 9s}}, "
        "circuitBreaker: {{mode: {3}}}, bulkhead: {{maxConcurrent: {4}, maxQueued: 100, maxWait: 5s}}}}]"
    )
    async with bench(tmp_path, text.format(0, "*", 5, "count", 20)) as b:
        stopping = False
        made = 0

        async def caller() -> None:
            nonlocal made
            while not stopping:
                await b.get()
                made += 1

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        for generation in range(1, 1001):
            method = ("*", "GetMachine")[generation % 2]
            mode = ("consecutive", "count", "time")[generation % 3]
            b.path.write_text(text.format(generation, method, 3 + generation % 5, mode, 10 + generation % 20))
            assert b.policies.reload()
            await asyncio.sleep(0)
        stopping = True
        await asyncio.gather(*callers)  # raises if a call failed
        assert made > 100
        state = b.policies.state()
        assert state["policy"]["generation"] == 1000
        assert all(target["limit"]["in_flight"] == 0 for target in state["targets"])


async def test_invalid_document_is_rejected_and_last_good_kept(tmp_path: Path) -> None:
    """An invalid policy document is rejected, and the last good one stays in force."""
    async with bench(tmp_path, f"uid: plant\ngeneration: 7\n{BREAKER}") as b:
        b.path.write_text("uid: plant\ngeneration: 8\npolicies: [{target: client/server/*, timeout: {attempt: 9}}]")
        assert b.policies.reload()
        state = b.policies.state()
        assert (state["policy"]["generation"], state["policy"]["applied"]) == (7, False)
        assert state["refused"]["generation"] == 8
        assert "policies[0].timeout.attempt: 9 has no unit" in state["policy"]["reason"]
        await b.get()
        b.path.unlink()
        assert b.policies.reload()
        assert "cannot be read" in b.policies.state()["policy"]["reason"]
        b.path.write_text("generation: 9")
        assert b.policies.reload()
        assert b.policies.state()["policy"]["applied"]
        assert not b.policies.reload()


async def test_injected_faults_respect_duration_and_percentage(tmp_path: Path) -> None:
    """Injected faults end after their duration and affect their percentage of calls."""
    async with bench(tmp_path) as b:
        b.faults.inject(Fault(kind="error", method="Get*", code="INTERNAL", duration="300ms"))
        with pytest.raises(AurumError, match="a fault was injected: INTERNAL"):
            await b.get()
        await b.register()
        await until(lambda: answers(b))
        assert b.faults.active() == []
        b.faults.inject(Fault(kind="error", percentage=30, code="NOT_FOUND"))
        failed = 0
        for _ in range(20):
            outcomes = await asyncio.gather(*(b.get() for _ in range(10)), return_exceptions=True)
            failed += sum(isinstance(each, AurumError) for each in outcomes)
        assert 20 <= failed <= 110
        assert b.faults.clear() == 1
        b.faults.inject(Fault(kind="delay", delay="200ms"))
        started = time.monotonic()
        await b.get()
        assert time.monotonic() - started >= 0.2


class ScriptedHttp:
    """An HTTP server that answers as a test says. seen: the headers of each request."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, float]] = []  # (status, seconds to wait), the last one for ever
        self.seen: list[dict[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append({key.decode(): value.decode() for key, value in scope["headers"]})
        status, seconds = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await asyncio.sleep(seconds)
        headers = [(b"content-type", b"application/json")]
        if status == 503:
            headers.append((b"retry-after", b"0"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"answer": 42}'})


async def test_http_calls_are_governed_by_policies(tmp_path: Path) -> None:
    """Breaker, retries and deadlines govern HTTP calls as well."""
    policy = (
        "retry: {maxAttempts: 3, baseDelay: 1ms, maxDelay: 5ms, budgetFloor: 10}, "
        "timeout: {attempt: 300ms, deadline: 1s}, circuitBreaker: {failMax: 3, open: 60s}"
    )
    (tmp_path / "policies.yaml").write_text(f"policies: [{{target: client/web/*, {policy}}}]")
    policies = Policies("client", load_settings(Settings, policy_file=tmp_path / "policies.yaml"))
    server, port = ScriptedHttp(), free_port()
    client = HttpDependency("client", "web", f"127.0.0.1:{port}", policies)
    try:
        with pytest.raises(UnavailableError, match="does not answer"):
            await client.get_json("/policy")  # nobody is there; three attempts have opened the breaker
        with pytest.raises(UnavailableError, match="is open"):
            await client.get_json("/policy")
        policies.reload()
        (tmp_path / "policies.yaml").write_text(
            f"policies: [{{target: client/web/*, {policy[: policy.index(', circ')]}}}]"
        )
        client = HttpDependency("client", "web2", f"127.0.0.1:{port}", policies)
        async with http_server(server, listen("127.0.0.1", port, "PORT"), 0.1):
            server.answers = [(503, 0), (200, 0)]
            with deadline_scope(2.0):
                assert await client.get_json("/policy") == {"answer": 42}
            assert len(server.seen) == 2
            assert 0 < float(server.seen[0]["x-request-timeout"]) <= 2.0
            server.answers = [(200, 5)]
            with deadline_scope(0.2), pytest.raises(AurumError) as caught:
                await client.get_json("/policy")
            assert caught.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        with pytest.raises(InternalError, match="could not be asked"):
            await client.get_json("/policy", at="127.0.0.1:no-port")  # to the library, no error of HTTP
    finally:
        await client.close()


async def answers(b: Bench) -> bool:
    try:
        await b.get()
    except AurumError:
        return False
    return True
