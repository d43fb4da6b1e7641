"""Middleware for every HTTP request.

It authenticates the caller and assigns a request id, a deadline and a criticality. It limits the concurrent requests
and the size of bodies. It cancels a request when the client disconnects, and records metrics and an access log line.
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

from aurum.api.body_budget import BodyBudget
from aurum.api.gatekeeper import Gatekeeper
from aurum.api.problems import BodyTooLargeError, of_error, problem
from aurum.resilience import (
    ConcurrencyLimit,
    Criticality,
    LimitExceededError,
    criticality_scope,
    received_deadline,
    remaining,
)
from aurum.resilience.durations import parse_duration
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, DeadlineError, InvalidArgumentError, from_policy_error
from aurum.runtime.faults import Faults
from aurum.runtime.health import Health
from aurum.runtime.http_client import TIMEOUT_HEADER
from aurum.runtime.logging import reset_request_context, set_request_context
from aurum.runtime.rpc_client import CRITICALITY_KEY
from aurum.runtime.tracing import current_trace_id, name_caller
from aurum.security.identity import Identity

logger = logging.getLogger("aurum.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})  # probes and scrapes are counted, but not logged
_ALWAYS = _QUIET | {"/health", "/api/events"}  # exempt from admission; event streams have a limit of their own
_CLIENT_GONE = 499
_OVERLOAD = frozenset({429, _CLIENT_GONE, 503, 504})
_READINGS = "/api/readings"
_MOST_OTHER_BYTES = 262_144  # of a body that is no readings; such bodies are parsed as a whole on the event loop
# Closing a connection while a body is still arriving resets it, and the client loses the answer. Therefore the rest of
# a refused body is read and discarded, up to these limits.
_LINGER_SECONDS = 2.0
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
        gatekeeper: Gatekeeper,
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
            gatekeeper: Authenticates and authorizes callers.
            bodies: The budget for all bodies.
            routes: The application's routes, to find the endpoint of requests that are refused before routing.
        """
        self._app = app
        self._health = health
        self._gatekeeper = gatekeeper
        self._bodies = bodies
        self._max_body_bytes = max_body_bytes
        self._admission = admission
        self._faults = faults
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        token = set_request_context(request_id=request_id)
        started = time.perf_counter()
        most = self._max_body_bytes
        if scope["path"] != _READINGS:
            most = min(most, _MOST_OTHER_BYTES)
        exchange = _Exchange(
            headers,
            receive,
            send,
            request_id,
            max_body_bytes=most,
            linger_bytes=self._max_body_bytes,
            last=self._health.draining,
        )
        metrics.http_requests_in_progress.inc()
        try:
            try:
                await self._let_in(scope, headers)
                await self._answer(scope, headers, exchange)
            except AurumError as error:
                if exchange.status is None:
                    await of_error(error)(scope, exchange.receive, exchange.send)
        finally:
            seconds = time.perf_counter() - started
            exchange.free_body()
            metrics.http_requests_in_progress.dec()
            _account(scope, self._endpoint(scope), exchange, seconds)
            reset_request_context(token)

    async def _let_in(self, scope: Scope, headers: Headers) -> None:
        """Authenticates and authorizes the caller, and stores the identity in the scope's state.

        Raises UnauthenticatedError, PermissionDeniedError or ResourceExhaustedError.
        """
        client = scope.get("client")
        address = client[0] if client else ""
        identity = await self._gatekeeper.admit(scope["method"], self._endpoint(scope), headers, address)
        scope.setdefault("state", {})["identity"] = identity
        if identity.kind != "open":
            name_caller(identity.user_id)

    def _endpoint(self, scope: Scope) -> str:
        """Returns the path template of a request, also if it was refused before routing."""
        route = scope.get("route") or next(
            (each for each in self._routes if each.matches(scope)[0] is not Match.NONE), None
        )
        return getattr(route, "path", None) or "unmatched"

    async def _answer(self, scope: Scope, headers: Headers, exchange: "_Exchange") -> None:
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > exchange.max_body_bytes:
            error = BodyTooLargeError(exchange.max_body_bytes)
            await problem(413, error.detail)(scope, exchange.receive, exchange.send)
            return
        if scope["path"] in _ALWAYS:
            await self._app(scope, exchange.receive, exchange.send)
            return
        caller = caller_of(scope, scope["state"]["identity"])
        exchange.hold_body(self._bodies, caller, int(length) if length.isdigit() else 0)
        criticality = _criticality(scope, headers)
        seconds = _timeout(headers)
        with received_deadline(seconds), criticality_scope(criticality):
            async with self._place(criticality, exchange, scope["state"]), exchange.wanted(seconds):
                if self._faults.any:
                    exchange.drip = await self._faults.strike(scope["path"])
                await self._app(scope, exchange.receive, exchange.send)

    @contextlib.asynccontextmanager
    async def _place(
        self, criticality: Criticality, exchange: "_Exchange", state: Mapping[str, Any]
    ) -> AsyncGenerator[None]:
        """Holds one of the places of the admission limit. Raises ResourceExhaustedError if none is free."""
        try:
            await self._admission.acquire_async(remaining(), criticality)
        except LimitExceededError as error:
            raise from_policy_error(error) or error from error
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = None if "beyond_own_share" in state else time.perf_counter() - started
            self._admission.release(seconds, exchange.status in _OVERLOAD)


