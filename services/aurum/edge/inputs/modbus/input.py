"""Modbus TCP: polls registers, with as few requests per round as the protocol allows."""

import asyncio
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import REGISTERS_PER_VALUE, ModbusInput, Register
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.common.throttled_log import ThrottledLog
from aurum.readings.batch import now_us
from aurum.runtime.errors import UnavailableError

_MAX_REGISTERS, _MAX_BITS = 120, 1920  # per request; the protocol allows 125 and 2,000
_MAX_GAP = 8  # unneeded registers that are read to save a request
_FORMATS = {
    "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "uint64": ">Q",
    "float32": ">f", "float64": ">d",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request to a device.

    Attributes:
        kind: The kind of its registers.
        address: The first register.
        count: The number of registers.
        registers: The values in this range.
    """

    kind: str
    address: int
    count: int
    registers: tuple[Register, ...]


def group_registers(registers: Sequence[Register]) -> list[ReadRequest]:
    """Groups registers into as few requests as possible."""
    requests: list[ReadRequest] = []
    for kind in ("coil", "discrete", "holding", "input"):
        max_count = _MAX_BITS if kind in ("coil", "discrete") else _MAX_REGISTERS
        group: list[Register] = []
        end = 0
        for register in sorted(
            (register for register in registers if register.kind == kind), key=lambda register: register.address
        ):
            register_end = register.address + REGISTERS_PER_VALUE[register.type]
            if group and (register.address > end + _MAX_GAP or max(end, register_end) - group[0].address > max_count):
                requests.append(ReadRequest(kind, group[0].address, end - group[0].address, tuple(group)))
                group = []
            end = max(end, register_end) if group else register_end
            group.append(register)
        if group:
            requests.append(ReadRequest(kind, group[0].address, end - group[0].address, tuple(group)))
    return requests


def decode_value(register: Register, words: Sequence[int]) -> float:
    """Decodes the value in a group of registers, given as received."""
    ordered = words if register.word_order == "big" else list(reversed(words))
    (value,) = struct.unpack(_FORMATS[register.type], struct.pack(f">{len(ordered)}H", *ordered))
    return float(value)


class Modbus:
    """An input that polls the registers of one device."""

    def __init__(self, options: ModbusInput, builder: BatchBuilder, reconnector: Reconnector) -> None:
        self._builder = builder
        self._options = options
        self._reconnector = reconnector
        self._requests = group_registers(options.registers)
        self._throttled_log = ThrottledLog(options.name)
        self._device = f"{options.host}:{options.port}/{options.unit}"

    async def run(self) -> None:
        """Polls the device, and reconnects, until cancelled."""
        await self._reconnector.run(self._open, self._poll, self._close)

    async def _open(self, timeout: float) -> AsyncModbusTcpClient:
        options = self._options
        client = AsyncModbusTcpClient(
            options.host, port=options.port, timeout=options.timeout, retries=0, reconnect_delay=0
        )
        try:
            async with asyncio.timeout(timeout):
                connected = await client.connect()
        except (OSError, TimeoutError) as error:
            client.close()
            raise UnavailableError(f"{options.host}:{options.port} cannot be reached: {error}") from error
        if not connected:
            client.close()
            raise UnavailableError(f"{options.host}:{options.port} cannot be reached")
        return client

    async def _close(self, client: AsyncModbusTcpClient) -> None:
        client.close()

    async def _poll(self, client: AsyncModbusTcpClient) -> None:
        due = time.monotonic()
        while True:
            for request in self._requests:
                await self._read(client, request)
            durable = await self._builder.commit()  # waits while the spool is full, so that polling pauses
            if durable is not None:
                await durable
            due = max(due + self._options.period, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _read(self, client: AsyncModbusTcpClient, request: ReadRequest) -> None:
        read = {
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
            "holding": client.read_holding_registers,
            "input": client.read_input_registers,
        }[request.kind]
        try:
            response = await read(request.address, count=request.count, device_id=self._options.unit)
        except ModbusException as error:
            raise UnavailableError(f"{self._device} does not respond: {error}") from error
        at = now_us()
        bits = request.kind in ("coil", "discrete")
        if response.isError() or len(response.bits if bits else response.registers) < request.count:
            metrics.edge_input_messages_total.labels(self._options.name, "invalid").inc()
            self._throttled_log.warn(
                f"{self._device} refuses {request.kind} {request.address} to "
                f"{request.address + request.count - 1}: {response}"
            )
            for register in request.registers:
                self._builder.add_value(self._device, register.machine, register.sensor, at, 0.0, good=False)
            return
        metrics.edge_input_messages_total.labels(self._options.name, "read").inc()
        for register in request.registers:
            start = register.address - request.address
            value = (
                float(response.bits[start])
                if bits
                else decode_value(register, response.registers[start : start + REGISTERS_PER_VALUE[register.type]])
            )
            self._builder.add_value(self._device, register.machine, register.sensor, at, value)
