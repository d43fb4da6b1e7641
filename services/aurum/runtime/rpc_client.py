"""Calls to another service: one channel, each call under the policies of its target, errors as the server meant.

Unary calls and finite streams go through `Dependency`, which makes the client span, sends trace and request context
along and measures. Interceptors of grpc.aio would do that too, for three more tasks a call; endless streams, where it
does not matter, have one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from opentelemetry import propagate
from opentelemetry.trace import SpanKind, Status, StatusCode

from aurum.resilience import CircuitBreakerError, DeadlineExceededError
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, DeadlineError, UnavailableError, from_rpc_error
from aurum.runtime.logging import get_request_context
from aurum.runtime.policies import Policies
from aurum.runtime.tracing import get_tracer

Response = TypeVar("Response")
T = TypeVar("T")

_FAILURES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DATA_LOSS,
    }
)
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
_CONTEXT_KEYS = {"request_id": "x-request-id", "user_id": "x-user-id"}
_NO_SPAN = frozenset({"Ingest", "Watch"})


def is_failure(error: BaseException) -> bool:
    """Whether the error speaks against the dependency's health."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code() in _FAILURES
    return isinstance(error, TimeoutError)


def is_retryable(error: BaseException) -> bool:
    """Whether another attempt may succeed where this one did not."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code() in _RETRYABLE
    return False


def retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait (RetryInfo)."""
    return from_rpc_error(error).retry_after if isinstance(error, grpc.aio.AioRpcError) else None


class _StreamMetrics(grpc.aio.StreamStreamClientInterceptor):
    """Measures streams that are not calls of `Dependency`: Ingest."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        started = time.perf_counter()
        method = client_call_details.method
        name = method.decode() if isinstance(method, bytes) else method
        call = await continuation(client_call_details, request_iterator)

        async def record(done: Any) -> None:
            metrics.track_rpc_client(name, (await done.code()).name, time.perf_counter() - started)

        def schedule(done: Any) -> None:
            task = asyncio.get_running_loop().create_task(record(done))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        if name.rpartition("/")[2] in _NO_SPAN:
            call.add_done_callback(schedule)
        return call


def open_channel(target: str, max_message_bytes: int) -> grpc.aio.Channel:
    """A channel with keepalive and quick reconnection."""
    return grpc.aio.insecure_channel(
        target,
        interceptors=[_StreamMetrics()],
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.enable_retries", 0),  # ours are budgeted
            ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
        ],
    )


class Dependency:
    """A service that this one calls. `channel` is for the stub; `unary` and `stream` make its calls.

    Both raise the server's error as AurumError; UnavailableError when it cannot be reached or the breaker is open,
    DeadlineError in time-out. idempotent: whether the call may be made again after a failure.
    """

    def __init__(self, client: str, server: str, target: str, policies: Policies, max_message_bytes: int) -> None:
        self.client = client
        self.server = server
        self.target = target
        self.channel = open_channel(target, max_message_bytes)
        self._policies = policies

    async def unary(
        self, method: Callable[..., Awaitable[Response]], request: Any, *, idempotent: bool = True
    ) -> Response:
        """Makes a unary call of the stub."""
        name = _full_name(method)

        async def attempt(timeout: float) -> Response:
            return await _traced(name, lambda metadata: method(request, timeout=timeout, metadata=metadata))

        return await self._governed(name, attempt, idempotent)

    async def stream(self, method: Callable[..., Any], request: Any) -> list[Any]:
        """Makes a call that is answered by a finite stream, and gathers its responses.

        request: a message, or for a method that takes a stream a function that gives an async iterator of them.
        """
        name = _full_name(method)

        async def gather(timeout: float, metadata: Any) -> list[Any]:
            sent = request() if callable(request) else request
            return [response async for response in method(sent, timeout=timeout, metadata=metadata)]

        async def attempt(timeout: float) -> list[Any]:
            return await _traced(name, lambda metadata: gather(timeout, metadata))

        return await self._governed(name, attempt, True)

    async def close(self) -> None:
        await self.channel.close(grace=1.0)

    async def _governed(self, name: str, attempt: Callable[[float], Awaitable[T]], idempotent: bool) -> T:
        pipeline = self._policies.pipeline(
            self.client,
            self.server,
            name.rpartition("/")[2],
            is_failure=is_failure,
            is_retryable=is_retryable,
            retry_after=retry_after,
        )
        try:
            return await pipeline.call(attempt, idempotent=idempotent)
        except grpc.aio.AioRpcError as error:
            raise self._named(from_rpc_error(error)) from error
        except CircuitBreakerError as error:
            raise UnavailableError(str(error), reason="CIRCUIT_OPEN") from error
        except DeadlineExceededError as error:
            raise DeadlineError(str(error)) from error

    def _named(self, error: AurumError) -> AurumError:
        if isinstance(error, UnavailableError) and error.reason == UnavailableError.default_reason:
            return UnavailableError(
                f"the {self.server} service at {self.target} cannot be reached: {error.message}",
                retry_after=error.retry_after,
            )
        return error


def _full_name(method: Any) -> str:
    """/package.Service/Method of a stub's callable."""
    name = method._method
    return name.decode() if isinstance(name, bytes) else str(name)


async def _traced(name: str, call: Callable[[Any], Awaitable[T]]) -> T:
    """One attempt: its span, the context that travels with it, its metrics."""
    started = time.perf_counter()
    _, service, method = name.split("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    code = grpc.StatusCode.OK
    with get_tracer("aurum.rpc").start_as_current_span(
        name[1:], kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        context = get_request_context()
        carrier |= {key: context[field] for field, key in _CONTEXT_KEYS.items() if field in context}
        try:
            return await call(tuple(carrier.items()))
        except grpc.aio.AioRpcError as error:
            code = error.code()
            span.set_status(Status(StatusCode.ERROR, error.details()))
            raise
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        finally:
            span.set_attribute("rpc.grpc.status_code", code.value[0])
            metrics.track_rpc_client(name, code.name, time.perf_counter() - started)
