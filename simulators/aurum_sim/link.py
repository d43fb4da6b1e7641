"""A failing network link: a TCP relay that cuts its connections and refuses new ones while it is down."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

logger = logging.getLogger(__name__)

_CHUNK = 65_536


class FlakyLink:
    """Relays 127.0.0.1:`port` to a target. Use as `async with FlakyLink(...) as link`."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.up = True
        self.port = 0

    async def __aenter__(self) -> "FlakyLink":
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._server:
            self._server.close()
        self.cut()
        self.up = False

    @property
    def address(self) -> str:
        """The host:port at which the link listens."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Takes the link down and cuts its connections."""
        self.up = False
        for connection in self._connections:
            connection.cancel()

    def restore(self) -> None:
        """Brings the link up again."""
        self.up = True

    async def fail_on_schedule(self, up_seconds: float, down_seconds: float) -> None:
        """Alternates between up and down. Runs until cancelled."""
        while True:
            await asyncio.sleep(up_seconds)
            logger.warning("scheduled outage: the uplink is down for %.0f s", down_seconds)
            self.cut()
            await asyncio.sleep(down_seconds)
            self.restore()
            logger.info("scheduled outage: the uplink is up again")

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if not self.up or task is None:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            async with _connection(*self._target) as (upstream_reader, upstream_writer), asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, upstream_writer))
                group.create_task(_copy(upstream_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # one side has disconnected, which is normal for a failing link
        finally:
            self._connections.discard(task)
            writer.transport.abort()


@contextlib.asynccontextmanager
async def _connection(host: str, port: int) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError("the peer has closed the connection")
