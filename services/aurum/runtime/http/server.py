"""An HTTP server that leaves signal handling to the service."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Any

import uvicorn

from aurum.runtime.http.connection_limits import ConnectionLimits, limited_protocol
from aurum.runtime.listener import BACKLOG

_ACCEPTED_AT_ONCE = 32


_TICK = 1.0  # seconds between two looks of a server at its state; uvicorn's own are ten times as many
_TICKS = 10  # by which uvicorn counts one second


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Makes the server end at once."""
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += _TICKS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._ending.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield  # the service handles signals for all of its servers


@contextlib.asynccontextmanager
async def http_server(
    app: Any,
    listener: socket.socket,
    grace: float,
    bounds: ConnectionLimits = ConnectionLimits(),  # noqa: B008 - it cannot change
    trusted_proxies: str = "",
) -> AsyncGenerator[None]:
    """Serves `app` on `listener` during the block. Requests in progress then get `grace` seconds.

    Args:
        app: The ASGI application.
        listener: The listening socket.
        grace: Seconds for the requests in progress at the end.
        bounds: Bounds of the connections.
        trusted_proxies: Addresses and networks, separated by commas, of proxies whose forwarding headers are trusted.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=max(1, int(grace)),
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies,
        timeout_keep_alive=30,
        backlog=_ACCEPTED_AT_ONCE,
        http=limited_protocol(bounds),
        ws="none",
        h11_max_incomplete_event_size=bounds.head_bytes,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name=f"http:{listener.getsockname()[1]}")
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        if task.done():
            await task
        listener.listen(BACKLOG)  # more connections may wait than are accepted in one turn of the event loop
        yield
    finally:
        server.end()
        await task
