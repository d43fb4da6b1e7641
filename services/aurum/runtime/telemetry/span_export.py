"""Exports spans over OTLP.

Most of a span repeats from span to span. So its fields are joined from encoded parts, most of which are kept, and the
protobuf library parses and sends the result.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from google.protobuf.message import Message
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, SpanKind, StatusCode, TraceState

_KEPT, _LONGEST_KEPT = 1000, 200  # encoded attributes; characters of those with a text
_KINDS = {kind: trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}
_CODES = {code: trace_pb2.Status.StatusCode.Value(f"STATUS_CODE_{code.name}") for code in StatusCode}
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200  # flags of a span's parent (SpanFlags)
# bool comes first, because it is an int too
_FIELDS: tuple[tuple[type, Callable[[Any], common_pb2.AnyValue]], ...] = (
    (bool, lambda value: common_pb2.AnyValue(bool_value=value)),
    (str, lambda value: common_pb2.AnyValue(string_value=value)),
    (int, lambda value: common_pb2.AnyValue(int_value=value)),
    (float, lambda value: common_pb2.AnyValue(double_value=value)),
    (bytes, lambda value: common_pb2.AnyValue(bytes_value=value)),
)


# Tags of fields, which are their number and type (protobuf's encoding)
_RESOURCE_SPANS, _SCOPE_SPANS, _SPANS = b"\x0a", b"\x12", b"\x12"
_ATTRIBUTES = b"\x4a"
_IDS, _PARENT = struct.Struct(">2sQQ2sQ"), struct.Struct(">2sQ")
_TIMES = struct.Struct("<cQcQ2sI")


class LeanSpanExporter(OTLPSpanExporter):
    """The exporter of the SDK with a faster encoder."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        return encode_spans(data)


def encode_spans(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """Returns spans as a message, grouped by resource and scope."""
    resources: dict[int, Resource] = {}
    groups: dict[int, dict[InstrumentationScope | None, list[bytes]]] = {}
    for span in spans:
        number = id(span.resource)
        resources[number] = span.resource
        encoded = _span(span)
        groups.setdefault(number, {}).setdefault(span.instrumentation_scope, []).extend(
            (_SPANS, _varint(len(encoded)), encoded)
        )
    request = b""
    for number, scopes in groups.items():
        content = _resource(resources[number])
        for scope, members in scopes.items():
            content += _field(_SCOPE_SPANS, _scope(scope) + b"".join(members))
        request += _field(_RESOURCE_SPANS, content)
    return ExportTraceServiceRequest.FromString(request)


def _resource(resource: Resource) -> bytes:
    message = trace_pb2.ResourceSpans(
        resource=resource_pb2.Resource(attributes=_attributes(resource.attributes)), schema_url=resource.schema_url
    )
    return message.SerializeToString()


def _scope(scope: InstrumentationScope | None) -> bytes:
    if scope is None:
        return b""
    message = trace_pb2.ScopeSpans(schema_url=scope.schema_url or "")
    message.scope.name, message.scope.version = scope.name, scope.version or ""
    message.scope.attributes.extend(_attributes(scope.attributes))
    return message.SerializeToString()


def _span(span: ReadableSpan) -> bytes:
    context, parent = span.get_span_context() or INVALID_SPAN_CONTEXT, span.parent
    trace_id = context.trace_id
    parts = [
        _IDS.pack(b"\x0a\x10", trace_id >> 64, trace_id & 0xFFFF_FFFF_FFFF_FFFF, b"\x12\x08", context.span_id),
        _PARENT.pack(b"\x22\x08", parent.span_id) if parent else b"",
        _name_and_kind(span.name, span.kind),
        _TIMES.pack(b"\x39", span.start_time or 0, b"\x41", span.end_time or 0, b"\x85\x01", _flags(parent)),
    ]
    attributes: Mapping[str, Any] = span.attributes or {}
    for key, value in attributes.items():
        kind: Any = type(value)
        if (kind is str and len(value) <= _LONGEST_KEPT) or kind is int or kind is bool:
            parts.append(_kept_field(key, kind, value))
        else:
            parts.append(_field(_ATTRIBUTES, _message(common_pb2.KeyValue(key=key, value=_value(value)))))
    parts.append(_seldom(span, context))
    return b"".join(parts)


def _seldom(span: ReadableSpan, context: SpanContext) -> bytes:
    """Returns the fields that few spans have."""
    status, events, links = span.status, span.events, span.links
    failed = status.status_code is not StatusCode.UNSET or status.description
    dropped = span.dropped_attributes, span.dropped_events, span.dropped_links
    if not (failed or events or links or context.trace_state or any(dropped)):
        return b""
    message = trace_pb2.Span(
        dropped_attributes_count=dropped[0], dropped_events_count=dropped[1], dropped_links_count=dropped[2]
    )
    if context.trace_state:
        message.trace_state = _state(context.trace_state)
    if failed:
        message.status.code = _CODES[status.status_code]
        message.status.message = status.description or ""
    for event in events:
        message.events.add(name=event.name, time_unix_nano=event.timestamp, attributes=_attributes(event.attributes))
    for link in links:
        message.links.add(
            trace_id=link.context.trace_id.to_bytes(16, "big"),
            span_id=link.context.span_id.to_bytes(8, "big"),
            attributes=_attributes(link.attributes),
            flags=_flags(link.context),
        )
    return _message(message)


@lru_cache(_KEPT)
def _name_and_kind(name: str, kind: SpanKind) -> bytes:
    return _message(trace_pb2.Span(name=name, kind=_KINDS[kind]))


@lru_cache(_KEPT)
def _kept_field(key: str, kind: type, value: Any) -> bytes:
    """kind: Type of the value, since 1 and True are equal."""
    return _field(_ATTRIBUTES, _message(common_pb2.KeyValue(key=key, value=_value(value))))


def _message(message: Message) -> bytes:
    return message.SerializeToString()


def _field(tag: bytes, content: bytes) -> bytes:
    """Returns a field whose value is a message, with its length."""
    return tag + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Returns a number in groups of seven bits, the least significant first."""
    if number < 0x80:
        return _ONE_BYTE[number]
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_ONE_BYTE = [bytes([number]) for number in range(0x80)]


def _flags(context: SpanContext | None) -> int:
    return _HAS_IS_REMOTE | _IS_REMOTE if context is not None and context.is_remote else _HAS_IS_REMOTE


def _state(state: TraceState) -> str:
    return ",".join(f"{key}={value}" for key, value in state.items())


def _attributes(attributes: Mapping[str, Any] | None) -> list[common_pb2.KeyValue]:
    return [common_pb2.KeyValue(key=key, value=_value(value)) for key, value in (attributes or {}).items()]


def _value(value: Any) -> common_pb2.AnyValue:
    for kind, encode in _FIELDS:
        if isinstance(value, kind):
            return encode(value)
    if isinstance(value, Sequence):
        return common_pb2.AnyValue(array_value=common_pb2.ArrayValue(values=[_value(each) for each in value]))
    return common_pb2.AnyValue(string_value=str(value))
