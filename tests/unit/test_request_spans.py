"""The span of an HTTP request: its name, its attributes, and whether it failed."""

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.types import Message, Receive, Scope, Send

from aurum.api import request_spans
from aurum.api.request_spans import RequestSpans, name_request
from aurum.runtime.telemetry.spans import LeanTracerProvider


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = LeanTracerProvider(Resource({}), lambda trace_id: True, dict)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(request_spans, "get_tracer", provider.get_tracer)
    return exporter


def _scope(**more: Any) -> Scope:
    return {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/api/predict",
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(b"host", b"plant.example:8080")],
        **more,
    }


async def _request(status: int | None, error: Exception | None = None, **more: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        name_request(scope["method"], "/api/predict")
        if error is not None:
            raise error
        if status is not None:
            await send({"type": "http.response.start", "status": status, "headers": []})

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pass

    await RequestSpans(app, ["/livez"])(_scope(**more), receive, send)


def _only(exported: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exported.get_finished_spans()
    return span


async def test_request_span_has_conventional_attributes(exported: InMemorySpanExporter) -> None:
    await _request(200, query_string=b"top=5&sig=secret")
    span = _only(exported)
    assert span.name == "POST /api/predict"
    assert span.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/api/predict",
        "network.protocol.version": "1.1",
        "server.address": "plant.example",
        "server.port": 8080,
        "url.path": "/api/predict",
        "url.query": "top=5&sig=REDACTED",
        "url.scheme": "http",
    }
    assert span.status.is_unset


async def test_request_continues_the_trace_of_its_client(exported: InMemorySpanExporter) -> None:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await _request(200, headers=[(b"traceparent", parent), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")])
    span = _only(exported)
    assert span.parent is not None
    assert span.parent.span_id == 0xB7AD6B7169203331
    assert dict(span.parent.trace_state) == {"a": "1", "b": "2"}
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(("status", "kind"), [(503, "503"), (None, "incomplete_response")])
async def test_span_of_failed_request_is_marked(exported: InMemorySpanExporter, status: int | None, kind: str) -> None:
    await _request(status)
    span = _only(exported)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == kind


async def test_span_of_request_that_raised_names_the_error(exported: InMemorySpanExporter) -> None:
    with pytest.raises(LookupError):
        await _request(200, LookupError("no such thing"))
    assert (_only(exported).attributes or {})["error.type"] == "LookupError"


async def test_clients_errors_do_not_mark_the_span(exported: InMemorySpanExporter) -> None:
    await _request(404)
    assert _only(exported).status.is_unset


async def test_unknown_method_and_malformed_host_are_bounded(exported: InMemorySpanExporter) -> None:
    await _request(405, method="BREW", headers=[(b"host", b"[::1")])
    span = _only(exported)
    assert span.name == "HTTP /api/predict"
    assert (span.attributes or {})["http.request.method"] == "_OTHER"
    assert "server.address" not in (span.attributes or {})


async def test_probes_have_no_span(exported: InMemorySpanExporter) -> None:
    await _request(200, path="/livez")
    assert not exported.get_finished_spans()
