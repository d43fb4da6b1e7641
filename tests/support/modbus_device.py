"""Modbus TCP devices with the habits of real ones: holes, several units on one connection, no answers, late answers."""

import asyncio
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.ports import free_port

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, BUSY, GATEWAY_NO_RESPONSE = 1, 2, 6, 11


@dataclass
class Unit:
    """A unit behind a connection.

    Attributes:
        words: Its registers by address. Others do not exist.
        bits: Its coils and discrete inputs by address.
        max_count: The longest request that it answers.
        delay: Seconds until an answer.
        error: The exception code of every answer; None for data.
        mute: Whether it answers nothing.
        unanswered: Addresses to which requests are not answered.
    """

    words: dict[int, int] = field(default_factory=dict)
    bits: dict[int, bool] = field(default_factory=dict)
    max_count: int = 125
    delay: float = 0.0
    error: int | None = None
    mute: bool = False
    unanswered: set[int] = field(default_factory=set)

    def answer(self, function: int, address: int, count: int) -> bytes | None:
        """Returns the answer to a request; None if there is none."""
        asked = range(address, address + count)
        if self.mute or self.unanswered & set(asked):
            return None
        values: dict[int, int] | dict[int, bool] = self.words if function in (3, 4) else self.bits
        error = self.error
        if error is None and (count > self.max_count or not all(each in values for each in asked)):
            error = ILLEGAL_ADDRESS
        if error is not None:
            return struct.pack(">BB", function | 0x80, error)
        if function in (3, 4):
            return struct.pack(f">BB{count}H", function, 2 * count, *(values[each] for each in asked))
        packed = sum(int(values[each]) << position for position, each in enumerate(asked))
        size = (count + 7) // 8
        return struct.pack(">BB", function, size) + packed.to_bytes(size, "little")


class ModbusDevice:
    """A server with units on a thread of its own.

    Attributes:
        units: The units by id. Requests to others are not answered.
        asked: The unit, first address and number of registers of each request.
        connections: The number of connections that were opened.
        refused: The number of connections that were closed at once, because there was one already.
    """

    def __init__(
        self, units: dict[int, Unit], *, single: bool = False, numbers: bool = True, port: int | None = None
    ) -> None:
        """Starts the server.

        Args:
            units: The units by id.
            single: Whether it serves one connection only.
            numbers: Whether an answer has the number of its request. Otherwise it has 0.
            port: Its port; a free one if absent.
        """
        self.units = units
        self.asked: list[tuple[int, int, int]] = []
        self.connections = self.refused = self._open = 0
        self.port = port or free_port()
        self._single, self._numbers = single, numbers
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(ready.set),), daemon=True)
        self._thread.start()
        ready.wait(10)

    def close(self) -> None:
        """Stops the server and closes its connections."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self, ready: Callable[[], None]) -> None:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", self.port)
        ready()
        await self._stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._single and self._open:
            self.refused += 1
            writer.close()
            return
        self._open += 1
        self.connections += 1
        try:
            while True:
                number, _, _, unit, function, address, count = struct.unpack(">HHHBBHH", await reader.readexactly(12))
                self.asked.append((unit, address, count))
                there = self.units.get(unit)
                answer = there.answer(function, address, count) if there is not None else None
                if there is None or answer is None:
                    continue
                frame = struct.pack(">HHHB", number if self._numbers else 0, 0, len(answer) + 1, unit) + answer
                self._loop.call_later(there.delay, writer.write, frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open -= 1
            writer.close()
