"""Calls to another service: one channel, each call under the policies of its target, errors as the server meant."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from opentelemetry.instrumentation.grpc import aio_client_interceptors, filters

from aurum.resilience import CircuitBreakerError, DeadlineExceededError
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, DeadlineError, UnavailableError, from_rpc_error
from aurum.runtime.logging import get_request_context
from aurum.runtime.policies import Policies

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


class _Measured:
    """What the interceptors of each kind of call share."""

    @staticmethod
    def details(call: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        context = get_request_context()
        more = [(key, context[name]) for name, key in _CONTEXT_KEYS.items() if name in context]
        metadata = grpc.aio.Metadata(*(tuple(call.metadata) if call.metadata else ()), *more)
        return grpc.aio.ClientCallDetails(call.method, call.timeout, metadata, call.credentials, call.wait_for_ready)

    @staticmethod
    def track(method: str | bytes, call: Any, started: float) -> None:
        name = method.decode() if isinstance(method, bytes) else method
        tasks: set[asyncio.Task[None]] = set()

        async def record(done: Any) -> None:
            metrics.track_rpc_client(name, (await done.code()).name, time.perf_counter() - started)

        def schedule(done: Any) -> None:
            task = asyncio.get_running_loop().create_task(record(done))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        call.add_done_callback(schedule)


class _UnaryUnary(_Measured, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        started = time.perf_counter()
        call = await continuation(self.details(client_call_details), request)
        self.track(client_call_details.method, call, started)
        return call


class _UnaryStream(_Measured, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        started = time.perf_counter()
        call = await continuation(self.details(client_call_details), request)
        self.track(client_call_details.method, call, started)
        return call


class _StreamStream(_Measured, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        started = time.perf_counter()
        call = await continuation(self.details(client_call_details), request_iterator)
        self.track(client_call_details.method, call, started)
        return call


def open_channel(target: str, max_message_bytes: int) -> grpc.aio.Channel:
    """A channel with traces, metrics, request context, keepalive and quick reconnection."""
    endless = filters.any_of(filters.method_name("Ingest"), filters.method_name("Watch"))
    return grpc.aio.insecure_channel(
        target,
        interceptors=[
            *aio_client_interceptors(filter_=filters.negate(endless)),
            _UnaryUnary(),
            _UnaryStream(),
            _StreamStream(),
        ],
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
    """A service that this one calls. `channel` is for the stub; `call` governs each use of it."""

    def __init__(self, client: str, server: str, target: str, policies: Policies, max_message_bytes: int) -> None:
        self.client = client
        self.server = server
        self.target = target
        self.channel = open_channel(target, max_message_bytes)
        self._policies = policies

    async def call(self, method: str, attempt: Callable[[float], Awaitable[T]], *, idempotent: bool = True) -> T:
        """Awaits `attempt(timeout_seconds)` under the policies of the method.

        Raises the server's error as AurumError; UnavailableError when the breaker is open, DeadlineError in time-out.
        """
        pipeline = self._policies.pipeline(
            self.client,
            self.server,
            method,
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

    async def close(self) -> None:
        await self.channel.close(grace=1.0)

    def _named(self, error: AurumError) -> AurumError:
        if isinstance(error, UnavailableError) and error.reason == UnavailableError.default_reason:
            return UnavailableError(
                f"the {self.server} service at {self.target} cannot be reached: {error.message}",
                retry_after=error.retry_after,
            )
        return error
