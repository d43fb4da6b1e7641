"""MQTT 3.1.1 and 5: messages of topics, at least once. A message is acknowledged when its readings are durable."""

import collections

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import MqttInput
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.common.redelivery_cache import Arrival, RedeliveryCache
from aurum.edge.inputs.common.throttled_log import ThrottledLog
from aurum.edge.inputs.mqtt.connection import Message, MqttConnection
from aurum.edge.inputs.mqtt.consumer import consume
from aurum.edge.inputs.mqtt.payloads import PayloadError, TopicFormat, read_values
from aurum.readings.batch import now_us

_MAX_TOPICS = 100_000  # topic names with a remembered format


class Mqtt:
    """An input that subscribes to topics of a broker."""

    def __init__(
        self, options: MqttInput, builder: BatchBuilder, reconnector: Reconnector, redeliveries: RedeliveryCache
    ) -> None:
        self._builder = builder
        self._options = options
        self._reconnector = reconnector
        self._redeliveries = redeliveries
        self._corrected = options.clock == "corrected"
        self._throttled_log = ThrottledLog(options.name)
        self._topics: collections.OrderedDict[str, TopicFormat | None] = collections.OrderedDict()
        self._results = {
            result: metrics.edge_input_messages_total.labels(options.name, result)
            for result in ("read", "invalid", "unwanted")
        }

    async def run(self) -> None:
        """Consumes messages, and reconnects, until cancelled."""
        await self._reconnector.run(self._open, self._consume, self._close)

    async def _open(self, timeout: float) -> MqttConnection:
        connection = MqttConnection(self._options.broker, f"aurum-{self._options.name}")
        await connection.open([topic.filter for topic in self._options.topics], timeout)
        return connection

    async def _consume(self, connection: MqttConnection) -> None:
        await consume(connection, self._builder, self._handle, self._options.flush)

    async def _close(self, connection: MqttConnection) -> None:
        connection.close()

    def _handle(self, message: Message) -> None:
        topic_format = (
            self._topics[message.topic] if message.topic in self._topics else self._find_format(message.topic)
        )
        if topic_format is None:
            self._results["unwanted"].inc()
            return
        try:
            values = read_values(topic_format, message.payload)
        except PayloadError as error:
            self._results["invalid"].inc()
            self._throttled_log.warn(f"a message of {message.topic} {error}")
            return
        self._results["read"].inc()
        arrival = (
            self._redeliveries.first_arrival(message.packet_id, message.topic, message.payload)
            if message.redelivered
            else None
        )
        arrived_us, skew_us = (now_us(), None) if arrival is None else (arrival.at_us, arrival.skew_us)
        for position, (machine, sensor, at, value) in enumerate(values):
            # Values without a time are placed one microsecond apart
            self._builder.add_value(
                machine, machine, sensor, at, value, arrival=Arrival(arrived_us + position, skew_us)
            )
            if skew_us is None:
                skew_us = self._builder.skew_us(machine) if self._corrected else 0.0
        if message.packet_id and arrival is None:
            self._redeliveries.record_arrival(
                message.packet_id, message.topic, message.payload, Arrival(arrived_us, skew_us or 0.0)
            )

    def _find_format(self, name: str) -> TopicFormat | None:
        topic_format = None
        for topic in self._options.topics:
            if matched := topic.expression.fullmatch(name):
                topic_format = TopicFormat.for_topic_name(topic, matched.groupdict())
                break
        self._topics[name] = topic_format
        if len(self._topics) > _MAX_TOPICS:
            self._topics.popitem(last=False)
        return topic_format
