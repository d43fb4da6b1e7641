"""A network between two processes that can be told to fail: to let bytes vanish, to be slow, to reset."""

import asyncio
import contextlib
import threading
from typing import Literal

Mode = Literal["pass", "drop", "delay", "reset"]


class Proxy:
    """Relays 127.0.0.1:`port` to a target, on a thread of its own, until `close`."""

    def __init__(self, target: int, port: int = 0) -> None:
        self.mode: Mode = "pass"
        self.port = port
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def set(self, mode: Mode) -> None:
        """drop: connections stay open and nothing arrives. delay: half a second later. reset: connections break."""
        self.mode = mode
        if mode == "reset":
            self._loop.call_soon_threadsafe(self._break)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._relay, "127.0.0.1", self.port))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._break()
        self._loop.run_until_complete(asyncio.sleep(0.1))
        self._loop.close()

    def _break(self) -> None:
        for connection in self._connections:
            connection.cancel()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.mode == "reset":
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
            finally:
                far_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self.mode == "delay":
                await asyncio.sleep(0.5)
            while self.mode == "drop":  # noqa: ASYNC110 - set from another thread
                await asyncio.sleep(0.05)
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError
