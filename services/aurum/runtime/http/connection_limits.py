"""HTTP connections that are bounded in time, size and number.

Clients that send slowly, send endless headers or open a thousand connections are disconnected, without effect on
others.
"""

import asyncio
import collections
import itertools
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from aurum.runtime import metrics

# Overdue connections end in groups of this size, with so many seconds in between, so that other work is not delayed
_ENDED_AT_ONCE, _PAUSE = 8, 0.005
_ENDINGS = {408: "Request Timeout", 429: "Too Many Requests", 431: "Request Header Fields Too Large"}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of the HTTP connections of a server.

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


def limited_protocol(bounds: ConnectionLimits) -> type[asyncio.Protocol]:
    """Returns uvicorn's protocol with these bounds. Each server needs its own class, which counts its connections."""
    open_by_address: collections.Counter[str] = collections.Counter()
    without_head: collections.OrderedDict[Any, None] = collections.OrderedDict()  # without headers, oldest first
    overdue: collections.OrderedDict[Any, None] = collections.OrderedDict()

    def end_overdue(loop: asyncio.AbstractEventLoop) -> None:
        for connection in list(itertools.islice(overdue, _ENDED_AT_ONCE)):
            connection._end(408, f"{connection._stage}_time")
        if overdue:
            loop.call_later(_PAUSE, end_overdue, loop)

    class Bounded(AutoHTTPProtocol):  # type: ignore[misc, valid-type] # which of two it is depends on what is installed
        _timer: asyncio.TimerHandle | None = None
        _stage = ""  # phase that the timer limits
        _head_bytes = 0
        _address = ""

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            peer = transport.get_extra_info("peername")
            self._address = str(peer[0]) if peer else ""
            open_by_address[self._address] += 1
            if open_by_address[self._address] > bounds.per_address:
                self._end(429, "connections")
                return
            self._within(bounds.head_seconds, "head")
            if len(self.connections) > bounds.connections:
                next(iter(without_head))._end(408, "crowded")

        def connection_lost(self, exc: Exception | None) -> None:
            self._within(None)
            open_by_address[self._address] -= 1
            if open_by_address[self._address] <= 0:
                del open_by_address[self._address]
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            if self._between_requests():
                self._head_bytes += len(data)
                if self._stage != "head":
                    self._within(bounds.head_seconds, "head")
            super().data_received(data)
            if self._between_requests():
                if self._head_bytes > bounds.head_bytes:
                    self._end(431, "head_size")
                return
            self._head_bytes = 0
            if not self.cycle.more_body:
                self._within(None)
            elif self._stage != "body":
                self._within(bounds.body_seconds, "body")

        def _between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _within(self, seconds: float | None, stage: str = "") -> None:
            if self._timer is not None:
                self._timer.cancel()
            if stage == "head":
                without_head[self] = None
            else:
                without_head.pop(self, None)
            overdue.pop(self, None)
            self._stage = stage
            self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)

        def _late(self) -> None:
            if not overdue:
                self.loop.call_soon(end_overdue, self.loop)
            overdue[self] = None

        def _end(self, status: int, why: str) -> None:
            without_head.pop(self, None)
            overdue.pop(self, None)
            metrics.http_connections_ended_total.labels(why).inc()
            if not self.transport.is_closing():
                if self._between_requests():  # otherwise a response may have begun
                    head = f"HTTP/1.1 {status} {_ENDINGS[status]}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                    self.transport.write(head.encode())
                self.transport.close()

    found: Any = Bounded
    return found  # type: ignore[no-any-return]
