"""Middleware for every HTTP request.

It authenticates the caller and assigns a request id, a deadline and a criticality. It limits the concurrent requests
and the size of bodies, which it decompresses. A HEAD request is handled as a GET whose body is not sent. It cancels a
request when the client disconnects, and records metrics and an access log line.
"""

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aurum.api import metrics
from aurum.api.access_control import AccessControl
from aurum.api.body_budget import BodyBudget
from aurum.api.gzip_body import GzipBody
from aurum.api.problems import BodyTooLargeError, error_response, problem_response
from aurum.api.request_spans import name_request
from aurum.resilience import (
    ConcurrencyLimit,
    Criticality,
    LimitExceededError,
    criticality_scope,
    received_deadline,
    remaining,
)
from aurum.resilience.durations import parse_duration
from aurum.resilience.status import OVERLOAD_OF_SELF, http_status
from aurum.runtime.errors import AurumError, DeadlineError, InvalidArgumentError, from_policy_error
from aurum.runtime.faults import Faults
from aurum.runtime.grpc.client import CRITICALITY_KEY
from aurum.runtime.health import PROBES, Health
from aurum.runtime.http.client import TIMEOUT_HEADER
from aurum.runtime.rpc_methods import INGESTION_SERVICE, METHODS
from aurum.runtime.telemetry.logging import reset_request_context, set_request_context
from aurum.runtime.telemetry.tracing import current_trace_id, name_caller
from aurum.security.identity import Identity

