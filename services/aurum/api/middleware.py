"""What happens to each HTTP request: an id, a bound on its body, metrics, one line in the log."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aurum.api.problems import BodyTooLargeError, problem
from aurum.runtime import metrics
from aurum.runtime.logging import reset_request_context, set_request_context
from aurum.runtime.tracing import current_trace_id

logger = logging.getLogger("aurum.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})  # probes and scrapes are counted, not logged


class RequestMiddleware:
    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        token = set_request_context(request_id=request_id)
        started = time.perf_counter()
        status = 500
        received = 0

        async def bounded_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise BodyTooLargeError(self._max_body_bytes)
            return message

        async def marking_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Request-ID"] = request_id
                out["X-Content-Type-Options"] = "nosniff"
                if trace_id := current_trace_id():
                    out["X-Trace-ID"] = trace_id
            await send(message)

        metrics.http_requests_in_progress.inc()
        try:
            length = headers.get("content-length", "0")
            if length.isdigit() and int(length) > self._max_body_bytes:
                error = BodyTooLargeError(self._max_body_bytes)
                await problem(413, error.detail)(scope, receive, marking_send)
            else:
                await self._app(scope, bounded_receive, marking_send)
        finally:
            seconds = time.perf_counter() - started
            metrics.http_requests_in_progress.dec()
            endpoint = getattr(scope.get("route"), "path", None) or "unmatched"
            method = scope["method"]
            metrics.track_request(method, endpoint, status)
            metrics.track_request_duration(method, endpoint, seconds)
            if endpoint not in _QUIET:
                logger.info(
                    "%s %s %d",
                    method,
                    endpoint,
                    status,
                    extra={
                        "method": method,
                        "endpoint": endpoint,
                        "status_code": status,
                        "duration_ms": round(seconds * 1e3, 3),
                        "request_bytes": received,
                    },
                )
            reset_request_context(token)
