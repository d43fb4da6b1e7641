"""OpenTelemetry traces: the set-up and the functions that other modules use."""

import logging
import sys
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from aurum import __version__
from aurum.resilience import events
from aurum.runtime import metrics
from aurum.runtime.settings import Settings
from aurum.runtime.telemetry.logging import get_request_context, set_request_context
from aurum.runtime.telemetry.propagation import extract, inject
from aurum.runtime.telemetry.span_export import LeanSpanExporter
from aurum.runtime.telemetry.span_ring import SpanRing
from aurum.runtime.telemetry.spans import LeanTracerProvider

logger = logging.getLogger(__name__)

_SAY_AGAIN = 60.0  # seconds between two log lines about a collector that accepts no spans

AttributeValue = str | bool | int | float | Sequence[str] | Sequence[bool] | Sequence[int] | Sequence[float]


class _Sampling:
    """Samples a share of new traces. The share can change while the process runs."""

    def __init__(self) -> None:
        self._bound = TraceIdRatioBased.get_bound_for_rate(1.0)

    def set_ratio(self, ratio: float) -> None:
        self._bound = TraceIdRatioBased.get_bound_for_rate(ratio)

    def __call__(self, trace_id: int) -> bool:
        return trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound


_new_traces = _Sampling()


def set_sample_ratio(ratio: float) -> None:
    """Sets the share of new traces that this process records. The caller decides for traces that come with a call."""
    _new_traces.set_ratio(ratio)


class _CountedExporter(SpanExporter):
    """Counts the spans that its exporter could not deliver, and logs that at intervals. The SDK logs each attempt."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._lost = 0
        self._said_at = float("-inf")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                logger.info("%s takes spans again; %d were lost", self._endpoint, self._lost)
            self._lost, self._said_at = 0, float("-inf")
            return result
        metrics.spans_dropped_total.inc(len(spans))
        self._lost += len(spans)
        if time.monotonic() - self._said_at >= _SAY_AGAIN:
            self._said_at = time.monotonic()
            logger.warning("%s takes no spans; %d are lost so far", self._endpoint, self._lost)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _caller() -> dict[str, str]:
    """Returns the attribute with the caller's name, which each span has."""
    user_id = get_request_context().get("user_id")
    return {} if user_id is None else {"user_id": user_id}


def name_caller(user_id: str) -> None:
    """Sets the caller of the current request for its logs and spans, including the current span."""
    set_request_context(user_id=user_id)
    set_span_attributes({"user_id": user_id})


def describe_process(service: str, settings: Settings) -> Resource:
    """Returns the resource attributes that identify this process in its telemetry."""
    return Resource.create(
        {
            "service.name": service,
            "service.namespace": "aurumai",
            "service.version": __version__,
            "deployment.environment.name": settings.environment,
        }
    )


def setup_tracing(service: str, settings: Settings, ring: SpanRing | None = None) -> TracerProvider | None:
    """Creates the tracer provider of the process. Returns None if tracing is disabled.

    Spans are exported on a separate thread from a bounded queue, so a slow collector does not delay requests.

    Args:
        service: Name of the service.
        settings: Settings of the process.
        ring: Keeps the latest spans, or None.
    """
    if not settings.tracing_enabled:
        return None
    resource = describe_process(service, settings)
    set_sample_ratio(settings.tracing_sample_ratio)
    provider = LeanTracerProvider(resource, _new_traces, _caller)
    if settings.tracing_otlp_endpoint:
        logging.getLogger(OTLPSpanExporter.__module__.rpartition(".")[0]).setLevel(logging.CRITICAL)
        exporter = LeanSpanExporter(
            endpoint=settings.tracing_otlp_endpoint,
            insecure=settings.tracing_otlp_endpoint.startswith("http://"),
            timeout=2,
        )
        provider.add_span_processor(
            BatchSpanProcessor(
                _CountedExporter(exporter, settings.tracing_otlp_endpoint),
                max_queue_size=settings.tracing_queue_spans,
                max_export_batch_size=min(512, settings.tracing_queue_spans),
                schedule_delay_millis=settings.tracing_export_interval * 1000,
            )
        )
    if ring is not None:
        provider.add_span_processor(ring)
    if settings.tracing_console_export:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
    trace.set_tracer_provider(provider)
    return provider


@lru_cache(maxsize=256)
def get_tracer(name: str) -> Tracer:
    """Returns the tracer of a module."""
    return trace.get_tracer(name, __version__)


def set_span_attributes(attributes: Mapping[str, AttributeValue]) -> None:
    """Sets attributes of the current span."""
    trace.get_current_span().set_attributes(attributes)


@contextmanager
def traced_operation(
    name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    context: Context | None = None,
    **more: AttributeValue,
) -> Generator[Span]:
    """Runs the block in its own span. An exception marks the span as failed and is raised again."""
    with get_tracer("aurum").start_as_current_span(
        name, context=context, kind=kind, attributes={**(attributes or {}), **more}, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            raise


@asynccontextmanager
async def traced_async_operation(
    name: str, attributes: Mapping[str, AttributeValue] | None = None, **more: Any
) -> AsyncGenerator[Span]:
    """Async variant of traced_operation."""
    with traced_operation(name, attributes, **more) as span:
        yield span


_ON_SPANS = frozenset({"breaker_rejection", "retry", "retry_exhausted", "hedge", "budget_exhausted", "limit_rejection"})


def _on_resilience_event(event: events.Event) -> None:
    """Adds the policies' decisions to the span of the call."""
    if event.kind in _ON_SPANS:
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(
                f"resilience.{event.kind}", {"aurum.policy": event.policy, "aurum.policy.detail": event.value}
            )


events.subscribe(_on_resilience_event)


def current_trace_id() -> str:
    """The trace id of the current span as 32 hexadecimal digits, or an empty string."""
    span = trace.get_current_span().get_span_context()
    return format(span.trace_id, "032x") if span.is_valid else ""


def traceparent() -> str:
    """The current context as a W3C traceparent, or an empty string without a span."""
    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent", "")


def context_of(parent: str) -> Context:
    """Converts a W3C traceparent to a context; an empty one, to a context without a parent."""
    return extract({"traceparent": parent}) if parent else Context()
