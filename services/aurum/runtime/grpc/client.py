"""gRPC calls to other services: one channel each, the policies of the target, and the server's errors as AurumError.

Unary calls and finite streams go through `Dependency`. It creates the client span, sends trace, request context and
criticality along, and measures the call. Interceptors of grpc.aio would do the same but need three more tasks per call.
Endless streams use one, because the cost does not matter there.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import quote

import grpc
from opentelemetry.trace import SpanKind, Status, StatusCode

from aurum.resilience import ErrorClassifier, Pipeline, remaining
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
from aurum.runtime.grpc.rotating_channel import RotatingChannel
from aurum.runtime.grpc.tls import CertificateFolder, Certificates, channel_credentials
from aurum.runtime.policy.policies import Policies
from aurum.runtime.rpc_methods import method_of
from aurum.runtime.telemetry.logging import get_request_context
from aurum.runtime.telemetry.propagation import inject
from aurum.runtime.telemetry.tracing import get_tracer

Response = TypeVar("Response")
T = TypeVar("T")

CRITICALITY_KEY = "aurum-criticality"
# Initial metadata with which a server confirms an endless call, even if it has nothing to send yet
TAKEN_UP = (("aurum-taken-up", "true"),)
_CONTEXT_KEYS = {"request_id": "x-request-id", "user_id": "x-user-id"}
_PLAIN = " !#$&'()*+,/:;=?@[]"
_BY_GRPC = "Internal error from Core"  # details of errors that gRPC's own library, not the server, reports as INTERNAL


def _code(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        # A stopping server cancels calls that it has not begun; cancellation by us is no AioRpcError
        code = error.code()
        return (grpc.StatusCode.UNAVAILABLE if code is grpc.StatusCode.CANCELLED else code).name
    if isinstance(error, AurumError):
        return error.code.name
    return code_of(error)


def _retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait (RetryInfo), or None."""
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc_error(error).retry_after
    return error.retry_after if isinstance(error, AurumError) else None


RPC_ERRORS = ErrorClassifier(_code, _retry_after)


class _StreamMetrics(grpc.aio.StreamStreamClientInterceptor):
    """Measures the streams that are not calls of `Dependency`, which are those of Ingest."""

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

        if method_of(name).endless:
            call.add_done_callback(schedule)
        return call


