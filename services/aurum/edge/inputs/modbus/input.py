"""Modbus TCP: polls registers, with as few requests per round as the device allows."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import REGISTERS_PER_VALUE, ModbusInput, Register
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.modbus.connection import ModbusConnection, Refusal
from aurum.edge.inputs.modbus.poll_plan import PollPlan, ReadRequest
from aurum.edge.inputs.modbus.values import AbsentError, UndecodableError, decode_value
from aurum.readings.batch import now_us
from aurum.runtime.errors import UnavailableError

logger = logging.getLogger(__name__)

_MAX_SPLITS = 50  # requests that are split in one round, so that a device that refuses much is not flooded
_MAX_SILENT = 2  # requests in a row without an answer after which a round ends
_MAX_BUSY_PAUSE = 30.0  # seconds that a busy device is left alone at most
_MAX_NAMED = 8  # refused requests that one message names


@dataclass(slots=True)
class _Round:
    """What a round of requests has brought.

    Attributes:
        read: The number of answers with data.
        silent: The requests without an answer.
        silent_in_row: How many of them were the last ones.
        refused: The requests that were refused and are left out for a while, by the device's reason.
        splits: The number of requests that were split.
        busy: Whether the device is busy, which ends the round.
    """

    read: int = 0
    silent: list[ReadRequest] = field(default_factory=list)
    silent_in_row: int = 0
    refused: dict[Refusal, list[ReadRequest]] = field(default_factory=dict)
    splits: int = 0
    busy: bool = False

    @property
    def is_over(self) -> bool:
        """Whether no more requests should be sent."""
        return self.busy or self.silent_in_row >= _MAX_SILENT


class Modbus:
    """An input that polls the registers of one device."""

    def __init__(
        self, options: ModbusInput, builder: BatchBuilder, reconnector: Reconnector, connection: ModbusConnection
    ) -> None:
        self._builder = builder
        self._options = options
        self._reconnector = reconnector
        self._connection = connection
        self._plan = PollPlan(options.registers)
        self._keep_marks = options.not_implemented == "keep"
        self._device = f"{options.host}:{options.port}/{options.unit}"
        self._busy_pause = 0.0

    async def run(self) -> None:
        """Polls the device, and reconnects, until cancelled."""
        await self._reconnector.run(self._open, self._poll, self._close, prepare=self._poll_once)

    async def _open(self, timeout: float) -> ModbusConnection:
        await self._connection.join()
        return self._connection

    async def _close(self, connection: ModbusConnection) -> None:
        connection.leave()

    async def _poll(self, connection: ModbusConnection) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self._options.period, time.monotonic() + self._busy_pause)
            await asyncio.sleep(due - time.monotonic())
            await self._poll_once(connection)

    async def _poll_once(self, connection: ModbusConnection) -> None:
        """Reads all registers once. Raises UnavailableError if the device gives no data."""
        this_round = _Round()
        lost: UnavailableError | None = None
        try:
            await self._read_due(connection, this_round)
        except UnavailableError as error:
            lost = error
        self._report_round(this_round)
        durable = await self._builder.commit()  # waits while the spool is full, so that polling pauses
        if durable is not None:
            await durable
        if lost is not None:
            raise lost
        if not this_round.read:
            raise UnavailableError(self._no_data_problem(this_round))

    async def _read_due(self, connection: ModbusConnection, this_round: _Round) -> None:
        queue = deque(self._plan.due())
        while queue and not this_round.is_over:
            request = queue.popleft()
            answer = await connection.read(request, self._options.unit, self._options.timeout)
            if isinstance(answer, Refusal):
                metrics.edge_input_messages_total.labels(self._options.name, "invalid").inc()
                queue.extendleft(reversed(self._record_refusal(request, answer, this_round)))
            else:
                metrics.edge_input_messages_total.labels(self._options.name, "read").inc()
                this_round.read += 1
                this_round.silent_in_row = 0
                self._plan.record_read(request)
                self._add_values(request, answer)

    def _record_refusal(self, request: ReadRequest, refusal: Refusal, this_round: _Round) -> list[ReadRequest]:
        """Records a refusal. Returns the requests that are sent instead in this round."""
        if refusal in (Refusal.NO_ANSWER, Refusal.BUSY):
            this_round.silent.append(request)
            this_round.silent_in_row += 1
            this_round.busy = refusal is Refusal.BUSY
            return []
        this_round.silent_in_row = 0
        parts = self._plan.record_refused(request, split=refusal is Refusal.ADDRESS)
        if not parts:
            this_round.refused.setdefault(refusal, []).append(request)
            return []
        self._log_split(request, refusal, parts)
        this_round.splits += 1
        return parts if this_round.splits <= _MAX_SPLITS else []

    def _log_split(self, request: ReadRequest, refusal: Refusal, parts: Sequence[ReadRequest]) -> None:
        logger.info(
            "%s: %s refuses %s as a whole (%s); it is asked for %s from now on",
            self._options.name, self._device, request, refusal.value, " and ".join(map(str, parts)),
        )  # fmt: skip

    def _report_round(self, this_round: _Round) -> None:
        """Counts and tells what was not read, and updates the plan."""
        for refusal, requests in this_round.refused.items():
            self._refuse(f"{self._device} refuses {_listed(requests)}: {refusal.value}", requests)
        if this_round.silent:
            why = "is busy at" if this_round.busy else "does not answer for"
            self._refuse(f"{self._device} {why} {_listed(this_round.silent)}", this_round.silent)
        self._busy_pause = (
            min(_MAX_BUSY_PAUSE, max(self._options.period, 2 * self._busy_pause)) if this_round.busy else 0.0
        )
        if this_round.read and not this_round.busy:
            for request in this_round.silent:
                if parts := self._plan.record_silent(request):
                    self._log_split(request, Refusal.NO_ANSWER, parts)
        else:
            self._plan.postpone(this_round.silent)
        self._reconnector.status.mark_missing(
            [f"{self._device} does not give {_described(request)}" for request in self._plan.unreadable]
        )

    def _refuse(self, example: str, requests: Sequence[ReadRequest]) -> None:
        count = sum(len(request.registers) for request in requests)
        self._builder.refuse(self._device, Reason.UNREADABLE, example, count)

    def _no_data_problem(self, this_round: _Round) -> str:
        if this_round.busy:
            return f"{self._device} is busy"
        if this_round.silent:
            return f"{self._device} does not respond within {self._options.timeout:g} s"
        return f"{self._device} refuses every register that is asked for"

    def _add_values(self, request: ReadRequest, answer: Sequence[int]) -> None:
        at = now_us()
        for register in request.registers:
            start = register.address - request.address
            words = answer[start : start + REGISTERS_PER_VALUE[register.type]]
            try:
                value = float(words[0]) if register.type == "bit" else self._decode(register, words)
            except AbsentError as error:
                self._refuse_value(Reason.ABSENT, register, error)
            except UndecodableError as error:
                self._refuse_value(Reason.UNREADABLE, register, error)
            else:
                self._builder.add_value(self._device, register.machine, register.sensor, at, value)

    def _decode(self, register: Register, words: Sequence[int]) -> float | int:
        return decode_value(register, words, keep_marks=self._keep_marks)

    def _refuse_value(self, reason: Reason, register: Register, error: ValueError) -> None:
        problem = f"{error} ({register.kind} {register.address})"
        self._builder.refuse_value(self._device, register.machine, register.sensor, reason, problem)


def _described(request: ReadRequest) -> str:
    first = request.registers[0]
    more = f" and {len(request.registers) - 1} more" if len(request.registers) > 1 else ""
    return f"{request} ({first.machine} {first.sensor}{more})"


def _listed(requests: Sequence[ReadRequest]) -> str:
    text = ", ".join(map(str, requests[:_MAX_NAMED]))
    return text if len(requests) <= _MAX_NAMED else f"{text} and {len(requests) - _MAX_NAMED} more ranges"
