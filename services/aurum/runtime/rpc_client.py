"""Calls to another service: one channel, each call under the policies of its target, errors as the server meant.

Unary calls and finite streams go through `Dependency`, which makes the client span, sends trace, request context and
criticality along and measures. Interceptors of grpc.aio would do that too, for three more tasks a call; endless
streams, where it does not matter, have one.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import quote

import grpc
from opentelemetry import propagate
from opentelemetry.trace import SpanKind, Status, StatusCode

from aurum.resilience import ErrorView, Pipeline
from aurum.resilience.criticality import stated_criticality
from aurum.resilience.errors import code_of
from aurum.runtime import metrics
from aurum.runtime.errors import (
    AurumError,
    CancelledCallError,
    DeadlineError,
    UnavailableError,
    from_policy_error,
    from_rpc_error,
)
from aurum.runtime.logging import get_request_context
from aurum.runtime.policies import Policies
from aurum.runtime.rotating_channel import RotatingChannel
from aurum.runtime.tls import CertificateFolder, Certificates, channel_credentials
from aurum.runtime.tracing import get_tracer

Response = TypeVar("Response")
T = TypeVar("T")

CRITICALITY_KEY = "aurum-criticality"
# Initial metadata with which a server says that it has taken up an endless call, though it may have nothing to tell yet
TAKEN_UP = (("aurum-taken-up", "true"),)
_CONTEXT_KEYS = {"request_id": "x-request-id", "user_id": "x-user-id"}
_PLAIN = " !#$&'()*+,/:;=?@[]"
_NO_SPAN = frozenset({"Ingest", "Watch"})
_BY_GRPC = "Internal error from Core"  # details of what gRPC's own library, not the server, calls INTERNAL


def _code(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        # A server that stops cancels what it has not begun; what we cancel ourselves is no AioRpcError
        code = error.code()
        return (grpc.StatusCode.UNAVAILABLE if code is grpc.StatusCode.CANCELLED else code).name
    if isinstance(error, AurumError):
        return error.code.name
    return code_of(error)


def _retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait (RetryInfo)."""
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc_error(error).retry_after
    return error.retry_after if isinstance(error, AurumError) else None


RPC_ERRORS = ErrorView(_code, _retry_after)


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