def open_channel(
    target: str, max_message_bytes: int, certificates: Certificates | None = None, server_name: str = ""
) -> grpc.aio.Channel:
    """Opens a channel with keepalive and fast reconnection. Its calls are spread over all addresses of the target.

    server_name: Name that the server's certificate must have, if the target is an address.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),  # pods come and go
        ("grpc.enable_retries", 0),  # our own retries are budgeted
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    ]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    if certificates is None:
        return grpc.aio.insecure_channel(target, options, interceptors=[_StreamMetrics()])
    credentials = channel_credentials(certificates)
    return grpc.aio.secure_channel(target, credentials, options, interceptors=[_StreamMetrics()])


_LOOK_FOR_CERTIFICATES = 2.0  # seconds between two checks


class Dependency:
    """A service that this one calls.

    The stub uses `channel`, and `unary`, `stream`, `relay` and `endless` make the calls. All four methods raise the
    server's error as AurumError. They raise UnavailableError if the server cannot be reached or the breaker is open,
    ResourceExhaustedError if too many calls are in progress, and DeadlineError on a timeout.
    """

    def __init__(  # noqa: PLR0917 - of a service alone
        self,
        client: str,
        server: str,
        target: str,
        policies: Policies,
        max_message_bytes: int,
        folder: CertificateFolder | None = None,
        server_name: str = "",
    ) -> None:
        """folder: Certificates for mutual TLS, or None without TLS. server_name: See `open_channel`."""
        self.client = client
        self.server = server
        self.target = target
        self._folder = folder
        self.channel: grpc.aio.Channel = (
            RotatingChannel(lambda: open_channel(target, max_message_bytes, folder.current, server_name))
            if folder
            else open_channel(target, max_message_bytes)
        )
        self._policies = policies

    @property
    def follows_certificates(self) -> bool:
        """Whether the channel uses certificates that may change."""
        return self._folder is not None

    async def follow_certificates(self) -> None:
        """Replaces the channel whenever its certificates have changed. It runs until it is cancelled."""
        channel = self.channel
        while self._folder is not None and isinstance(channel, RotatingChannel):
            await asyncio.sleep(_LOOK_FOR_CERTIFICATES)
            _, changed = await asyncio.to_thread(self._folder.refreshed)
            if changed:
                channel.rotate()

    async def unary(
        self, method: Callable[..., Awaitable[Response]], request: Any, *, idempotent: bool = True
    ) -> Response:
        """Makes a unary call of the stub. idempotent: Whether the call may be retried or hedged."""
        name = _full_name(method)
        pipeline = self.pipeline(name.rpartition("/")[2])

        async def attempt(timeout: float) -> Response:
            left = await self.connected(pipeline, timeout)
            return await _traced(
                self.server,
                name,
                lambda metadata: self._translate_grpc_end(left, method(request, timeout=left, metadata=metadata)),
            )

        return await self._call_under_policies(pipeline, name, attempt, idempotent)

    async def stream(self, method: Callable[..., Any], request: Any) -> list[Any]:
        """Makes a call that is answered by a finite stream, and returns the responses as a list.

        Args:
            method: The stub's method.
            request: A message. For a method that takes a stream, it is a function that returns an async iterator of
                messages.
        """
        name = _full_name(method)
        pipeline = self.pipeline(name.rpartition("/")[2])

        async def gather(timeout: float, metadata: Any) -> list[Any]:
            sent = request() if callable(request) else request
            return [response async for response in method(sent, timeout=timeout, metadata=metadata)]

        async def attempt(timeout: float) -> list[Any]:
            left = await self.connected(pipeline, timeout)
            return await _traced(
                self.server, name, lambda metadata: self._translate_grpc_end(left, gather(left, metadata))
            )

        return await self._call_under_policies(pipeline, name, attempt, True)

    async def endless(self, method: Callable[..., Any], request: Any) -> AsyncGenerator[Any]:
        """Yields the responses of a call that lasts until one side ends it.

        For the breaker, the call has succeeded as soon as the server has accepted it with TAKEN_UP or a first response,
        because the call may last for months.
        """
        name = _full_name(method)
        pipeline = self.pipeline(name.rpartition("/")[2])
        timeout = pipeline.policy.timeout.attempt
        call: Any = None
        try:
            with pipeline.attempt(self._call_name(name)):
                left = await self.connected(pipeline, timeout)
                call = method(request, metadata=tuple(context_metadata().items()))
                responses = call.__aiter__()
                first: list[Any] = []
                async with asyncio.timeout(left):
                    # An error comes with initial metadata too, which is empty
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
            raise self._broken_call_error() from error
        except Exception as error:
            raise self._translated(error) from error
        finally:
            if call is not None:
                call.cancel()

    async def relay(self, method: Callable[..., Any], request: Any) -> AsyncGenerator[Any]:
        """Yields the responses of a call that is answered by a finite stream, without holding them.

        The policies apply until the first response. From then on the call lasts as long as our own caller waits.
        """
        name = _full_name(method)
        pipeline = self.pipeline(name.rpartition("/")[2])

        async def begin(timeout: float) -> tuple[Any, Any]:
            left = await self.connected(pipeline, timeout)
            call = method(request, timeout=remaining(), metadata=tuple(context_metadata().items()))
            try:
                async with asyncio.timeout(left):
                    return call, await anext(call.__aiter__(), None)
            except TimeoutError as error:
                call.cancel()
                raise self._deadline_error() from error
            except BaseException:
                call.cancel()
                raise

        started = time.perf_counter()
        code = grpc.StatusCode.OK
        call = None
        try:
            call, response = await self._call_under_policies(pipeline, name, begin, True)
            while response is not None:
                yield response
                response = await anext(call.__aiter__(), None)
        except AurumError as error:
            code = error.code
            raise
        except asyncio.CancelledError as error:
            code = grpc.StatusCode.CANCELLED
            if not _ended_by_grpc(error):
                raise
            raise self._broken_call_error() from error
        except grpc.aio.AioRpcError as error:
            code = error.code()
            raise self._translated(error) from error
        finally:
            metrics.track_rpc_client(name, code.name, time.perf_counter() - started)
            if call is not None:
                call.cancel()

    def pipeline(self, method: str) -> Pipeline:
        """The pipeline of a method under the policies in force."""
        return self._policies.pipeline(self.client, self.server, method, RPC_ERRORS)

    async def close(self) -> None:
        """Closes the channel. Calls in progress have one second to end."""
        await self.channel.close(grace=1.0)

    async def _call_under_policies(
        self, pipeline: Pipeline, name: str, attempt: Callable[[float], Awaitable[T]], idempotent: bool
    ) -> T:
        try:
            # gRPC enforces the timeout itself, and sends it to the server
            return await pipeline.call_async(attempt, idempotent=idempotent, timed=False, target=self._call_name(name))
        except AurumError:
            raise
        except Exception as error:
            raise self._translated(error) from error

    async def _translate_grpc_end(self, timeout: float, call: Awaitable[T]) -> T:
        """Awaits a call and translates the errors that gRPC itself reports.

        If a call ends while its request is still being sent, gRPC reports "cancelled" or "internal" whatever the cause
        was.
        """
        started = time.perf_counter()
        try:
            return await call
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            if not _ended_by_grpc(error):
                raise
            raise (
                self._deadline_error() if time.perf_counter() - started >= timeout else self._broken_call_error()
            ) from error

    def _call_name(self, name: str) -> str:
        return f"{self.client}/{self.server}/{name.rpartition('/')[2]}"

    async def connected(self, pipeline: Pipeline, timeout: float) -> float:
        """Waits for the channel within the connect timeout. Returns the seconds that are left for the attempt.

        Raises UnavailableError if there is no connection in time.
        """
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

    def _translated(self, error: Exception) -> Exception:
        """Returns the error as the server or our own policy meant it. Other errors are returned unchanged."""
        if not isinstance(error, grpc.aio.AioRpcError):
            return from_policy_error(error) or error
        translated = from_rpc_error(error)
        if isinstance(translated, CancelledCallError):
            return UnavailableError(f"the {self.server} service at {self.target} is stopping")
        if isinstance(translated, UnavailableError) and translated.reason == UnavailableError.default_reason:
            return UnavailableError(
                f"the {self.server} service at {self.target} cannot be reached: {translated.message}",
                retry_after=translated.retry_after,
            )
        if isinstance(translated, DeadlineError) and translated.reason == DeadlineError.default_reason:
            return self._deadline_error()
        return translated

    def _deadline_error(self) -> DeadlineError:
        return DeadlineError(f"the {self.server} service at {self.target} did not answer in time")

    def _broken_call_error(self) -> UnavailableError:
        return UnavailableError(f"the call of the {self.server} service at {self.target} broke off")


def _ended_by_grpc(error: BaseException) -> bool:
    """Whether gRPC itself ended the call, rather than the server or a cancellation of the waiting task."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, grpc.aio.AioRpcError) and error.details() == _BY_GRPC


def _full_name(method: Any) -> str:
    """Returns the name of a stub's callable, as /package.Service/Method."""
    name = method._method
    return name.decode() if isinstance(name, bytes) else str(name)


def context_metadata() -> dict[str, str]:
    """Returns the metadata that travel with a call: trace, request and user ids, criticality."""
    carrier: dict[str, str] = {}
    inject(carrier)
    context = get_request_context()
    # Metadata must be ASCII, but names of people may not be
    carrier |= {key: quote(context[field], safe=_PLAIN) for field, key in _CONTEXT_KEYS.items() if field in context}
    criticality = stated_criticality()
    if criticality is not None:
        carrier[CRITICALITY_KEY] = criticality.name.lower()
    return carrier


async def _traced(server: str, name: str, call: Callable[[Any], Awaitable[T]]) -> T:
    """Makes one attempt in its span, with context metadata and metrics."""
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
