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
from aurum.edge.inputs.mqtt.payloads import PayloadError, Shape, read
from aurum.readings.batch import now_us

_MOST_TOPICS = 100_000  # topic names with a remembered description


class Mqtt:
    def __init__(
        self, options: MqttInput, collector: BatchBuilder, connector: Reconnector, arrivals: RedeliveryCache
    ) -> None:
        self._collector = collector
        self._options = options
        self._connector = connector
        self._arrivals = arrivals
        self._corrected = options.clock == "corrected"
        self._troubles = ThrottledLog(options.name)
        self._topics: collections.OrderedDict[str, Shape | None] = collections.OrderedDict()
        self._results = {
            result: metrics.edge_input_messages_total.labels(options.name, result)
            for result in ("read", "invalid", "unwanted")
        }

    async def run(self) -> None:
        await self._connector.keep(self._open, self._hear, self._close)

    async def _open(self, timeout: float) -> MqttConnection:
        connection = MqttConnection(self._options.broker, f"aurum-{self._options.name}")
        await connection.open([topic.filter for topic in self._options.topics], timeout)
        return connection

    async def _hear(self, connection: MqttConnection) -> None:
        await consume(connection, self._collector, self._read, self._options.flush)

    async def _close(self, connection: MqttConnection) -> None:
        connection.close()

    def _read(self, message: Message) -> None:
        shape = self._topics[message.topic] if message.topic in self._topics else self._describe(message.topic)
        if shape is None:
            self._results["unwanted"].inc()
            return
        try:
            values = read(shape, message.payload)
        except PayloadError as error:
            self._results["invalid"].inc()
            self._troubles.tell(f"a message of {message.topic} {error}")
            return
        self._results["read"].inc()
        arrival = self._arrivals.first(message.number, message.topic, message.payload) if message.again else None
        came_us, skew_us = (now_us(), None) if arrival is None else (arrival.at_us, arrival.skew_us)
        for place, (machine, sensor, at, value) in enumerate(values):
            # Values without a time are placed one microsecond apart
            self._collector.add(machine, machine, sensor, at, value, arrival=Arrival(came_us + place, skew_us))
            if skew_us is None:
                skew_us = self._collector.skew_us(machine) if self._corrected else 0.0
        if message.number and arrival is None:
            self._arrivals.note(message.number, message.topic, message.payload, Arrival(came_us, skew_us or 0.0))

    def _describe(self, name: str) -> Shape | None:
        found = None
        for topic in self._options.topics:
            if matched := topic.expression.fullmatch(name):
                found = Shape.of(topic, matched.groupdict())
                break
        self._topics[name] = found
        if len(self._topics) > _MOST_TOPICS:
            self._topics.popitem(last=False)
        return found
