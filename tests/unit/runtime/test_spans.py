"""Spans: what they record, what is exported of them, and how a trace travels with a call."""

from typing import Any

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import attach, detach
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_with_sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from aurum.runtime.telemetry.propagation import extract, inject
from aurum.runtime.telemetry.span_export import encode_spans
from aurum.runtime.telemetry.spans import LONGEST_ATTRIBUTE, LeanTracerProvider

REMOTE = SpanContext(0xABC, 0xDEF, True, TraceFlags(TraceFlags.SAMPLED), TraceState([("vendor", "1")]))


class Kept(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class Traced:
    """A tracer whose ended spans are kept."""

    def __init__(self, sampled: bool = True) -> None:
        self.kept = Kept()
        provider = LeanTracerProvider(
            Resource({"service.name": "api"}), lambda trace_id: sampled, lambda: {"user_id": "anna"}
        )
        provider.add_span_processor(self.kept)
        self.tracer = provider.get_tracer("aurum", "1.0")

    @property
    def span(self) -> ReadableSpan:
        (span,) = self.kept.spans
        return span


@pytest.fixture
def traced() -> Traced:
    return Traced()


def test_span_has_given_and_common_attributes(traced: Traced) -> None:
    with traced.tracer.start_as_current_span("work", kind=SpanKind.CLIENT, attributes={"a": 1}) as span:
        span.set_attribute("b", "x" * 5000)
    assert traced.span.attributes == {"user_id": "anna", "a": 1, "b": "x" * LONGEST_ATTRIBUTE}
    assert (traced.span.name, traced.span.kind) == ("work", SpanKind.CLIENT)
    assert 0 < (traced.span.start_time or 0) <= (traced.span.end_time or 0)


def test_child_belongs_to_the_trace_of_its_parent(traced: Traced) -> None:
    with traced.tracer.start_as_current_span("parent"), traced.tracer.start_as_current_span("child"):
        pass
    child, parent = traced.kept.spans
    assert child.context is not None
    assert parent.context is not None
    assert child.parent == parent.context
    assert child.context.trace_id == parent.context.trace_id
    assert parent.parent is None


def test_trace_that_is_not_sampled_is_not_recorded() -> None:
    traced = Traced(sampled=False)
    with traced.tracer.start_as_current_span("root") as root, traced.tracer.start_as_current_span("child") as child:
        assert not root.is_recording()
        assert child.get_span_context().trace_id == root.get_span_context().trace_id
    assert not traced.kept.spans


def test_caller_decides_whether_its_trace_is_recorded() -> None:
    traced = Traced(sampled=False)
    parent = trace.set_span_in_context(trace.NonRecordingSpan(REMOTE))
    traced.tracer.start_span("answer", parent).end()
    assert traced.span.parent == REMOTE
    assert traced.span.context is not None
    assert traced.span.context.trace_state == REMOTE.trace_state


def test_exception_marks_the_span_and_is_described(traced: Traced) -> None:
    with pytest.raises(ValueError, match="broken"), traced.tracer.start_as_current_span("work"):
        raise ValueError("broken")
    assert traced.span.status.status_code is StatusCode.ERROR
    (event,) = traced.span.events
    assert event.attributes is not None
    assert event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"] == "broken"


def test_ended_span_is_not_changed(traced: Traced) -> None:
    span = traced.tracer.start_span("work")
    span.end(7)
    span.end(9)
    span.set_attribute("late", 1)
    span.set_status(StatusCode.ERROR)
    span.add_event("late")
    span.update_name("late")
    assert (traced.span.name, traced.span.end_time) == ("work", 7)
    assert traced.span.attributes == {"user_id": "anna"}
    assert traced.span.status.is_unset
    assert not traced.span.events


def test_attributes_and_events_of_a_span_are_bounded(traced: Traced) -> None:
    with traced.tracer.start_as_current_span("work") as span:
        for number in range(200):
            span.set_attribute(str(number), number)
            span.add_event(str(number))
    assert len(traced.span.attributes or ()) == 128
    assert len(traced.span.events) == 128
    assert (traced.span.dropped_attributes, traced.span.dropped_events) == (73, 72)


def test_exported_spans_are_those_that_the_sdk_exports(traced: Traced) -> None:
    values: dict[str, Any] = {"text": "é", "long": "x" * 300, "yes": True, "one": 1, "part": 0.5, "many": ["a", "b"]}
    parent = trace.set_span_in_context(trace.NonRecordingSpan(REMOTE))
    with traced.tracer.start_as_current_span(
        "work", parent, SpanKind.SERVER, values, [Link(REMOTE, {"why": 1})]
    ) as span:
        span.add_event("happened", {"how": "well"})
        span.set_status(Status(StatusCode.ERROR, "it failed"))
    traced.tracer.start_span("other").end()
    ours, theirs = encode_spans(traced.kept.spans), encode_with_sdk(traced.kept.spans)
    for message in theirs.resource_spans[0].scope_spans[0].spans:
        if not message.status.code:
            message.ClearField("status")  # an empty message says nothing
    assert ours == theirs


@pytest.mark.parametrize(
    "header",
    [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "nonsense",
        "",
    ],
)
@pytest.mark.parametrize("more", [{}, {"tracestate": "vendor=1"}, {"baggage": "a=b"}])
def test_trace_is_extracted_as_opentelemetry_does(header: str, more: dict[str, str]) -> None:
    carrier = {"traceparent": header, **more} if header else dict(more)
    ours, theirs = extract(carrier), propagate.extract(carrier)
    one, other = (trace.get_current_span(each).get_span_context() for each in (ours, theirs))
    assert one == other
    assert one.trace_state == other.trace_state
    assert baggage.get_all(ours) == baggage.get_all(theirs)


@pytest.mark.parametrize("context", [REMOTE, SpanContext(1, 2, False, TraceFlags(3)), trace.INVALID_SPAN_CONTEXT])
@pytest.mark.parametrize("carried", [False, True])
def test_trace_is_injected_as_opentelemetry_does(context: SpanContext, carried: bool) -> None:
    present = trace.set_span_in_context(trace.NonRecordingSpan(context))
    token = attach(baggage.set_baggage("a", "b", present) if carried else present)
    try:
        ours: dict[str, str] = {}
        theirs: dict[str, str] = {}
        inject(ours)
        propagate.inject(theirs)
        assert ours == theirs
    finally:
        detach(token)
