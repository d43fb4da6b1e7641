"""Limits of HTTP connections in time, size and number.

Clients that send slowly, send endless headers or open a thousand connections are disconnected, without effect on
others.
"""

import asyncio
import collections
import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from aurum.runtime import metrics

# Overdue connections end in groups of this size, with so many seconds in between, so that other work is not delayed
_ENDED_AT_ONCE, _PAUSE = 8, 0.005
_ENDINGS = {408: "Request Timeout", 429: "Too Many Requests", 431: "Request Header Fields Too Large"}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of the HTTP connections of a server.

    Attributes:
        head_seconds: Time for the request line and the headers.
        head_bytes: Size of the request line and the headers.
        body_seconds: Time for the whole body.
        per_address: Connections of one address.
        connections: Connections in all. If there are more, the one that has waited longest for its headers is ended.
    """

    head_seconds: float = 10.0
    head_bytes: int = 65_536
    body_seconds: float = 120.0
    per_address: int = 1000
    connections: int = 2000


class _OpenConnections:
    """The open connections of one server, and which of them are waited for."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._by_address: collections.Counter[str] = collections.Counter()
        self._without_head: collections.OrderedDict[Any, None] = collections.OrderedDict()  # oldest first
        self._overdue: collections.OrderedDict[Any, None] = collections.OrderedDict()

    def opened(self, address: str) -> bool:
        """Counts a connection. Returns whether its address may have so many."""
        self._by_address[address] += 1
        return self._by_address[address] <= self.limits.per_address

    def closed(self, address: str) -> None:
        """Stops counting a connection."""
        self._by_address[address] -= 1
        if self._by_address[address] <= 0:
            del self._by_address[address]

    def longest_without_head(self) -> Any:
        """Returns the connection that has waited longest for its headers."""
        return next(iter(self._without_head))

    def await_stage(self, connection: Any, stage: str) -> None:
        """Notes which phase of a connection is limited in time: "head", "body", or none ("")."""
        if stage == "head":
            self._without_head[connection] = None
        else:
            self._without_head.pop(connection, None)
        self._overdue.pop(connection, None)

    def forget(self, connection: Any) -> None:
        """Waits no longer for a connection."""
        self._without_head.pop(connection, None)
        self._overdue.pop(connection, None)

    def end_later(self, connection: Any) -> None:
        """Ends an overdue connection soon, together with others."""
        if not self._overdue:
            connection.loop.call_soon(self._end_overdue, connection.loop)
        self._overdue[connection] = None

    def _end_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        for connection in list(itertools.islice(self._overdue, _ENDED_AT_ONCE)):
            connection.end(408, f"{connection.stage}_time")
        if self._overdue:
            loop.call_later(_PAUSE, self._end_overdue, loop)


class _LimitedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type] # which of two depends on what is installed
    """Uvicorn's protocol with limits. `limited_protocol` derives a class for each server."""

    open_connections: ClassVar[_OpenConnections]
    stage = ""  # phase that the timer limits
    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        limits = self.open_connections.limits
        if not self.open_connections.opened(self._address):
            self.end(429, "connections")
            return
        self._limit_stage(limits.head_seconds, "head")
        if len(self.connections) > limits.connections:
            self.open_connections.longest_without_head().end(408, "crowded")

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit_stage(None)
        self.open_connections.closed(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        limits = self.open_connections.limits
        if self._between_requests():
            self._head_bytes += len(data)
            if self.stage != "head":
                self._limit_stage(limits.head_seconds, "head")
        super().data_received(data)
        if self._between_requests():
            if self._head_bytes > limits.head_bytes:
                self.end(431, "head_size")
            return
        self._head_bytes = 0
        if not self.cycle.more_body:
            self._limit_stage(None)
        elif self.stage != "body":
            self._limit_stage(limits.body_seconds, "body")

    def end(self, status: int, why: str) -> None:
        """Ends the connection, with a status if no response may have begun."""
        self.open_connections.forget(self)
        metrics.http_connections_ended_total.labels(why).inc()
        if not self.transport.is_closing():
            if self._between_requests():
                head = f"HTTP/1.1 {status} {_ENDINGS[status]}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                self.transport.write(head.encode())
            self.transport.close()

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _limit_stage(self, seconds: float | None, stage: str = "") -> None:
        """Begins a phase that may take `seconds`; None for one without a limit."""
        if self._timer is not None:
            self._timer.cancel()
        self.open_connections.await_stage(self, stage)
        self.stage = stage
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.open_connections.end_later, self)


def limited_protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """Returns uvicorn's protocol with these limits. Each server needs its own class, which counts its connections."""
    protocol: Any = type("LimitedProtocol", (_LimitedProtocol,), {"open_connections": _OpenConnections(limits)})
    return protocol  # type: ignore[no-any-return]
