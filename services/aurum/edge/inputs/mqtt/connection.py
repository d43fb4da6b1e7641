"""A connection to an MQTT broker, with explicit acknowledgements and with flow control."""

import asyncio
import collections
import contextlib
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from aurum.edge.inputs.common.configuration import Broker
from aurum.edge.inputs.mqtt.buffered_socket import BufferedSocket
from aurum.runtime.errors import UnavailableError

_MAX_HELD = 20_000  # messages that `receive` has not returned yet; above it, reading stops
_MAX_HELD_BYTES = 64_000_000  # of their payloads; likewise
_MAX_PACKET_BYTES = 1_100_000  # of a packet (MQTT 5)
_QUIET_SECONDS = 0.002  # seconds without a new message after which `receive` returns
_MAX_READS = 500  # reads before other tasks run
_KEEP_ALIVE_INTERVAL = 1.0  # seconds between two checks of the keep-alive
_SESSION_SECONDS = 7 * 86_400  # for which the broker keeps missed messages (MQTT 5)


@dataclass(frozen=True, slots=True)
class Will:
    """The message that the broker publishes if the connection breaks."""

    topic: str
    payload: bytes


class Message(NamedTuple):
    """A message from the broker.

    Attributes:
        topic: Its topic.
        payload: Its content.
        packet_id: Identifies it in the acknowledgement; 0 if it needs none (QoS 0).
        redelivered: Whether the broker has sent it before without an acknowledgement.
        retained: Whether the broker kept it from before the subscription. False for what is published since then.
    """

    topic: str
    payload: bytes
    packet_id: int
    redelivered: bool = False
    retained: bool = False


class _Client(mqtt.Client):
    def _create_socket(self) -> Any:
        return BufferedSocket(super()._create_socket())  # type: ignore[arg-type]


