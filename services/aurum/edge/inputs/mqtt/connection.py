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

_HELD, _HELD_BYTES = 20_000, 64_000_000  # messages that are read and not taken; above either limit, reading stops
_MOST_BYTES = 1_100_000  # of a packet (MQTT 5)
_QUIET = 0.002  # seconds without a new message after which the present ones are taken
_AT_ONCE = 500  # messages that are read before other tasks run
_MISC_EVERY = 1.0  # seconds between two checks of the keep-alive
_SESSION_SECONDS = 7 * 86_400  # for which the broker keeps missed messages (MQTT 5)


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes


class Message(NamedTuple):
    """A message from the broker.

    Attributes:
        topic: Its topic.
        payload: Its content.
        number: Identifies it in the acknowledgement; 0 if it needs none (QoS 0).
        again: Whether the broker has sent it before without an acknowledgement.
    """

    topic: str
    payload: bytes
    number: int
    again: bool = False


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
            clean: Whether the broker discards the session while we are disconnected.
            will: The message that the broker publishes if the connection breaks.

        Raises:
            OSError: If a TLS file or the password file cannot be read.
            ValueError: If its content is invalid.
        """
        self._options = options
        five = options.version == "5"
        session: dict[str, Any] = {} if five else {"clean_session": clean}
        self._client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id or client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,
            **session,
        )
        self._clean = clean
        if options.username is not None:
            password = options.password_file.read_text(encoding="utf-8").strip() if options.password_file else None
            self._client.username_pw_set(options.username, password)
        if options.tls is not None:
            self._client.tls_set_context(_context(options))
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=1, retain=True)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_subscribe = self._subscribed
        self._client.on_message = self._arrived
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[None] = self._loop.create_future()
        self._granted: dict[int, asyncio.Future[None]] = {}
        self._messages: collections.deque[Message] = collections.deque()
        self._bytes = 0  # of all held payloads
        self._something = asyncio.Event()
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

    async def take(self, most: int, seconds: float) -> list[Message]:
        """Returns up to `most` messages that arrive within `seconds`.

        Returns earlier when no more arrive, for example because the broker waits for acknowledgements.

        Raises:
            UnavailableError: When the connection is lost and all messages were taken.
        """
        until = time.monotonic() + seconds
        if not self._messages:
            if self.lost is not None:
                raise UnavailableError(self.lost)
            self._something.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._something.wait()
        before = 0
        while before < len(self._messages) < most and self._reading and time.monotonic() < until:
            before = len(self._messages)
            await asyncio.sleep(_QUIET)
        found = [self._messages.popleft() for _ in range(min(most, len(self._messages)))]
        self._bytes -= sum(len(message.payload) for message in found)
        if not self._reading and self.lost is None and len(self._messages) < _HELD // 2:
            self._read(True)
        return found

    def acknowledge(self, numbers: Sequence[int]) -> None:
        """Acknowledges durable messages. Does nothing on a lost connection, because the broker repeats them."""
        if self.lost is not None:
            return
        try:
            with self._socket.together():
                for number in numbers:
                    self._client.ack(number, 1)
        except OSError as error:
            self._end(str(error))

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        if self.lost is None:
            self._client.publish(topic, payload, qos=qos, retain=retain)

    async def keep_alive(self) -> None:
        """Sends keep-alives while the connection exists."""
        while self.lost is None:
            await asyncio.sleep(_MISC_EVERY)
            self._write()
            if self._client.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS and self.lost is None:
                self._end("the broker gives no sign of life")

    def close(self) -> None:
        if self.lost is None:
            self._client.disconnect()
            self._end("closed")

    async def _connect(self, timeout: float) -> None:
        options = self._options
        more: dict[str, Any] = {}
        if options.version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = options.in_flight
            properties.MaximumPacketSize = _MOST_BYTES
            properties.SessionExpiryInterval = 0 if self._clean else _SESSION_SECONDS
            more = {"clean_start": self._clean, "properties": properties}
        self._client.connect_timeout = timeout
        try:
            await asyncio.to_thread(self._client.connect, options.host, options.port, options.keepalive, **more)
        except (OSError, ValueError) as error:
            raise UnavailableError(f"the broker at {options.host}:{options.port} cannot be reached: {error}") from error
        self._socket = self._client.socket()
        if self._socket is None:
            raise UnavailableError(f"the broker at {options.host}:{options.port} hung up")
        self._read(True)
        try:
            async with asyncio.timeout(timeout):
                await self._answer
        except TimeoutError as error:
            raise UnavailableError(f"the broker did not answer within {timeout:.1f} s") from error

    async def _subscribe(self, filters: Sequence[str], timeout: float) -> None:
        wanted: Any = (
            [(each, SubscribeOptions(qos=1)) for each in filters]
            if self._options.version == "5"
            else [(each, 1) for each in filters]
        )
        _, number = self._client.subscribe(wanted)
        if number is None:
            raise UnavailableError(self.lost or "the connection to the broker is lost")
        granted = self._granted[number] = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout):
                await granted
        except TimeoutError as error:
            raise UnavailableError("the broker does not answer to subscriptions") from error
        finally:
            self._granted.pop(number, None)

    def _read(self, on: bool) -> None:
        if on == self._reading or self._socket is None:
            return
        self._reading = on
        if on:
            self._loop.add_reader(self._socket, self._readable)
            self._go_on()
        else:
            self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        if not self._reading:
            return
        for _ in range(_AT_ONCE):
            before = len(self._messages)
            rc = self._client.loop_read()
            if rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._end(mqtt.error_string(rc))
            if not self._reading:
                return
            if before == len(self._messages) and not self._socket.pending():
                break
            if before >= _HELD or self._bytes >= _HELD_BYTES:
                self._read(False)
                break
        self._go_on()
        self._write()

    def _write(self) -> None:
        """Sends what could not be sent at once."""
        try:
            if self._socket is not None and self._socket.flush() and self._client.want_write():
                self._client.loop_write()
        except OSError as error:
            self._end(str(error))

    def _go_on(self) -> None:
        """Continues with buffered data, which does not make the file descriptor readable."""
        if self._reading and self._socket.pending():
            self._loop.call_soon(self._readable)

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if self._answer.done():
            return
        if reason.is_failure:
            self._answer.set_exception(UnavailableError(f"the broker refuses: {reason}"))
        else:
            self._answer.set_result(None)

    def _subscribed(self, client: Any, userdata: Any, number: int, reasons: list[ReasonCode], properties: Any) -> None:
        granted = self._granted.get(number)
        if granted is None or granted.done():
            return
        refused = next((reason for reason in reasons if reason.is_failure), None)
        if refused is not None:
            granted.set_exception(UnavailableError(f"the broker refuses a subscription: {refused}"))
        else:
            granted.set_result(None)

    def _disconnected(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._end(str(reason))

    def _arrived(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        number = message.mid if message.qos else 0
        self._bytes += len(message.payload)
        self._messages.append(Message(message.topic, bytes(message.payload), number, message.dup))
        self._something.set()

    def _end(self, why: str) -> None:
        if self.lost is not None:
            return
        self._read(False)
        self._socket = None
        self.lost = f"the connection to the broker is lost: {why}"
        problem = UnavailableError(self.lost)
        for waiting in (self._answer, *self._granted.values()):
            if not waiting.done():
                waiting.set_exception(problem)
                waiting.exception()  # marks the exception as retrieved, in case nobody waits
        self._something.set()


def _context(options: Broker) -> ssl.SSLContext:
    tls = options.tls
    assert tls is not None  # noqa: S101 - for the type checker
    context = ssl.create_default_context(cafile=str(tls.authorities) if tls.authorities else None)
    if tls.certificate is not None:
        context.load_cert_chain(str(tls.certificate), str(tls.key) if tls.key else None)
    return context
