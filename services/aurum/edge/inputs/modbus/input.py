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
from aurum.edge.inputs.common.configuration import WORDS, ModbusInput, Register
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.common.throttled_log import ThrottledLog
from aurum.readings.batch import now_us
from aurum.runtime.errors import UnavailableError

_MOST_REGISTERS, _MOST_BITS = 120, 1920  # per request; the protocol allows 125 and 2,000
_GAP = 8  # unwanted registers that are read to save a request
_FORMATS = {
    "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "uint64": ">Q",
    "float32": ">f", "float64": ">d",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A request: a range of registers of one kind, and the values in it."""

    kind: str
    address: int
    count: int
    registers: tuple[Register, ...]


def questions(registers: Sequence[Register]) -> list[Question]:
    """Groups registers into as few requests as possible."""
    found: list[Question] = []
    for kind in ("coil", "discrete", "holding", "input"):
        most = _MOST_BITS if kind in ("coil", "discrete") else _MOST_REGISTERS
        together: list[Register] = []
        end = 0
        for each in sorted((each for each in registers if each.kind == kind), key=lambda each: each.address):
            each_end = each.address + WORDS[each.type]
            if together and (each.address > end + _GAP or max(end, each_end) - together[0].address > most):
                found.append(Question(kind, together[0].address, end - together[0].address, tuple(together)))
                together = []
            end = max(end, each_end) if together else each_end
            together.append(each)
        if together:
            found.append(Question(kind, together[0].address, end - together[0].address, tuple(together)))
    return found


def value_of(register: Register, words: Sequence[int]) -> float:
    """Decodes the value in a group of registers, given as received."""
    ordered = words if register.word_order == "big" else list(reversed(words))
    (value,) = struct.unpack(_FORMATS[register.type], struct.pack(f">{len(ordered)}H", *ordered))
    return float(value)


class Modbus:
    def __init__(self, options: ModbusInput, collector: BatchBuilder, connector: Reconnector) -> None:
        self._collector = collector
        self._options = options
        self._connector = connector
        self._questions = questions(options.registers)
        self._troubles = ThrottledLog(options.name)
        self._source = f"{options.host}:{options.port}/{options.unit}"

    async def run(self) -> None:
        await self._connector.keep(self._open, self._poll, self._close)

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
            for question in self._questions:
                await self._ask(client, question)
            durable = await self._collector.commit()  # waits while the spool is full, and nothing is polled meanwhile
            if durable is not None:
                await durable
            due = max(due + self._options.period, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _ask(self, client: AsyncModbusTcpClient, question: Question) -> None:
        ask = {
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
            "holding": client.read_holding_registers,
            "input": client.read_input_registers,
        }[question.kind]
        try:
            answer = await ask(question.address, count=question.count, device_id=self._options.unit)
        except ModbusException as error:
            raise UnavailableError(f"{self._source} does not answer: {error}") from error
        at = now_us()
        bits = question.kind in ("coil", "discrete")
        if answer.isError() or len(answer.bits if bits else answer.registers) < question.count:
            metrics.edge_input_messages_total.labels(self._options.name, "invalid").inc()
            self._troubles.tell(
                f"{self._source} refuses {question.kind} {question.address} to "
                f"{question.address + question.count - 1}: {answer}"
            )
            for each in question.registers:
                self._collector.add(self._source, each.machine, each.sensor, at, 0.0, good=False)
            return
        metrics.edge_input_messages_total.labels(self._options.name, "read").inc()
        for each in question.registers:
            start = each.address - question.address
            value = (
                float(answer.bits[start])
                if bits
                else value_of(each, answer.registers[start : start + WORDS[each.type]])
            )
            self._collector.add(self._source, each.machine, each.sensor, at, value)
