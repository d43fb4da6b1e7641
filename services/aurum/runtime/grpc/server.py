"""The gRPC server of a service: health, reflection, traces, metrics, request context, deadlines, error details."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry import trace
from opentelemetry.context import attach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from aurum.resilience import (
    ConcurrencyLimit,
    Criticality,
    LimitExceededError,
    criticality_scope,
    received_deadline,
)
from aurum.resilience.status import OVERLOAD_OF_SELF, SERVER_FAULTS
from aurum.runtime import metrics
from aurum.runtime.errors import (
    CONCURRENCY_LIMIT,
    DETAILS_KEY,
    OWN_SHARE,
    AurumError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    from_policy_error,
    to_status,
)
from aurum.runtime.faults import Faults
from aurum.runtime.grpc.answer_times import AnswerTimes
from aurum.runtime.grpc.client import CRITICALITY_KEY
from aurum.runtime.grpc.stream_shares import StreamShares, address_of, kind_of, limit_health, rpc_shares
from aurum.runtime.grpc.tls import certificate_folder, server_credentials
from aurum.runtime.grpc.wire import has_more_fields, only_field
from aurum.runtime.health import Health
from aurum.runtime.listener import PortInUseError
from aurum.runtime.rpc_methods import Method, method_of
from aurum.runtime.settings import Settings
from aurum.runtime.telemetry.logging import MAX_USER, reset_request_context, set_request_context
from aurum.runtime.telemetry.propagation import extract
from aurum.runtime.telemetry.tracing import current_trace_id, get_tracer, traced_operation

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("aurum.access")

_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
# A parsed request may take many times its bytes. Therefore most methods take small ones, and the others few entries.
# Ingest and Write check their batches themselves
_MAX_BYTES = 1_000_000
_MAX_BYTES_OF = {"RecordEvents": 4_000_000, "PredictBatch": 4_000_000, "PublishPredictions": 4_000_000}
_MAX_ENTRIES_OF = {"RecordEvents": 1000, "PredictBatch": 1000, "PublishPredictions": 1000}
# A request that has only this field may be larger, since it is mostly one block of numbers
_BLOCK_FIELDS = {"PredictBatch": 2}
_MAX_NAMES = 10_000  # fields beside the block
# When a connection ends, callers reconnect and so find new pods; streams go on
_CONNECTION_AGE_MS = 300_000
_LOOKAHEAD_BYTES = 262_144  # of each stream that are read before a message is asked for
_CUT_OFF = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})  # calls that got no answer
_SHED = ResourceExhaustedError(
    "the service has too much to do; try again later", reason=CONCURRENCY_LIMIT, retry_after=0.1
)
_SHED_DETAILS = to_status(_SHED).SerializeToString()


# Authorises a call by its method and context. Returns the caller, or None for the platform; raises AurumError
Admit = Callable[[str, Any], str | None]


class _CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each call: admission, request context, deadline, metrics, injected faults and error details."""

    def __init__(
        self,
        calls: ConcurrencyLimit,
        streams: ConcurrencyLimit,
        faults: Faults,
        authorizer: Admit | None,
        shares: StreamShares,
    ) -> None:
        self._calls = calls
        self._streams = streams
        self._faults = faults
        self._authorizer = authorizer
        self._shares = shares
        self._answers = AnswerTimes()
        self._wrapped: dict[str, tuple[Any, Any]] = {}  # handler and its wrapper by method; only existing ones

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(handler_call_details)
        name = handler_call_details.method
        known = self._wrapped.get(name)
        if known is not None and known[0] is handler:
            return known[1]
        wrapped = self._wrap(method_of(name), handler)
        if handler is not None:
            self._wrapped[name] = handler, wrapped
        return wrapped

    def _wrap(self, method: Method, handler: Any) -> Any:
        if handler is None or method.name.startswith("/grpc.health."):  # probes have no certificate
            return limit_health(method.name, handler, self._shares)
        take = _well_formed if handler.request_deserializer else _unchanged
        limit = self._streams if method.endless else self._calls
        if handler.response_streaming:
            behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            wrapped: Any = self._stream_handler(method, limit, behaviour, take)
        else:
            behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            wrapped = self._unary_handler(method, limit, behaviour, take)
        parser = _parser(method.short_name, handler.request_deserializer)
        return make(wrapped, parser, handler.response_serializer)

    def _unary_handler(
        self,
        method: Method,
        limit: ConcurrencyLimit,
        behaviour: Callable[..., Awaitable[Any]],
        take: Callable[[Any], Any],
    ) -> Any:
        async def call(request: Any, context: Any) -> Any:
            metadata = _text_metadata(context)
            criticality = await self._admit(method, limit, context, metadata)
            outcome = _Outcome(method, limit, self._answers, context)
            with outcome, _RequestScope(method, context, metadata, criticality) as span:
                try:
                    with _Measured(outcome, span):
                        if self._authorizer is not None:
                            self._authorizer(method.name, context)
                        drip = await self._faults.apply(method.short_name) if self._faults.any_active else 0.0
                        response = await behaviour(take(request), context)
                        if drip:
                            await asyncio.sleep(drip)
                        return response
                except Exception as error:
                    await outcome.abort(error)

        return call

    def _stream_handler(
        self,
        method: Method,
        limit: ConcurrencyLimit,
        behaviour: Callable[..., AsyncIterator[Any]],
        take: Callable[[Any], Any],
    ) -> Any:
        kind = kind_of(method)

        async def call(request: Any, context: Any) -> AsyncGenerator[Any]:
            metadata = _text_metadata(context)
            criticality = await self._admit(method, limit, context, metadata)
            outcome = _Outcome(method, limit, self._answers, context)
            # The body of a generator runs in its caller's context, which is always this call's own task
            with outcome, _RequestScope(method, context, metadata, criticality) as span:
                try:
                    with _Measured(outcome, span):
                        authorize = self._authorizer
                        caller = address_of(context) if authorize is None else authorize(method.name, context)
                        with self._shares.place(kind, caller):
                            drip = await self._faults.apply(method.short_name) if self._faults.any_active else 0.0
                            async for response in behaviour(take(request), context):
                                if drip:
                                    await asyncio.sleep(drip)
                                yield response
                except Exception as error:
                    await outcome.abort(error)

        return call

    async def _admit(
        self, method: Method, limit: ConcurrencyLimit, context: Any, metadata: dict[str, str]
    ) -> Criticality:
        """Takes a place for the call and returns its class.

        A call ends here with RESOURCE_EXHAUSTED if it gets no place, or if its caller will not wait for as long as an
        answer takes. There are many such calls under overload, so they are counted but get neither a span nor a log
        line.
        """
        criticality = Criticality.parse(metadata.get(CRITICALITY_KEY, ""))
        if criticality is None:
            criticality = method.criticality
        left = context.time_remaining()
        try:
            if self._answers.should_refuse(method.name, left, busy=limit.in_flight > 0):
                raise LimitExceededError
            await limit.acquire_async(left, criticality)
        except LimitExceededError:
            metrics.rpc_server_requests_total.labels(method.name, grpc.StatusCode.RESOURCE_EXHAUSTED.name).inc()
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, _SHED.message, ((DETAILS_KEY, _SHED_DETAILS),))
        return criticality