class MqttConnection:
    """One connection. A lost connection is not reused."""

    def __init__(self, options: Broker, client_id: str, *, clean: bool = False, will: Will | None = None) -> None:
        """Prepares a connection.

        Args:
            options: The broker.
            client_id: The name of the session, unless the options give one.
            clean: Whether the broker discards the session when the connection ends.
            will: The message that the broker publishes if the connection breaks.

        Raises:
            OSError: If a TLS file or the password file cannot be read.
            ValueError: If its content is invalid.
        """
        self._options = options
        version_5 = options.version == "5"
        session: dict[str, Any] = {} if version_5 else {"clean_session": clean}
        self._client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id or client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if version_5 else MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
            **session,
        )
        self._clean = clean
        if options.username is not None:
            password = options.password_file.read_text(encoding="utf-8").strip() if options.password_file else None
            self._client.username_pw_set(options.username, password)
        if options.tls is not None:
            self._client.tls_set_context(_tls_context(options))
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._loop = asyncio.get_running_loop()
        self._connack: asyncio.Future[None] = self._loop.create_future()
        self._subacks: dict[int, asyncio.Future[None]] = {}
        self._messages: collections.deque[Message] = collections.deque()
        self._bytes = 0  # of all held payloads
        self._changed = asyncio.Event()
        self._socket: Any = None
        self._reading = False
        self.lost: str | None = None

    async def open(self, filters: Sequence[str], timeout: float) -> None:
        """Connects and subscribes. Closes the connection after an error.

        Args:
            filters: The topic filters.
            timeout: The seconds for each of the two steps.

        Raises:
            UnavailableError: If either fails.
        """
        try:
            await self._connect(timeout)
            await self._subscribe(filters, timeout)
        except BaseException:
            self.close()
            raise

    async def receive(self, max_messages: int, seconds: float) -> list[Message]:
        """Returns up to `max_messages` messages that arrive within `seconds`.

        Returns earlier when no more arrive, for example because the broker waits for acknowledgements.

        Raises:
            UnavailableError: When the connection is lost and all messages were taken.
        """
        until = time.monotonic() + seconds
        if not self._messages:
            if self.lost is not None:
                raise UnavailableError(self.lost)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        before = 0
        while before < len(self._messages) < max_messages and self._reading and time.monotonic() < until:
            before = len(self._messages)
            await asyncio.sleep(_QUIET_SECONDS)
        messages = [self._messages.popleft() for _ in range(min(max_messages, len(self._messages)))]
        self._bytes -= sum(len(message.payload) for message in messages)
        if not self._reading and self.lost is None and len(self._messages) < _MAX_HELD // 2:
            self._set_reading(True)
        return messages

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Acknowledges durable messages. Does nothing on a lost connection, because the broker repeats them."""
        if self.lost is not None:
            return
        try:
            with self._socket.batched_sends():
                for packet_id in packet_ids:
                    self._client.ack(packet_id, 1)
        except OSError as error:
            self._mark_lost(str(error))

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Publishes a message. Does nothing on a lost connection."""
        if self.lost is None:
            self._client.publish(topic, payload, qos=qos, retain=retain)

    async def keep_alive(self) -> None:
        """Sends keep-alives while the connection exists."""
        while self.lost is None:
            await asyncio.sleep(_KEEP_ALIVE_INTERVAL)
            self._flush()
            if self._client.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS and self.lost is None:
                self._mark_lost("the broker does not respond to keep-alives")

    def close(self) -> None:
        """Disconnects. Further calls have no effect."""
        if self.lost is None:
            self._client.disconnect()
            self._mark_lost("closed")

    async def _connect(self, timeout: float) -> None:
        options = self._options
        arguments: dict[str, Any] = {}
        if options.version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = options.in_flight
            properties.MaximumPacketSize = _MAX_PACKET_BYTES
            properties.SessionExpiryInterval = 0 if self._clean else _SESSION_SECONDS
            arguments = {"clean_start": self._clean, "properties": properties}
        self._client.connect_timeout = timeout
        try:
            await asyncio.to_thread(self._client.connect, options.host, options.port, options.keepalive, **arguments)
        except (OSError, ValueError) as error:
            raise UnavailableError(f"the broker at {options.host}:{options.port} cannot be reached: {error}") from error
        self._socket = self._client.socket()
        if self._socket is None:
            raise UnavailableError(f"the broker at {options.host}:{options.port} closed the connection")
        self._set_reading(True)
        try:
            async with asyncio.timeout(timeout):
                await self._connack
        except TimeoutError as error:
            raise UnavailableError(f"the broker did not answer within {timeout:.1f} s") from error

    async def _subscribe(self, filters: Sequence[str], timeout: float) -> None:
        subscriptions: Any = (
            [(topic_filter, SubscribeOptions(qos=1)) for topic_filter in filters]
            if self._options.version == "5"
            else [(topic_filter, 1) for topic_filter in filters]
        )
        _, packet_id = self._client.subscribe(subscriptions)
        if packet_id is None:
            raise UnavailableError(self.lost or "the connection to the broker is lost")
        suback = self._subacks[packet_id] = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout):
                await suback
        except TimeoutError as error:
            raise UnavailableError("the broker did not answer the subscription in time") from error
        finally:
            self._subacks.pop(packet_id, None)

    def _set_reading(self, on: bool) -> None:
        if on == self._reading or self._socket is None:
            return
        self._reading = on
        if on:
            self._loop.add_reader(self._socket, self._on_readable)
            self._continue_reading()
        else:
            self._loop.remove_reader(self._socket)

    def _on_readable(self) -> None:
        if not self._reading:
            return
        for _ in range(_MAX_READS):
            before = len(self._messages)
            rc = self._client.loop_read()
            if rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._mark_lost(mqtt.error_string(rc))
            if not self._reading:
                return
            if before == len(self._messages) and not self._socket.pending():
                break
            if before >= _MAX_HELD or self._bytes >= _MAX_HELD_BYTES:
                self._set_reading(False)
                break
        self._continue_reading()
        self._flush()

    def _flush(self) -> None:
        """Sends the data that could not be sent at once."""
        try:
            if self._socket is not None and self._socket.flush() and self._client.want_write():
                self._client.loop_write()
        except OSError as error:
            self._mark_lost(str(error))

    def _continue_reading(self) -> None:
        """Continues with buffered data, which does not make the file descriptor readable."""
        if self._reading and self._socket.pending():
            self._loop.call_soon(self._on_readable)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if self._connack.done():
            return
        if reason.is_failure:
            self._connack.set_exception(UnavailableError(f"the broker refuses the connection: {reason}"))
        else:
            self._connack.set_result(None)

    def _on_subscribe(
        self, client: Any, userdata: Any, packet_id: int, reasons: list[ReasonCode], properties: Any
    ) -> None:
        suback = self._subacks.get(packet_id)
        if suback is None or suback.done():
            return
        refused = next((reason for reason in reasons if reason.is_failure), None)
        if refused is not None:
            suback.set_exception(UnavailableError(f"the broker refuses a subscription: {refused}"))
        else:
            suback.set_result(None)

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._mark_lost(str(reason))

    def _on_message(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        packet_id = message.mid if message.qos else 0
        self._bytes += len(message.payload)
        self._messages.append(Message(message.topic, bytes(message.payload), packet_id, message.dup, message.retain))
        self._changed.set()

    def _mark_lost(self, reason: str) -> None:
        if self.lost is not None:
            return
        self._set_reading(False)
        self._socket = None
        self.lost = f"the connection to the broker is lost: {reason}"
        error = UnavailableError(self.lost)
        for future in (self._connack, *self._subacks.values()):
            if not future.done():
                future.set_exception(error)
                future.exception()  # marks the exception as retrieved, in case nothing awaits it
        self._changed.set()


def _tls_context(options: Broker) -> ssl.SSLContext:
    tls = options.tls
    assert tls is not None  # noqa: S101 - for the type checker
    context = ssl.create_default_context(cafile=str(tls.authorities) if tls.authorities else None)
    if tls.certificate is not None:
        context.load_cert_chain(str(tls.certificate), str(tls.key) if tls.key else None)
    return context
