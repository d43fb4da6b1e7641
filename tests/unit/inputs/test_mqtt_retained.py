"""MQTT: retained messages, which a broker sends at each subscription, and messages that give nothing."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import MqttInput, TagRule
from aurum.edge.inputs.common.redelivery_cache import RedeliveryCache
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.mqtt.connection import Message
from aurum.edge.inputs.mqtt.input import Mqtt
from aurum.edge.inputs.mqtt.retained_log import RetainedLog
from aurum.readings.batch import now_us
from aurum.readings.transport.ingest_stream import Written
from aurum.runtime.errors import UnavailableError
from tests.support.batch_builder import MemorySpool, make_builder

MONTH_US = 30 * 86_400_000_000


class Connection:
    """A broker that sends messages, and then breaks the connection."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)
        self.acknowledged: list[int] = []

    async def receive(self, max_messages: int, seconds: float) -> list[Message]:
        messages, self._messages = self._messages, []
        if not messages:
            raise UnavailableError("the broker is gone")
        return messages

    async def keep_alive(self) -> None:
        await asyncio.Event().wait()

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        self.acknowledged += packet_ids


class OneConnection:
    """Uses one connection, and does not reconnect."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def run(self, connect: Any, use: Callable[[Any], Awaitable[None]], close: Any) -> None:
        with contextlib.suppress(UnavailableError):
            await use(self._connection)


class Gateway:
    """A gateway that is started again for each session, on the same disk."""

    def __init__(self, folder: Path, *rules: TagRule, clock: str = "device") -> None:
        self._folder = folder
        self._rules = rules
        self._clock = clock
        self.spool = MemorySpool()
        self.builder: BatchBuilder = make_builder(self.spool)

    async def session(self, *messages: Message) -> list[int]:
        """Receives messages in a new process. Returns the acknowledged ones."""
        self.builder = make_builder(self.spool, *self._rules, clock=self._clock)
        connection = Connection(messages)
        await self._create_input(connection).run()
        await asyncio.sleep(0)
        return connection.acknowledged

    def refused(self) -> dict[Reason, int]:
        """Returns what the latest session refused."""
        return {reason: tally.count for reason, tally in self.builder.refusals.refused.items()}

    def _create_input(self, connection: Connection) -> Mqtt:
        topics = [
            {"pattern": "state/{machine}", "timestamp": "ts"},
            {"pattern": "value/{machine}/{sensor}", "format": "number", "sensor": "{sensor}"},
            {"pattern": "all/{machine}"},
        ]
        options = MqttInput.model_validate(
            {
                "name": "hall",
                "protocol": "mqtt",
                "broker": {"host": "x"},
                "topics": topics,
                "clock": self._clock,
            }
        )
        arrivals = RedeliveryCache(self._folder / "hall.arrivals", 100)
        retained = RetainedLog(self._folder / "hall.retained")
        return Mqtt(options, self.builder, OneConnection(connection), arrivals, retained)  # type: ignore[arg-type]


def state(machine: str, at_us: int, *, retained: bool, **values: Any) -> Message:
    return Message(f"state/{machine}", json.dumps({"ts": at_us / 1e6, **values}).encode(), 0, retained=retained)


async def test_untimed_retained_message_is_told_and_not_stored(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    live = Message("value/tank-1/level", b"73.2", 1)
    await gateway.session(live, Message("value/tank-1/level", b"73.2", 2))
    assert len(gateway.spool.readings()["tank-1", "level"]) == 2, "live messages with the same value are all stored"
    for _ in range(2):
        assert await gateway.session(Message("value/tank-1/level", b"73.2", 3, retained=True)) == [3]
        assert gateway.refused() == {Reason.OLD: 1}
    example = gateway.builder.refusals.refused[Reason.OLD].example
    assert example == "value/tank-1/level: the retained message has no time of its own"
    assert len(gateway.spool.readings()["tank-1", "level"]) == 2
    await gateway.session(Message("value/tank-1/level", b"73.2", 4, retained=True), live)
    assert len(gateway.spool.readings()["tank-1", "level"]) == 3, "and so is the next live one"


async def test_retained_message_is_stored_once_by_its_own_time(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    at = now_us() // 1000 * 1000 - MONTH_US
    old = state("press-1", at, retained=True, temperature=20.5)
    await gateway.session(old)
    assert gateway.spool.readings() == {("press-1", "temperature"): [(at, 20.5)]}
    assert gateway.refused() == {}
    assert gateway.builder.skew_us("press-1") == 0, "an old message says nothing about the clock"
    for _ in range(2):
        await gateway.session(old)
        assert gateway.refused() == {Reason.OLD: 1}
    assert len(gateway.spool.batches) == 1
    await gateway.session(state("press-1", at + 1000, retained=True, temperature=21.5), old)
    assert gateway.spool.readings()["press-1", "temperature"][1] == (at + 1000, 21.5)


async def test_retained_message_without_usable_time_is_refused(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    await gateway.session(
        state("press-1", 24_000_000, retained=True, t=1.5), state("press-1", now_us() + MONTH_US, retained=True, t=1.5)
    )
    assert gateway.refused() == {Reason.WRONG_TIME: 2}
    assert gateway.spool.batches == []
    for clock in ("corrected", "arrival"):
        other = Gateway(tmp_path, clock=clock)
        await other.session(state("press-1", now_us() - MONTH_US, retained=True, t=1.5))
        assert other.refused() == {Reason.OLD: 1}
        assert other.spool.batches == []


async def test_retained_message_is_remembered_only_when_durable(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.spool = MemorySpool(at_once=False)
    old = state("press-1", now_us() - MONTH_US, retained=True, temperature=20.5)
    first = asyncio.create_task(gateway.session(old))
    for _ in range(100):
        await asyncio.sleep(0)
    assert old not in RetainedLog(tmp_path / "hall.retained")
    gateway.spool.waiting[0].set_result(Written(1, 0))
    await first
    assert old in RetainedLog(tmp_path / "hall.retained")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=3)), max_size=20))
def test_retained_log_knows_the_latest_of_each_topic(
    tmp_path_factory: pytest.TempPathFactory, recorded: list[tuple[str, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("retained") / "log"
    log = RetainedLog(path)
    for topic, payload in recorded:
        log.record(Message(topic, payload, 0))
    latest = dict(recorded)
    reopened = RetainedLog(path)
    for topic, payload in [*recorded, ("other", b"")]:
        assert (Message(topic, payload, 0) in reopened) == (latest.get(topic) == payload)


async def test_message_that_gives_nothing_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(tmp_path)
    messages = [
        Message("all/m-1", b"{}", 1),
        Message("all/m-1", b"", 2),
        Message("all/m-1", b'{"password": "hunter2"', 3),
        Message("all/m-1", b'{"state": "ON", "t": 1.5}', 4),
    ]
    with caplog.at_level(logging.WARNING):
        assert await gateway.session(*messages) == [1, 2, 3, 4]
    assert gateway.refused() == {Reason.NOTHING_IN_IT: 2, Reason.UNREADABLE: 1, Reason.TEXT: 1}
    text = caplog.text
    assert "nothing in it, not stored: all/m-1: {}" in text
    assert "unreadable, not stored: all/m-1 is not JSON" in text
    assert 'char 22): {"password": ***' in text
    assert "text, not stored: m-1 state: 'ON' is not a number" in text
    assert gateway.spool.readings().keys() == {("m-1", "t")}


async def test_dropped_text_of_a_message_is_not_refused(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, TagRule(sensor="state", drop=True))
    await gateway.session(Message("all/m-1", b'{"state": "ON", "t": 1.5}', 1))
    assert gateway.refused() == {}
