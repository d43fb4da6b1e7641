"""The latest spans of a process in memory, and which traces were slow, failed or degraded.

They can be inspected without other programs, for example on a laptop.
"""

import collections
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

Reason = Literal["failed", "degraded", "slow"]

_MOST_NOTABLE = 60
_MOST_OF_A_NAME = 12  # so that one frequent failing request does not displace all others
_MOST_SPANS_OF_A_TRACE = 500
_MOST_BYTES = 16_000_000  # approximate size of all spans; their attributes contain data of callers
_SPAN_BYTES, _ATTRIBUTE_BYTES = 1500, 150  # of a span and an attribute without its texts


@dataclass(frozen=True, slots=True)
class NotableTrace:
    """A trace that its first span in this process marks as notable.

    Attributes:
        trace_id: Hexadecimal id of the trace.
        name: Name of the span.
        start: Start of the span, in seconds since 1970.
        seconds: Duration of the span.
        reason: Why the trace is notable.
        detail: Description of the failure or degradation.
    """

    trace_id: str
    name: str
    start: float
    seconds: float
    reason: Reason
    detail: str


class SpanRing(SpanProcessor):
    """Keeps the last `size` ended spans, within _MOST_BYTES. Any thread may end a span.

    Args:
        size: Most spans that are kept.
        slow: Seconds from which a trace is notable.
    """

    def __init__(self, size: int, slow: float) -> None:
        self._size = size
        self._spans: collections.deque[tuple[ReadableSpan, int]] = collections.deque()  # with approximate bytes
        self._bytes = 0
        self._notable: collections.deque[NotableTrace] = collections.deque()
        self._slow = slow
        self._lock = threading.Lock()
        self.added = 0  # number of notable traces so far

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Does nothing, since only ended spans are kept."""

    def on_end(self, span: ReadableSpan) -> None:
        """Keeps an ended span, and judges the trace if the span is the first of this process."""
        nbytes = _size_of(span)
        with self._lock:
            self._spans.append((span, nbytes))
            self._bytes += nbytes
            while len(self._spans) > self._size or self._bytes > _MOST_BYTES:
                self._bytes -= self._spans.popleft()[1]
        if span.parent is not None and not span.parent.is_remote:
            return
        notable = self._judge(span)
        if notable is not None:
            self._add_notable(notable)

    def shutdown(self) -> None:
        """Drops all spans."""
        with self._lock:
            self._spans.clear()
            self._bytes = 0

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Returns True, since nothing is buffered for export."""
        return True

    @property
    def notable(self) -> list[NotableTrace]:
        """The notable traces, the newest first."""
        with self._lock:
            return list(reversed(self._notable))

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """Returns the spans of a trace that are still kept, as JSON and in order of their start."""
        number = int(trace_id, 16)
        with self._lock:
            spans = [span for span, _ in self._spans]
        of_trace = [span for span in spans if span.context is not None and span.context.trace_id == number]
        of_trace.sort(key=lambda span: span.start_time or 0)
        return [as_json(span) for span in of_trace[:_MOST_SPANS_OF_A_TRACE]]

    def _judge(self, span: ReadableSpan) -> NotableTrace | None:
        if span.context is None or span.start_time is None or span.end_time is None:
            return None
        seconds = (span.end_time - span.start_time) / 1e9
        attributes = span.attributes or {}
        if span.status.status_code is StatusCode.ERROR:
            reason, detail = "failed", span.status.description or ""
        elif attributes.get("aurum.degraded") is True:
            reason, detail = "degraded", str(attributes.get("aurum.degraded.reason", ""))
        elif seconds >= self._slow:
            reason, detail = "slow", ""
        else:
            return None
        trace_id = format_trace_id(span.context.trace_id)
        return NotableTrace(trace_id, span.name, span.start_time / 1e9, seconds, reason, detail)  # type: ignore[arg-type]

    def _add_notable(self, trace: NotableTrace) -> None:
        with self._lock:
            same = [each for each in self._notable if each.name == trace.name]
            if len(same) >= _MOST_OF_A_NAME:
                self._notable.remove(same[0])
            elif len(self._notable) >= _MOST_NOTABLE:
                self._notable.popleft()
            self._notable.append(trace)
            self.added += 1


def _size_of(span: ReadableSpan) -> int:
    size = _SPAN_BYTES + len(span.name) + len(span.status.description or "") + _size_of_attributes(span.attributes)
    for event in span.events:
        size += _size_of_attributes(event.attributes)
    return size


def _size_of_attributes(attributes: Mapping[str, Any] | None) -> int:
    if not attributes:
        return 0
    size = _ATTRIBUTE_BYTES * len(attributes)
    for value in attributes.values():
        if isinstance(value, str):
            size += len(value)
    return size


def as_json(span: ReadableSpan) -> dict[str, Any]:
    """Returns the data of a span for a waterfall view. start: Seconds since 1970. seconds: Duration."""
    start, end = span.start_time or 0, span.end_time or 0
    return {
        "trace_id": format_trace_id(span.context.trace_id) if span.context else "",
        "span_id": format_span_id(span.context.span_id) if span.context else "",
        "parent_id": format_span_id(span.parent.span_id) if span.parent else None,
        "service": str(span.resource.attributes.get("service.name", "")),
        "name": span.name,
        "kind": span.kind.name.lower(),
        "start": start / 1e9,
        "seconds": (end - start) / 1e9,
        "failed": span.status.status_code is StatusCode.ERROR,
        "detail": span.status.description or "",
        "attributes": dict(span.attributes or {}),
        "events": [{"name": event.name, "after": (event.timestamp - start) / 1e9} for event in span.events],
    }
