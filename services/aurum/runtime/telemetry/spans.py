"""Spans that cost little: a tracer provider of OpenTelemetry whose spans do only what this platform needs.

A span of the SDK takes a lock for each change, cleans each attribute and is copied when it ends. Here attributes are a
plain dictionary, checked for size only, and an ended span is handed on as it is. Spans are used by one task at a time.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from random import getrandbits
from types import MappingProxyType, TracebackType
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

LONGEST_ATTRIBUTE = 4000  # characters; attributes contain data of callers
_MOST = 128  # attributes of a span or an event, and events and links of a span
_UNSET = Status(StatusCode.UNSET)
_RANDOM = TraceFlags.RANDOM_TRACE_ID
_FLAGS = {number: TraceFlags(number) for number in range(4)}
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class RecordedSpan(trace.Span, ReadableSpan):
    """A span in progress, and after its end what exporters read."""

    # The names are those of ReadableSpan, whose properties read them
    _attributes: dict[str, Any]
    _context: SpanContext

    def __init__(  # noqa: PLR0917 - of the tracer alone
        self,
        tracer: "LeanTracer",
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, Any],
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes = attributes
        self._events: list[Event] = []
        self._links: list[Link] = []
        self._status = _UNSET
        self._resource = tracer.resource
        self._instrumentation_scope = tracer.scope
        self._instrumentation_info = None
        self._dropped = [0, 0, 0]  # attributes, events, links
        self._end_time: int | None = None
        self._start_time = time.time_ns()

    @property
    def dropped_attributes(self) -> int:
        """Number of attributes that were too many."""
        return self._dropped[0]

    @property
    def dropped_events(self) -> int:
        """Number of events that were too many."""
        return self._dropped[1]

    @property
    def dropped_links(self) -> int:
        """Number of links that were too many."""
        return self._dropped[2]

    def get_span_context(self) -> SpanContext:
        """Returns the ids of the span."""
        return self._context

    def is_recording(self) -> bool:
        """Whether the span has not ended."""
        return self._end_time is None

    def set_attribute(self, key: str, value: Any) -> None:
        """Sets an attribute. It does nothing after the end of the span."""
        if self._end_time is None:
            attributes = self._attributes
            if len(attributes) >= _MOST and key not in attributes:
                self._dropped[0] += 1
                return
            attributes[key] = _bounded(value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Sets attributes. It does nothing after the end of the span."""
        if self._end_time is None and len(self._attributes) + len(attributes) <= _MOST:
            for key, value in attributes.items():
                self._attributes[key] = value[:LONGEST_ATTRIBUTE] if type(value) is str else value
            return
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Adds an event. timestamp: In ns since 1970; the present by default."""
        if self._end_time is not None:
            return
        if len(self._events) >= _MOST:
            self._dropped[1] += 1
            return
        self._events.append(Event(name, _bounded_attributes(attributes), timestamp))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        """Adds a link to another span."""
        if self._end_time is not None:
            return
        if len(self._links) >= _MOST:
            self._dropped[2] += 1
            return
        self._links.append(Link(context, _bounded_attributes(attributes)))

    def update_name(self, name: str) -> None:
        """Renames the span."""
        if self._end_time is None:
            self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Sets the status, unless it is OK already or the new one is UNSET."""
        if self._end_time is not None or self._status.status_code is StatusCode.OK:
            return
        new = status if isinstance(status, Status) else Status(status, description)
        if new.status_code is not StatusCode.UNSET:
            self._status = new

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Adds an event that describes an exception."""
        kind = type(exception)
        plain = kind.__module__ in ("", "builtins")
        described = {
            "exception.type": kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}",
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**described, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """Ends the span, and hands it to the processors. end_time: In ns since 1970; the present by default."""
        if self._end_time is None:
            self._end_time = time.time_ns() if end_time is None else end_time
            for processor in self._tracer.processors:
                processor.on_end(self)


class LeanTracer(trace.Tracer):
    """Starts spans.

    Args:
        resource: What the process is.
        scope: Who starts the spans.
        sampled: Whether a new trace with this id is recorded.
        processors: Get each span that has ended.
        common: Returns attributes that every span gets now.
    """

    def __init__(
        self,
        resource: Resource,
        scope: InstrumentationScope,
        sampled: Callable[[int], bool],
        processors: Sequence[SpanProcessor],
        common: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.resource = resource
        self.scope = scope
        self.processors = processors
        self._sampled = sampled
        self._common = common

    def start_span(  # noqa: PLR0917 - as the interface has it
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        """Starts a span. The root of a trace decides whether the trace is recorded."""
        parent: SpanContext | None = trace.get_current_span(context).get_span_context()
        if parent is not None and parent.is_valid:
            trace_id, flags, state = parent.trace_id, parent.trace_flags & 3, parent.trace_state
        else:
            parent, state = None, None
            trace_id = getrandbits(128) or 1
            flags = _RANDOM | TraceFlags.SAMPLED if self._sampled(trace_id) else _RANDOM
        own = SpanContext(trace_id, getrandbits(64) or 1, False, _FLAGS[flags], state)
        if not flags & TraceFlags.SAMPLED:
            return NonRecordingSpan(own)
        span = RecordedSpan(self, name, own, parent, kind, {**self._common()})
        if attributes:
            span.set_attributes(attributes)
        for link in links or ():
            span.add_link(link.context, link.attributes)
        if start_time is not None:
            span._start_time = start_time
        return span

    def start_as_current_span(  # type: ignore[override] # noqa: PLR0917 - the interface's can also decorate functions
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> "CurrentSpan":
        """Returns a block in which a new span is the current one. It is ended with the block."""
        span = self.start_span(name, context, kind, attributes, links, start_time)
        return CurrentSpan(span, record_exception, set_status_on_exception, end_on_exit)


class CurrentSpan:
    """A block in which a span is the current one."""

    __slots__ = ("_ends", "_records", "_sets_status", "_span", "_token")

    def __init__(self, span: trace.Span, records: bool, sets_status: bool, ends: bool) -> None:
        """Describes the block.

        Args:
            span: The span.
            records: Whether an exception becomes an event of the span.
            sets_status: Whether an exception marks the span as failed.
            ends: Whether the span is ended with the block.
        """
        self._span = span
        self._records = records
        self._sets_status = sets_status
        self._ends = ends

    def __enter__(self) -> trace.Span:
        self._token = attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        span = self._span
        detach(self._token)
        if isinstance(error, Exception) and span.is_recording():
            if self._records:
                span.record_exception(error)
            if self._sets_status:
                span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        if self._ends:
            span.end()


class LeanTracerProvider(TracerProvider):
    """Provides lean tracers.

    Args:
        resource: What the process is.
        sampled: Whether a new trace with this id is recorded.
        common: Returns attributes that every span gets now.
    """

    def __init__(
        self, resource: Resource, sampled: Callable[[int], bool], common: Callable[[], Mapping[str, Any]]
    ) -> None:
        super().__init__(resource=resource)
        self._sampled = sampled
        self._common = common
        self._processors: list[SpanProcessor] = []
        self._lean: dict[InstrumentationScope, LeanTracer] = {}

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Adds a processor, which gets each ended span. It is not told of spans that begin."""
        super().add_span_processor(span_processor)
        self._processors.append(span_processor)

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> trace.Tracer:
        """Returns the tracer of a library."""
        if self._disabled:
            return trace.NoOpTracer()
        scope = InstrumentationScope(
            instrumenting_module_name, instrumenting_library_version or "", schema_url, attributes
        )
        tracer = self._lean.get(scope)
        if tracer is None:
            tracer = LeanTracer(self.resource, scope, self._sampled, self._processors, self._common)
            self._lean[scope] = tracer
        return tracer


def _bounded(value: Any) -> Any:
    if type(value) is str and len(value) > LONGEST_ATTRIBUTE:
        return value[:LONGEST_ATTRIBUTE]
    return value


def _bounded_attributes(attributes: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not attributes:
        return _NOTHING
    return {key: _bounded(attributes[key]) for key in list(attributes)[:_MOST]}