logger = logging.getLogger("aurum.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_UNLOGGED = frozenset(PROBES)  # probes and scrapes are counted, but not logged
_EXEMPT = _UNLOGGED | {"/health", "/api/events"}  # from admission; event streams have a limit of their own
_READINGS_PATH = "/api/readings"
# Paths whose POST has the class of the method that it calls
_WRITES = {
    _READINGS_PATH: METHODS[f"/{INGESTION_SERVICE}/Write"],
    "/api/machines": METHODS[f"/{INGESTION_SERVICE}/RegisterMachine"],
}
_CLIENT_GONE = http_status("CANCELLED")
_OVERLOAD = frozenset(map(http_status, OVERLOAD_OF_SELF))
_MAX_OTHER_BODY_BYTES = 65_536  # of other bodies, which are parsed as a whole on the event loop
_MAX_BODY_BYTES_OF = {
    "/api/predict": 262_144,  # the features of a model with hundreds of sensors
    "/api/alarms/rules": 262_144,  # all alarm rules
}
# Closing a connection while a body is still arriving resets it, and the client loses the answer. Therefore the rest of
# a refused body is read and discarded, up to these limits. On a busy machine, or over a slow line, a large body that
# arrives without pauses takes many seconds.
_LINGER_SECONDS = 30.0
_LINGER_PAUSE = 2.0  # seconds without a part of the body after which its sender is not waited for
_LINGER_BODIES = 4  # times the largest allowed body


class RequestMiddleware:
    """ASGI middleware that handles every HTTP request before and after the application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        admission: ConcurrencyLimit,
        faults: Faults,
        health: Health,
        access_control: AccessControl,
        bodies: BodyBudget,
        routes: Sequence[BaseRoute],
    ) -> None:
        """Wraps an application.

        Args:
            app: The wrapped application.
            max_body_bytes: Largest allowed body of readings; other bodies have a lower limit.
            admission: The limit on concurrent requests.
            faults: Faults to inject.
            health: Tells when the service is draining.
            access_control: Authenticates and authorizes callers.
            bodies: The budget for all bodies.
            routes: The application's routes, to find the endpoint of requests that are refused before routing.
        """
        self._app = app
        self._health = health
        self._access_control = access_control
        self._bodies = bodies
        self._max_body_bytes = max_body_bytes
        self._admission = admission
        self._faults = faults
        self._routes = routes
        # Templates without parameters, which are paths, unless an earlier route matches them too
        self._fixed = {path: path for route in routes if "{" not in (path := getattr(route, "path", "{"))}
        for path in self._fixed:
            self._fixed[path] = self._matching({"type": "http", "path": path, "method": "GET", "root_path": ""})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request. Connections other than HTTP go to the application as they are."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}
        headers = Headers(scope=scope)
        stated = headers.get("x-request-id", "")
        request_id = stated if _REQUEST_ID.fullmatch(stated) else uuid.uuid4().hex
        token = set_request_context(request_id=request_id)
        started = time.perf_counter()
        max_body_bytes = self._max_body_bytes
        if scope["path"] != _READINGS_PATH:
            max_body_bytes = min(max_body_bytes, _MAX_BODY_BYTES_OF.get(scope["path"], _MAX_OTHER_BODY_BYTES))
        exchange = _Exchange(
            headers,
            receive,
            send,
            request_id,
            max_body_bytes=max_body_bytes,
            max_discarded_bytes=_LINGER_BODIES * self._max_body_bytes,
            closing=self._health.draining,
            only_head=method == "HEAD",
        )
        metrics.http_requests_in_progress.inc()
        try:
            try:
                await self._authorize(scope, headers)
                await self._handle(scope, headers, exchange)
            except AurumError as error:
                if exchange.status is None:
                    await error_response(error)(scope, exchange.receive, exchange.send)
        finally:
            seconds = time.perf_counter() - started
            exchange.release_body()
            metrics.http_requests_in_progress.dec()
            endpoint = self._endpoint(scope)
            name_request(method, endpoint)
            _record_request(method, endpoint, exchange, seconds)
            reset_request_context(token)

    async def _authorize(self, scope: Scope, headers: Headers) -> None:
        """Authenticates and authorizes the caller, and stores the identity in the scope's state.

        Raises:
            UnauthenticatedError: The credentials are missing or wrong.
            PermissionDeniedError: The caller may not make this request.
            ResourceExhaustedError: The caller exceeds its rate.
        """
        client = scope.get("client")
        address = client[0] if client else ""
        identity = await self._access_control.admit(scope["method"], self._endpoint(scope), headers, address)
        scope.setdefault("state", {})["identity"] = identity
        if identity.kind != "open":
            name_caller(identity.user_id)

    def _endpoint(self, scope: Scope) -> str:
        """Returns the path template of a request, also if it was refused before routing."""
        route = scope.get("route")
        if route is None:
            return self._fixed.get(scope["path"]) or self._matching(scope)
        return getattr(route, "path", None) or "unmatched"

    def _matching(self, scope: Scope) -> str:
        route = next((route for route in self._routes if route.matches(scope)[0] is not Match.NONE), None)
        return getattr(route, "path", None) or "unmatched"

    async def _handle(self, scope: Scope, headers: Headers, exchange: "_Exchange") -> None:
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > exchange.max_body_bytes:
            error = BodyTooLargeError(exchange.max_body_bytes)
            await problem_response(413, error.detail, kind="request-entity-too-large")(
                scope, exchange.receive, exchange.send
            )
            return
        if encoding := exchange.unsupported_encoding:
            detail = f"the Content-Encoding {encoding[:40]!r} is not supported; send the body as it is, or with gzip"
            answer = problem_response(415, detail, headers={"Accept-Encoding": "gzip"})
            await answer(scope, exchange.receive, exchange.send)
            return
        if scope["path"] in _EXEMPT:
            await self._app(scope, exchange.receive, exchange.send)
            return
        caller = caller_of(scope, scope["state"]["identity"])
        exchange.reserve_body(self._bodies, caller, int(length) if length.isdigit() else 0)
        criticality = _criticality(scope, headers)
        seconds = _timeout(headers)
        with received_deadline(seconds), criticality_scope(criticality):
            async with self._hold_place(criticality, exchange, scope["state"]), exchange.cancel_if_unwanted(seconds):
                if self._faults.any_active:
                    exchange.delay = await self._faults.apply(scope["path"])
                await self._app(scope, exchange.receive, exchange.send)

    @contextlib.asynccontextmanager
    async def _hold_place(
        self, criticality: Criticality, exchange: "_Exchange", state: Mapping[str, Any]
    ) -> AsyncGenerator[None]:
        """Holds one of the places of the admission limit. Raises ResourceExhaustedError if none is free."""
        try:
            await self._admission.acquire_async(remaining(), criticality)
        except LimitExceededError as error:
            raise from_policy_error(error) or error from error
        started = time.perf_counter()
        status: int | None = None
        try:
            yield
        except AurumError as error:  # answered by the caller of this method
            status = http_status(error.code.name)
            raise
        finally:
            seconds = None if "beyond_own_share" in state else time.perf_counter() - started
            self._admission.release(seconds, (exchange.status or status) in _OVERLOAD)


class _Exchange:
    """One request and its answer.

    Attributes:
        max_body_bytes: Largest allowed body.
        status: Status of the answer; None before it has started.
        received: Received bytes of the body.
        unsupported_encoding: The encoding of the body if it is not supported; else empty.
        delay: Seconds of delay before each part of the answer, by an injected fault.
    """

    def __init__(
        self,
        headers: Headers,
        receive: Receive,
        send: Send,
        request_id: str,
        *,
        max_body_bytes: int,
        max_discarded_bytes: int,
        closing: bool,
        only_head: bool,
    ) -> None:
        """Wraps the channels of a request.

        Args:
            headers: The headers of the request.
            receive: Receives from the client.
            send: Sends to the client.
            request_id: The id of the request.
            max_body_bytes: Largest allowed body, after decompression.
            max_discarded_bytes: Bytes of a refused body after which reading stops.
            closing: Whether the connection is closed after the answer.
            only_head: Whether the body of the answer is left out.
        """
        self.max_body_bytes = max_body_bytes
        self.status: int | None = None
        self.received = 0
        self.delay = 0.0
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._max_discarded_bytes = max_discarded_bytes
        self._closing = closing
        self._encrypted = headers.get("x-forwarded-proto") == "https"  # TLS terminates in front of the API
        self._body_expected = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._body_given = False
        self._only_head = only_head
        encoding = headers.get("content-encoding", "").strip().lower() if self._body_expected else ""
        self._gzip = GzipBody() if encoding in ("gzip", "x-gzip") else None
        self.unsupported_encoding = "" if self._gzip or encoding in ("", "identity") else encoding
        self._decompressed = 0  # bytes
        self._arrived = False  # whether all of the body has arrived
        self._budget: BodyBudget | None = None
        self._caller = ""
        self._reserved = 0  # bytes of the budget
        self._watched = False
        self._body_done = asyncio.Event()
        self._gone = asyncio.Event()

    async def receive(self) -> Message:
        """Returns the next part of the body. After its end, waits until the client disconnects.

        A request without a body has one empty part.
        """
        if not self._body_expected and not self._body_given:
            self._body_given = True
            self._body_done.set()
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._body_done.is_set() and self._watched:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        message = await (self._receive_part() if self._gzip is None else self._receive_decompressed(self._gzip))
        if not message.get("more_body", False):
            self._body_done.set()
        return message

    async def _receive_part(self) -> Message:
        """Returns the next part of the body as it arrives. Raises BodyTooLargeError, ResourceExhaustedError."""
        message = await self._receive()
        self.received += len(message.get("body", b""))
        self._arrived = not message.get("more_body", False)
        self._check_size(self.received)
        return message

    async def _receive_decompressed(self, body: GzipBody) -> Message:
        """Returns the next part of a compressed body. Raises also InvalidArgumentError if it is damaged."""
        while True:
            if part := body.next_part():
                self._decompressed += len(part)
                self._check_size(self._decompressed)
                await asyncio.sleep(0)  # other requests come in between, although this part needs not be waited for
                return {"type": "http.request", "body": part, "more_body": True}
            if body.ended:
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._receive_part()
            if message["type"] != "http.request":
                return message
            body.feed(message.get("body", b""), more=message.get("more_body", False))

    def _check_size(self, nbytes: int) -> None:
        """Reserves budget for what exceeds the Content-Length. Raises BodyTooLargeError, ResourceExhaustedError."""
        if nbytes > self.max_body_bytes:
            raise BodyTooLargeError(self.max_body_bytes)
        if self._budget is not None and nbytes > self._reserved:
            self._reserve(nbytes - self._reserved)

    def reserve_body(self, budget: BodyBudget, caller: str, nbytes: int) -> None:
        """Reserves budget for the body. Raises ResourceExhaustedError."""
        self._budget, self._caller = budget, caller
        self._reserve(nbytes)

    def release_body(self) -> None:
        """Returns the reserved budget."""
        if self._budget is not None:
            self._budget.release(self._caller, self._reserved)
            self._reserved = 0

    def _reserve(self, nbytes: int) -> None:
        if self._budget is not None and nbytes:
            self._budget.reserve(self._caller, nbytes)
            self._reserved += nbytes

    async def send(self, message: Message) -> None:
        """Sends a part of the answer, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            if self._encrypted:
                headers["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
            if trace_id := current_trace_id():
                headers["X-Trace-ID"] = trace_id
            if self._closing:
                headers["Connection"] = "close"
        if self.delay:
            await asyncio.sleep(self.delay)
        if self._only_head:
            await self._send_head(message)
            return
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and self._body_expected and not self._arrived:
            await self._send({**message, "more_body": True})
            await self._discard_body()
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _send_head(self, message: Message) -> None:
        """Ends the answer after its headers, also one whose body would never end."""
        if message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body"})

    async def _discard_body(self) -> None:
        """Reads the rest of a refused body, within limits, so that the client can finish and read the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while self.received < self._max_discarded_bytes:
                    async with asyncio.timeout(_LINGER_PAUSE):
                        message = await self._receive()
                    self.received += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        self._arrived = True
                        self._body_done.set()
                        return

    @contextlib.asynccontextmanager
    async def cancel_if_unwanted(self, seconds: float | None) -> AsyncGenerator[None]:
        """Cancels the block when the client's timeout expires, or when it disconnects before the answer starts.

        Raises:
            DeadlineError: The client's timeout has expired.
        """
        task = asyncio.current_task()
        if not self._body_expected:
            self._body_done.set()
        self._watched = True  # after the end of the body, only the watch task calls the server's receive
        watch = asyncio.create_task(self._watch_client(task), name="client-watch")
        try:
            # Expires after the deadline of the work by a margin, in which the work can still return a better answer
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise DeadlineError(f"the request was not answered within the {TIMEOUT_HEADER}") from error
        except asyncio.CancelledError:
            if task is None or not self._gone.is_set():
                raise
            task.uncancel()
            self.status = _CLIENT_GONE
        finally:
            watch.cancel()

    async def _watch_client(self, task: "asyncio.Task[None] | None") -> None:
        await self._body_done.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        if task is not None and self.status is None:
            task.cancel()


def caller_of(scope: Scope, identity: Identity) -> str:
    """Returns the name under which a caller's shares of bodies and places are counted.

    It is the identity, or the client's address if callers are not authenticated.
    """
    client = scope.get("client")
    return identity.user_id if identity.kind != "open" else client[0] if client else ""


def _timeout(headers: Headers) -> float | None:
    """Returns the timeout that the client states, in seconds, or None. Raises InvalidArgumentError if it is invalid."""
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        seconds = parse_duration(text if text[-1:].isalpha() else f"{text}s")
    except ValueError as error:
        raise InvalidArgumentError.for_field(
            TIMEOUT_HEADER, f"{text!r} is not a duration; write seconds, such as 1.5"
        ) from error
    if seconds <= 0:
        raise InvalidArgumentError.for_field(TIMEOUT_HEADER, "must be above 0 seconds")
    return seconds


def _criticality(scope: Scope, headers: Headers) -> Criticality:
    """Returns the stated criticality of a request, else the one of its path. Raises InvalidArgumentError."""
    stated = headers.get(CRITICALITY_KEY)
    if stated is not None:
        criticality = Criticality.parse(stated)
        if criticality is None:
            names = ", ".join(known.name.lower() for known in Criticality)
            raise InvalidArgumentError.for_field(CRITICALITY_KEY, f"{stated!r} is not one of {names}")
        return criticality
    path: str = scope["path"]
    if path.startswith("/api/alarms"):
        return Criticality.ALARM
    method = _WRITES.get(path) if scope["method"] == "POST" else None
    return method.criticality if method else Criticality.QUERY


def _record_request(method: str, endpoint: str, exchange: _Exchange, seconds: float) -> None:
    """Records the metrics and the access log line of a finished request."""
    status = exchange.status or 500
    metrics.track_request(method, endpoint, status)
    metrics.track_request_duration(method, endpoint, seconds)
    if endpoint not in _UNLOGGED:
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
                "request_bytes": exchange.received,
            },
        )