def open_channel(target: str, max_message_bytes: int, certificates: Certificates | None = None) -> grpc.aio.Channel:
    """A channel with keepalive and quick reconnection, whose calls are spread over all addresses of the target."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),  # pods come and go
        ("grpc.enable_retries", 0),  # ours are budgeted
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    ]
    if certificates is None:
        return grpc.aio.insecure_channel(target, options, interceptors=[_StreamMetrics()])
    credentials = channel_credentials(certificates)
    return grpc.aio.secure_channel(target, credentials, options, interceptors=[_StreamMetrics()])


_LOOK_FOR_CERTIFICATES = 2.0  # seconds between two looks


class Dependency:
    """A service that this one calls. `channel` is for the stub; `unary`, `stream` and `endless` make its calls.

    All raise the server's error as AurumError; UnavailableError when it cannot be reached or the breaker is open,
    ResourceExhaustedError when too many calls are in progress, DeadlineError in time-out. idempotent: whether the call
    may be made again after a failure.
    """

    def __init__(  # noqa: PLR0917 - of a service alone
        self,
        client: str,
        server: str,
        target: str,
        policies: Policies,
        max_message_bytes: int,
        folder: CertificateFolder | None = None,
    ) -> None:
        """folder: certificates, for mutual TLS."""
        self.client = client
        self.server = server
        self.target = target
        self._folder = folder
        self.channel: grpc.aio.Channel = (
            RotatingChannel(lambda: open_channel(target, max_message_bytes, folder.current))
            if folder
            else open_channel(target, max_message_bytes)
        )
        self._policies = policies

    @property
    def follows_certificates(self) -> bool:
        return self._folder is not None

    async def follow_certificates(self) -> None:
        """Changes the channel when its certificates have changed, for as long as it runs."""
        channel = self.channel
        while self._folder is not None and isinstance(channel, RotatingChannel):
            await asyncio.sleep(_LOOK_FOR_CERTIFICATES)
            _, changed = await asyncio.to_thread(self._folder.refreshed)
            if changed:
                channel.rotate()

    async def unary(
        self, method: Callable[..., Awaitable[Response]], request: Any, *, idempotent: bool = True
    ) -> Response:
        """Makes a unary call of the stub."""
        name = _full_name(method)
        pipeline = self.pipeline(name.rpartition("/")[2])

        async def attempt(timeout: float) -> Response:
            left = await self.connected(pipeline, timeout)
            return await _traced(
                self.server,
                name,
                lambda metadata: self._explained(left, method(request, timeout=left, metadata=metadata)),
            )

        return await self._governed(pipeline, name, attempt, idempotent)

    async def stream(self, method: Callable[..., Any], request: Any) -> list[Any]:
        """Makes a call that is answered by a finite stream, and gathers its responses.

        request: a message, or for a method that takes a stream a function that gives an async iterator of them.
        """
        name = _full_name(method)
        pipeline = self.pipeline(name.rpartition("/")[2])

        async def gather(timeout: float, metadata: Any) -> list[Any]:
            sent = request() if callable(request) else request
            return [response async for response in method(sent, timeout=timeout, metadata=metadata)]

        async def attempt(timeout: float) -> list[Any]:
            left = await self.connected(pipeline, timeout)
            return await _traced(self.server, name, lambda metadata: self._explained(left, gather(left, metadata)))

        return await self._governed(pipeline, name, attempt, True)

    async def endless(self, method: Callable[..., Any], request: Any) -> AsyncGenerator[Any]:
        """The responses of a call that goes on until one side ends it. The breaker sees it succeed as soon as the
        server has taken it up, which it says with TAKEN_UP or a first response: it may then go on for months."""
        name = _full_name(method)
        pipeline = self.pipeline(name.rpartition("/")[2])
        timeout = pipeline.policy.timeout.attempt
        call: Any = None
        try:
            with pipeline.attempt(self._target(name)):
                left = await self.connected(pipeline, timeout)
                call = method(request, metadata=tuple(context_metadata().items()))
                responses = call.__aiter__()
                first: list[Any] = []
                async with asyncio.timeout(left):
                    # An error comes with initial metadata too, empty ones
                    if not set(TAKEN_UP).issubset(await call.initial_metadata()):
                        first.append(await anext(responses))
            for response in first:
                yield response
            async for response in responses:
                yield response
        except TimeoutError as error:
            raise UnavailableError(f"the {self.server} service did not take up {name} within {timeout} s") from error
        except StopAsyncIteration as error:
            raise UnavailableError(f"the {self.server} service ended {name} before it had begun") from error
        except asyncio.CancelledError as error:
            if not _ended_by_grpc(error):
                raise
            raise self._broken_off() from error
        except Exception as error:
            raise self._meant(error) from error
        finally:
            if call is not None:
                call.cancel()

    def pipeline(self, method: str) -> Pipeline:
        """The policies of a method, as they are in force now."""
        return self._policies.pipeline(self.client, self.server, method, RPC_ERRORS)

    async def close(self) -> None:
        await self.channel.close(grace=1.0)

    async def _governed(
        self, pipeline: Pipeline, name: str, attempt: Callable[[float], Awaitable[T]], idempotent: bool
    ) -> T:
        try:
            # gRPC keeps to the timeout by itself, and tells the server of it
            return await pipeline.call_async(attempt, idempotent=idempotent, timed=False, target=self._target(name))
        except AurumError:
            raise
        except Exception as error:
            raise self._meant(error) from error

    async def _explained(self, timeout: float, call: Awaitable[T]) -> T:
        """The answer to a call, or an error that says what it means where gRPC ends the call without the server's
        word: one that is over while its request is still being sent is "cancelled" or "internal", whatever ended it."""
        started = time.perf_counter()
        try:
            return await call
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            if not _ended_by_grpc(error):
                raise
            raise self._late() if time.perf_counter() - started >= timeout else self._broken_off() from error

    def _target(self, name: str) -> str:
        return f"{self.client}/{self.server}/{name.rpartition('/')[2]}"

    async def connected(self, pipeline: Pipeline, timeout: float) -> float:
        """Waits until the channel is ready, within the policy's connect timeout; the rest of the attempt's time."""
        if self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return timeout
        started = time.monotonic()
        within = min(timeout, pipeline.policy.timeout.connect)
        try:
            async with asyncio.timeout(within):
                await self.channel.channel_ready()
        except TimeoutError:
            raise UnavailableError(
                f"the {self.server} service at {self.target} cannot be reached: no connection within {within:.3g} s"
            ) from None
        return max(0.001, timeout - (time.monotonic() - started))

    def _meant(self, error: Exception) -> Exception:
        """The error as its server, or a policy of ours, meant it; any other as it is."""
        if not isinstance(error, grpc.aio.AioRpcError):
            return from_policy_error(error) or error
        meant = from_rpc_error(error)
        if isinstance(meant, CancelledCallError):
            return UnavailableError(f"the {self.server} service at {self.target} is stopping")
        if isinstance(meant, UnavailableError) and meant.reason == UnavailableError.default_reason:
            return UnavailableError(
                f"the {self.server} service at {self.target} cannot be reached: {meant.message}",
                retry_after=meant.retry_after,
            )
        if isinstance(meant, DeadlineError) and meant.reason == DeadlineError.default_reason:
            return self._late()
        return meant

    def _late(self) -> DeadlineError:
        return DeadlineError(f"the {self.server} service at {self.target} did not answer in time")

    def _broken_off(self) -> UnavailableError:
        return UnavailableError(f"the call of the {self.server} service at {self.target} broke off")


def _ended_by_grpc(error: BaseException) -> bool:
    """Whether an error of a call says neither what the server meant nor that somebody cancels the task that waits."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, grpc.aio.AioRpcError) and error.details() == _BY_GRPC


def _full_name(method: Any) -> str:
    """/package.Service/Method of a stub's callable."""
    name = method._method
    return name.decode() if isinstance(name, bytes) else str(name)


def context_metadata() -> dict[str, str]:
    """What travels with a call: trace, request and user ids, criticality."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    context = get_request_context()
    # Metadata are ASCII, and names of people are not
    carrier |= {key: quote(context[field], safe=_PLAIN) for field, key in _CONTEXT_KEYS.items() if field in context}
    criticality = stated_criticality()
    if criticality is not None:
        carrier[CRITICALITY_KEY] = criticality.name.lower()
    return carrier


async def _traced(server: str, name: str, call: Callable[[Any], Awaitable[T]]) -> T:
    """One attempt: its span, the context that travels with it, its metrics."""
    started = time.perf_counter()
    _, service, method = name.split("/")
    attributes = {"peer.service": server, "rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    code = grpc.StatusCode.OK
    with get_tracer("aurum.rpc").start_as_current_span(
        name[1:], kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            return await call(tuple(context_metadata().items()))
        except grpc.aio.AioRpcError as error:
            code = error.code()
            span.set_status(Status(StatusCode.ERROR, error.details()))
            raise
        except AurumError as error:
            code = error.code
            span.set_status(Status(StatusCode.ERROR, error.message))
            raise
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        finally:
            span.set_attribute("rpc.grpc.status_code", code.value[0])
            metrics.track_rpc_client(name, code.name, time.perf_counter() - started)
