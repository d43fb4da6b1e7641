"""A Modbus TCP connection that the inputs of one host and port share.

Gateways to serial lines often accept a single connection, and many devices only a few. The units behind a gateway are
told apart by their ids.
"""

import asyncio
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from aurum.edge.inputs.modbus.poll_plan import ReadRequest
from aurum.runtime.errors import UnavailableError

_MAX_SILENT = 3  # requests in a row, of all units, without an answer until the connection counts as dead
_MIN_PAUSE, _MAX_PAUSE = 0.5, 5.0  # seconds between two attempts to connect, for all inputs together
_LONGEST = 61.0  # seconds; each request has a shorter limit of its own


class Refusal(Enum):
    """How a device refuses a request.

    Attributes:
        ADDRESS: A register of it does not exist, or it is too long.
        FUNCTION: The device has no registers of this kind.
        BUSY: The device wants to be asked later.
        NO_ANSWER: Nothing came in time, what came is not an answer to it, or a gateway says so of a device behind it.
    """

    ADDRESS = "illegal data address"
    FUNCTION = "illegal function"
    BUSY = "device busy"
    NO_ANSWER = "no answer"


_REFUSALS = {
    1: Refusal.FUNCTION,
    2: Refusal.ADDRESS,
    3: Refusal.ADDRESS,  # illegal value: of some devices, for a request that is too long
    5: Refusal.BUSY,
    6: Refusal.BUSY,
}


class ModbusConnection:
    """A connection whose users take turns in the order in which they ask.

    A slow unit therefore delays each request of the others by at most one request of its own. The connection is
    restored when a user reads, and closed when the last user has left.

    Args:
        host: The host of the device or gateway.
        port: Its port.
        clock: A monotonic clock in seconds.
    """

    def __init__(self, host: str, port: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._address = f"{host}:{port}"
        self._host, self._port = host, port
        self._turn = asyncio.Lock()  # first come, first served
        self._client: AsyncModbusTcpClient | None = None
        self._users = 0
        self._silent = 0
        self._numbers_answers = False
        self._pause = 0.0
        self._next_attempt = float("-inf")
        self._problem = ""

    async def join(self) -> None:
        """Connects, if no other user has. Raises UnavailableError."""
        if self._client is None or not self._client.connected:
            async with self._turn:
                await self._connected()
        self._users += 1

    def leave(self) -> None:
        """Ends the use by one user that has joined. Closes the connection after the last one."""
        self._users -= 1
        if self._users == 0:
            self._drop()

    async def read(self, request: ReadRequest, unit: int, timeout: float) -> list[int] | Refusal:
        """Reads registers or bits.

        Args:
            request: What to read.
            unit: The id of the unit.
            timeout: Seconds to wait for the answer, once it is this user's turn.

        Returns:
            The values in order, or how the request was refused.

        Raises:
            UnavailableError: If there is no connection.
        """
        async with self._turn:
            client = await self._connected()
            try:
                async with asyncio.timeout(timeout):
                    response = await _send(client, request, unit)
            except (TimeoutError, ModbusException):
                self._record_silence()
                return Refusal.NO_ANSWER
            self._silent = 0
            self._numbers_answers = self._numbers_answers or bool(response.transaction_id)
        return _values(response, request)

    async def _connected(self) -> AsyncModbusTcpClient:
        if self._client is not None and self._client.connected:
            return self._client
        self._drop()
        if self._clock() < self._next_attempt:
            raise UnavailableError(self._problem)
        client = AsyncModbusTcpClient(
            self._host, port=self._port, timeout=_LONGEST, retries=0, reconnect_delay=0, name=self._address
        )
        problem = f"{self._address} cannot be reached"
        try:
            connected = await client.connect()
        except OSError as error:
            connected, problem = False, f"{problem}: {error}"
        except BaseException:
            client.close()
            self._wait_before_next_attempt(f"{problem}: no answer")
            raise
        if not connected:
            client.close()
            self._wait_before_next_attempt(problem)
            raise UnavailableError(problem)
        self._client, self._silent, self._pause = client, 0, 0.0
        return client

    def _wait_before_next_attempt(self, problem: str) -> None:
        self._problem = problem
        self._pause = min(_MAX_PAUSE, max(_MIN_PAUSE, 2 * self._pause))
        self._next_attempt = self._clock() + self._pause

    def _record_silence(self) -> None:
        self._silent += 1
        # A late answer is recognised by its number. Without one it would be taken for the answer to the next request
        if self._silent >= _MAX_SILENT or not self._numbers_answers:
            self._drop()

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


async def _send(client: AsyncModbusTcpClient, request: ReadRequest, unit: int) -> Any:
    read = {
        "coil": client.read_coils,
        "discrete": client.read_discrete_inputs,
        "holding": client.read_holding_registers,
        "input": client.read_input_registers,
    }[request.kind]
    return await read(request.address, count=request.count, device_id=unit)


def _values(response: Any, request: ReadRequest) -> list[int] | Refusal:
    if response.isError():
        return _REFUSALS.get(response.exception_code, Refusal.NO_ANSWER)
    if request.kind in ("coil", "discrete"):  # which fill whole bytes
        bits: list[int] = response.bits[: request.count]
        return bits if len(bits) == request.count else Refusal.NO_ANSWER
    registers: list[int] = response.registers
    return registers if len(registers) == request.count else Refusal.NO_ANSWER
