"""MQTT 3.1.1 and 5: messages of topics, at least once. A message is acknowledged when its readings are durable."""

import asyncio
import collections
from collections.abc import Awaitable
from typing import Any

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import MqttInput
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.common.redelivery_cache import Arrival, RedeliveryCache
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.common.tag import TagSource
from aurum.edge.inputs.mqtt.connection import Message, MqttConnection
from aurum.edge.inputs.mqtt.consumer import consume
from aurum.edge.inputs.mqtt.excerpts import excerpt
from aurum.edge.inputs.mqtt.payloads import Content, PayloadError, PayloadValue, TopicFormat, read_values
from aurum.edge.inputs.mqtt.retained_log import RetainedLog
from aurum.readings.batch import now_us

_MAX_TOPICS = 100_000  # topic names with a remembered format


class Mqtt:
    """An input that subscribes to topics of a broker."""

    def __init__(
        self,
        options: MqttInput,
        builder: BatchBuilder,
        reconnector: Reconnector,
        redeliveries: RedeliveryCache,
        retained: RetainedLog,
    ) -> None:
        self._builder = builder
        self._options = options
        self._reconnector = reconnector
        self._redeliveries = redeliveries
        self._retained = retained
        self._uncommitted: list[Message] = []  # retained ones, with values that are not durable yet
        self._corrected = options.clock == "corrected"
        self._topics: collections.OrderedDict[str, TopicFormat | None] = collections.OrderedDict()
        self._results = {
            result: metrics.edge_input_messages_total.labels(options.name, result)
            for result in ("read", "invalid", "unwanted", "empty", "old")
        }

    async def run(self) -> None:
        """Consumes messages, and reconnects, until cancelled."""
        await self._reconnector.run(self._open, self._consume, self._close)

    async def _open(self, timeout: float) -> MqttConnection:
        connection = MqttConnection(self._options.broker, f"aurum-{self._options.name}")
        await connection.open([topic.filter for topic in self._options.topics], timeout)
        return connection

    async def _consume(self, connection: MqttConnection) -> None:
        self._uncommitted.clear()
        await consume(connection, self._builder, self.handle, self._options.flush, self._remember_stored)

    async def _close(self, connection: MqttConnection) -> None:
        connection.close()

    def handle(self, message: Message) -> None:
        """Adds the values of a message. What cannot be stored is counted and logged."""
        topic_format = (
            self._topics[message.topic] if message.topic in self._topics else self._find_format(message.topic)
        )
        if topic_format is None:
            self._results["unwanted"].inc()
            return
        try:
            content = read_values(topic_format, message.payload)
        except PayloadError as error:
            self._results["invalid"].inc()
            self._refuse(error.reason, message, f" {error}: {excerpt(message.payload)}")
            return
        source = TagSource(message.topic, topic_format.topic.shared_series)
        if content.refused:
            self._refuse_values(message, content, source)
        elif not content.values:
            self._results["empty"].inc()
            self._refuse(Reason.NOTHING_IN_IT, message, f": {excerpt(message.payload)}")
            return
        if message.retained and content.values:
            self._add_retained(message, content.values, source)
        else:
            self._results["read"].inc()
            self._add_values(message, content.values, source)

    def _add_values(self, message: Message, values: list[PayloadValue], source: TagSource) -> None:
        arrival = (
            self._redeliveries.first_arrival(message.packet_id, message.topic, message.payload)
            if message.redelivered
            else None
        )
        arrived_us, skew_us = (now_us(), None) if arrival is None else (arrival.at_us, arrival.skew_us)
        for position, (machine, sensor, at, value) in enumerate(values):
            # Values without a time are placed one microsecond apart
            self._builder.add_value(
                machine, machine, sensor, at, value, arrival=Arrival(arrived_us + position, skew_us), source=source
            )
            if skew_us is None:
                skew_us = self._builder.skew_us(machine) if self._corrected else 0.0
        if message.packet_id and arrival is None:
            self._redeliveries.record_arrival(
                message.packet_id, message.topic, message.payload, Arrival(arrived_us, skew_us or 0.0)
            )

    def _add_retained(self, message: Message, values: list[PayloadValue], source: TagSource) -> None:
        """Adds the values of a retained message by their own times, and only once.

        The message may be of last year, so its values would be wrong under the time of arrival. The skew of a clock is
        not known when the broker sends its retained messages, so their times cannot be corrected.
        """
        if message in self._retained:
            self._refuse_old(message, "is stored already", len(values))
        elif self._options.clock != "device":
            problem = f"has the time of a clock that is not used, because of clock: {self._options.clock}"
            self._refuse_old(message, problem, len(values))
        else:
            self._add_past_values(message, values, source)

    def _add_past_values(self, message: Message, values: list[PayloadValue], source: TagSource) -> None:
        stored = 0
        for machine, sensor, at, value in values:
            if at is not None:
                stored += self._builder.add_past_value(machine, machine, sensor, at, value, source=source)
        if stored:
            self._uncommitted.append(message)
            self._results["read"].inc()
        if untimed := sum(each.at_us is None for each in values):
            self._refuse_old(message, "has no time of its own", untimed)

    def _refuse_old(self, message: Message, problem: str, count: int) -> None:
        self._results["old"].inc()
        self._refuse(Reason.OLD, message, f": the retained message {problem}", count)

    def _remember_stored(self, durable: Awaitable[Any] | None) -> None:
        """Remembers the retained messages so far as stored, when their values are durable."""
        messages, self._uncommitted = self._uncommitted, []
        if not messages:
            return

        def remember(future: asyncio.Future[Any] | None) -> None:
            if future is None or (not future.cancelled() and future.exception() is None):
                for message in messages:
                    self._retained.record(message)

        if durable is None:
            remember(None)
        else:
            asyncio.ensure_future(durable).add_done_callback(remember)

    def _refuse_values(self, message: Message, content: Content, source: TagSource) -> None:
        for reason, text, machine, sensor, count in content.refused:
            if sensor:
                self._builder.refuse_value(machine, machine, sensor, reason, text, count, source=source)
            else:
                self._refuse(reason, message, f" {text}", count)

    def _refuse(self, reason: Reason, message: Message, problem: str, count: int = 1) -> None:
        self._builder.refusals.refuse(reason, f"{message.topic}{problem}", count)

    def _find_format(self, name: str) -> TopicFormat | None:
        topic_format, words = None, self._options.all_absent_words
        for topic in self._options.topics:
            if matched := topic.expression.fullmatch(name):
                topic_format = TopicFormat.for_topic_name(topic, matched.groupdict(), words)
                break
        self._topics[name] = topic_format
        if len(self._topics) > _MAX_TOPICS:
            self._topics.popitem(last=False)
        return topic_format
