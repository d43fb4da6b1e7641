"""Sends the trace along with a call, and takes it from one: W3C trace context, without detours in the usual case.

OpenTelemetry's propagators handle everything else: trace state, baggage, and those that OTEL_PROPAGATORS names.
"""

import os
import re
from collections.abc import Mapping
from functools import lru_cache

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_USUAL = {"tracecontext", "baggage"}
_TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_OTHER_HEADERS = ("tracestate", "baggage")


@lru_cache(1)
def _usual() -> bool:
    named = os.environ.get("OTEL_PROPAGATORS", "tracecontext,baggage")
    return {name.strip() for name in named.split(",")} == _USUAL


def inject(carrier: dict[str, str]) -> None:
    """Adds the current trace to the headers or metadata of a call."""
    span = trace.get_current_span().get_span_context()
    if span.trace_state or not _usual() or baggage.get_all():
        propagate.inject(carrier)
    elif span.is_valid:
        carrier["traceparent"] = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def extract(carrier: Mapping[str, str]) -> Context:
    """Returns the context of a call from its headers or metadata, whose names are in lower case."""
    if not _usual() or any(name in carrier for name in _OTHER_HEADERS):
        return propagate.extract(carrier)
    match = _TRACEPARENT.fullmatch(carrier.get("traceparent", ""))
    if match is None:  # there is none, or it is of a later version
        return propagate.extract(carrier) if "traceparent" in carrier else Context()
    trace_id, span_id, flags = match.groups()
    span = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
    return trace.set_span_in_context(NonRecordingSpan(span), Context()) if span.is_valid else Context()