@dataclass(frozen=True, slots=True)
class _Malformed:
    """Stands for a request that cannot be decoded, or is too large for its method."""

    problem: str


def _parser(name: str, deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Wraps the deserializer so that such a request is refused within the call and with a description.

    Args:
        name: Name of the method.
        deserializer: Parses a request; None if the method does that itself.
    """
    if deserializer is None:
        return None
    max_bytes, max_entries = _MAX_BYTES_OF.get(name, _MAX_BYTES), _MAX_ENTRIES_OF.get(name)
    block = _BLOCK_FIELDS.get(name)

    def parse(data: bytes) -> Any:
        if len(data) > max_bytes and not _is_block(data, block):
            return _Malformed(f"has {len(data)} bytes; {max_bytes} are allowed for this method")
        if max_entries is not None and has_more_fields(data, max_entries):
            return _Malformed(f"has more than {max_entries} entries, which is as many as this method takes")
        try:
            return deserializer(data)
        except DecodeError:
            return _Malformed("is no message of this method")

    return parse


def _is_block(data: bytes, number: int | None) -> bool:
    """Returns whether a message is one field with this number, which does not consist of very many fields."""
    content = only_field(data, number) if number is not None else None
    return content is not None and not has_more_fields(content, _MAX_NAMES)


def _well_formed(request: Any) -> Any:
    """Returns the request or the stream of requests. Raises InvalidArgumentError for a malformed request."""
    if isinstance(request, _Malformed):
        raise InvalidArgumentError.for_field("request", request.problem)
    return _well_formed_stream(request) if hasattr(request, "__aiter__") else request


def _unchanged(request: Any) -> Any:
    return request


async def _well_formed_stream(requests: AsyncIterator[Any]) -> AsyncGenerator[Any]:
    async for request in requests:
        yield _well_formed(request)


def _text_metadata(context: Any) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


class _Outcome:
    """Tracks the outcome of one call.

    As a block, it gives the call's place back at the end, and reports the duration to an adaptive limit.
    """

    def __init__(self, method: Method, limit: ConcurrencyLimit, answers: AnswerTimes, context: Any) -> None:
        self.method = method
        self.context = context
        self.code = grpc.StatusCode.OK
        self.own_share = False
        self._limit = limit
        self._answers = answers
        self._left = context.time_remaining()  # seconds that the caller still waits, or None without a deadline

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._started
        if not self.method.endless:
            if self.code is grpc.StatusCode.OK:
                self._answers.record_answer(self.method.name, seconds)
            elif self.code in _CUT_OFF:
                self._answers.record_cut_off(self.method.name, seconds, self._left)
        self._limit.release(None if self.own_share else seconds, self.code.name in OVERLOAD_OF_SELF)

    async def abort(self, error: Exception) -> None:
        """Reports an error and ends the call with its status and details.

        Unexpected errors are not described to the caller. A servicer's own abort has been reported and sent already.
        """
        if isinstance(error, grpc.aio.AbortError):
            raise error
        domain_error = _domain_error(error)
        unexpected = error if isinstance(domain_error, InternalError) else None
        self._report(domain_error.code, domain_error.reason, domain_error.message, unexpected)
        details = to_status(domain_error).SerializeToString()
        # gRPC keeps the call and its error in a reference cycle. The traceback holds the decoded request, which would
        # stay in memory until the next garbage collection.
        error.__traceback__ = None
        await self.context.abort(domain_error.code, domain_error.message, ((DETAILS_KEY, details),))

    def refused_by_servicer(self) -> None:
        """Reports the status that the servicer has sent itself."""
        self._report(self.code, self.code.name, str(self.context.details() or ""))

    def _report(
        self, code: grpc.StatusCode, reason: str, message: str, unexpected: BaseException | None = None
    ) -> None:
        """Counts, traces and logs an error. An endless stream has no span, so its error gets a span of its own."""
        method = self.method.name
        with contextlib.nullcontext() if current_trace_id() else traced_operation(f"{method} ended"):
            metrics.track_error(reason)
            span = trace.get_current_span()
            span.set_attributes({"rpc.grpc.status_code": code.value[0], "error.type": reason})
            if code.name in SERVER_FAULTS:
                span.set_status(Status(StatusCode.ERROR, message))
            if unexpected is not None:
                span.record_exception(unexpected)
                logger.error("%s failed", method, exc_info=unexpected)
            else:
                logger.info("%s refused: %s", method, message, extra={"code": code.name})


class _Measured:
    """Counts, logs and traces a block under the code that the client receives."""

    def __init__(self, outcome: _Outcome, span: Span) -> None:
        """Describes the block.

        Args:
            outcome: The outcome of the call, which gets the code.
            span: Span of the call. It is given, because an abandoned stream is closed in another context.
        """
        self._outcome = outcome
        self._span = span
        self._in_progress = metrics.rpc_in_progress(outcome.method.name)

    def __enter__(self) -> None:
        self._started = time.perf_counter()
        self._in_progress.inc()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        outcome = self._outcome
        try:
            if error is None or isinstance(error, grpc.aio.AbortError):
                outcome.code = _sent_code(outcome.context)
                if error is not None or outcome.code is not grpc.StatusCode.OK:  # the servicer called set_code
                    outcome.refused_by_servicer()
            elif isinstance(error, Exception):
                meant = _domain_error(error)
                outcome.code, outcome.own_share = meant.code, meant.reason in OWN_SHARE
            elif isinstance(error, (asyncio.CancelledError, GeneratorExit)):
                outcome.code = grpc.StatusCode.CANCELLED
        finally:
            self._in_progress.dec()
            code, seconds = outcome.code.name, time.perf_counter() - self._started
            metrics.track_rpc_server(outcome.method.name, code, seconds)
            self._span.set_attribute("rpc.grpc.status_code", outcome.code.value[0])
            if not outcome.method.endless:  # the end of a stream says nothing about what it sent
                access_logger.info(
                    "%s %s",
                    outcome.method.name,
                    code,
                    extra={"code": code, "duration_ms": round(seconds * 1e3, 3)},
                )


def _sent_code(context: Any) -> grpc.StatusCode:
    """Returns the code that the servicer has set or aborted with, as gRPC sends it."""
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return _BY_NUMBER.get(code or 0, grpc.StatusCode.UNKNOWN)


def _domain_error(error: Exception) -> AurumError:
    if isinstance(error, AurumError):
        return error
    return from_policy_error(error) or InternalError("something went wrong in the service; its log says more")


class _RequestScope:
    """A block with the ids, the deadline, the class and the span of a request. It yields the span.

    Endless streams have no span; Ingest creates one for each batch instead.
    """

    def __init__(self, method: Method, context: Any, metadata: dict[str, str], criticality: Criticality) -> None:
        self._method = method
        self._metadata = metadata
        self._deadline = received_deadline(context.time_remaining())
        self._criticality = criticality_scope(criticality)
        self._span: Span = trace.INVALID_SPAN
        self._parent: Any = None

    def __enter__(self) -> Span:
        metadata, method = self._metadata, self._method
        user_id = metadata.get("x-user-id")
        self._request = set_request_context(
            request_id=metadata.get("x-request-id"), user_id=unquote(user_id)[:MAX_USER] if user_id else None
        )
        self._deadline.__enter__()
        self._criticality.__enter__()
        if not method.endless:
            self._span = get_tracer("aurum.rpc").start_span(
                method.name[1:], context=extract(metadata), kind=SpanKind.SERVER, attributes=_attributes(method)
            )
            self._parent = attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._parent is not None:
            with contextlib.suppress(ValueError):  # an abandoned stream is closed in another context
                self._parent.var.reset(self._parent)
            self._span.end()
        self._criticality.__exit__(kind, error, traceback)
        self._deadline.__exit__(kind, error, traceback)
        with contextlib.suppress(ValueError):
            reset_request_context(self._request)


@lru_cache(1000)
def _attributes(method: Method) -> Mapping[str, str]:
    """Returns the attributes of a call's span."""
    return {"rpc.system": "grpc", "rpc.service": method.service, "rpc.method": method.short_name}


@contextlib.asynccontextmanager
async def rpc_server(
    register: Callable[[grpc.aio.Server], None],
    service_names: Sequence[str],
    *,
    host: str,
    port: int,
    setting: str,
    settings: Settings,
    health_state: Health,
    limits: tuple[ConcurrencyLimit, ConcurrencyLimit],
    faults: Faults,
    authorizer: Admit | None,
) -> AsyncGenerator[int]:
    """Serves during the block and yields the port. Calls in progress get the shutdown grace afterwards.

    Args:
        register: Adds the servicers to the server.
        service_names: Full names of the services, for health and reflection.
        host: Address to listen on.
        port: Port to listen on.
        setting: Setting that names the port, for errors.
        settings: Settings of the process.
        health_state: State that the health service reports.
        limits: Limits on unary calls and on endless streams.
        faults: Faults to inject.
        authorizer: Authorises calls. None: all callers may call everything.

    Raises:
        PortInUseError: The port cannot be used.
    """
    calls = limits[0]
    shares = rpc_shares(settings, lambda: max(calls.limit, calls.config.limit))
    server = grpc.aio.server(
        interceptors=[_CallInterceptor(*limits, faults, authorizer, shares)],
        options=[
            ("grpc.so_reuseport", 0),  # a second process on the port is an error and does not share the load
            ("grpc.max_receive_message_length", settings.rpc_max_message_bytes),
            ("grpc.max_send_message_length", settings.rpc_max_message_bytes),
            ("grpc.max_metadata_size", 16_384),
            ("grpc.http2.bdp_probe", 0),  # else windows grow to several of the largest messages for each stream
            ("grpc.http2.lookahead_bytes", _LOOKAHEAD_BYTES),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
        ],
    )
    register(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = ["", *service_names]
    for name in names:
        await health_servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    tasks: set[asyncio.Task[None]] = set()

    def tell(serving: bool) -> None:
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in names:
            task = asyncio.get_running_loop().create_task(health_servicer.set(name, state))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    health_state.on_change(tell)
    reflection.enable_server_reflection([*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    try:
        folder = certificate_folder(settings)
        address = f"{host}:{port}"
        bound = (
            server.add_secure_port(address, server_credentials(folder)) if folder else server.add_insecure_port(address)
        )
    except RuntimeError as error:
        raise PortInUseError(
            f"port {port} on {host} is in use by another program or not to be had; stop it or set {setting}"
        ) from error
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(settings.shutdown_grace)