class _Exchange:
    """One request and its answer.

    Attributes:
        max_body_bytes: Largest allowed body.
        status: Status of the answer; None before it has started.
        received: Received bytes of the body.
        drip: Seconds of delay before each part of the answer, by an injected fault.
    """

    def __init__(
        self,
        headers: Headers,
        receive: Receive,
        send: Send,
        request_id: str,
        *,
        max_body_bytes: int,
        linger_bytes: int,
        last: bool,
    ) -> None:
        """linger_bytes: Largest body of any request, a few times which is discarded of one that is refused."""
        self.max_body_bytes = max_body_bytes
        self.status: int | None = None
        self.received = 0
        self.drip = 0.0
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._linger_bytes = linger_bytes
        self._last = last
        self._encrypted = headers.get("x-forwarded-proto") == "https"  # TLS terminates in front of the API
        self._body_expected = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._body_given = False
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
        message = await self._receive()
        self.received += len(message.get("body", b""))
        if self.received > self.max_body_bytes:
            raise BodyTooLargeError(self.max_body_bytes)
        if self._budget is not None and self.received > self._reserved:
            self._reserve(self.received - self._reserved)  # a body without Content-Length
        if not message.get("more_body", False):
            self._body_done.set()
        return message

    def hold_body(self, budget: BodyBudget, caller: str, nbytes: int) -> None:
        """Reserves budget for the body. Raises ResourceExhaustedError."""
        self._budget, self._caller = budget, caller
        self._reserve(nbytes)

    def free_body(self) -> None:
        """Returns the reserved budget."""
        if self._budget is not None:
            self._budget.give_back(self._caller, self._reserved)
            self._reserved = 0

    def _reserve(self, nbytes: int) -> None:
        if self._budget is not None and nbytes:
            self._budget.take(self._caller, nbytes)
            self._reserved += nbytes

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            out = MutableHeaders(scope=message)
            out["X-Request-ID"] = self._request_id
            out["X-Content-Type-Options"] = "nosniff"
            out.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            if self._encrypted:
                out["Strict-Transport-Security"] = "max-age=31536000; includeSubDomains"
            if trace_id := current_trace_id():
                out["X-Trace-ID"] = trace_id
            if self._last:
                out["Connection"] = "close"
        if self.drip:
            await asyncio.sleep(self.drip)
        ends = message["type"] == "http.response.body" and not message.get("more_body", False)
        if ends and self._body_expected and not self._body_done.is_set():
            await self._send({**message, "more_body": True})
            await self._discard_body()
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _discard_body(self) -> None:
        """Reads the rest of a refused body, within limits, so that the client can finish and read the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while self.received < _LINGER_BODIES * self._linger_bytes:
                    message = await self._receive()
                    self.received += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        self._body_done.set()
                        return

    @contextlib.asynccontextmanager
    async def wanted(self, seconds: float | None) -> AsyncGenerator[None]:
        """Cancels the block when the client's timeout expires, or when it disconnects before the answer starts.

        Raises:
            DeadlineError: The client's timeout has expired.
        """
        task = asyncio.current_task()
        if not self._body_expected:
            self._body_done.set()
        self._watched = True  # after the end of the body, only the watch task calls the server's receive
        watch = asyncio.create_task(self._watch(task), name="client-watch")
        try:
            # Expires after the deadline of the work by a margin, in which the work can still return a better answer
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise DeadlineError(f"no answer within the time that {TIMEOUT_HEADER} allows") from error
        except asyncio.CancelledError:
            if task is None or not self._gone.is_set():
                raise
            task.uncancel()
            self.status = _CLIENT_GONE
        finally:
            watch.cancel()

    async def _watch(self, task: "asyncio.Task[None] | None") -> None:
        await self._body_done.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        if task is not None and self.status is None:
            task.cancel()


def caller_of(scope: Scope, identity: Identity) -> str:
    """Returns the name under which shares of bodies and places are counted.

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
        raise InvalidArgumentError.of(TIMEOUT_HEADER, f"{text!r} is no time; write seconds, such as 1.5") from error
    if seconds <= 0:
        raise InvalidArgumentError.of(TIMEOUT_HEADER, "must be above 0 seconds")
    return seconds


def _criticality(scope: Scope, headers: Headers) -> Criticality:
    """Returns the stated criticality of a request, else the one of its path. Raises InvalidArgumentError."""
    stated = headers.get(CRITICALITY_KEY)
    if stated is not None:
        found = Criticality.parse(stated)
        if found is None:
            names = ", ".join(each.name.lower() for each in Criticality)
            raise InvalidArgumentError.of(CRITICALITY_KEY, f"{stated!r} is none of {names}")
        return found
    path: str = scope["path"]
    if path.startswith("/api/alarms"):
        return Criticality.ALARM
    return Criticality.TELEMETRY if path == "/api/readings" else Criticality.QUERY


def _account(scope: Scope, endpoint: str, exchange: _Exchange, seconds: float) -> None:
    """Records the metrics and the access log line of a finished request."""
    method, status = scope["method"], exchange.status or 500
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
                "request_bytes": exchange.received,
            },
        )
