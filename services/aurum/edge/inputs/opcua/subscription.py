"""A subscription to an OPC UA server that acknowledges a notification when its readings are durable.

After a lost connection, notifications that were sent but not received are requested again (OPC 10000-4, 5.14.5 and
5.14.6: Publish, Republish).
"""

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from asyncua import ua
from asyncua.client.ua_client import UaClientState
from asyncua.client.ua_session import UaSession
from asyncua.common.subscription import Subscription
from asyncua.ua.uaerrors import (
    BadMessageNotAvailable,
    BadNothingToDo,
    BadNotImplemented,
    BadNotSupported,
    BadServiceUnsupported,
    BadTimeout,
    UaStructParsingError,
)

from aurum.edge.inputs.opcua.changes import read_publish_response

_UNREADABLE = (struct.error, ValueError, LookupError)
_MAX_SEQUENCE = 2**32 - 1  # of a notification; the first is 1
_CONNECT_TIMEOUT = 1.0  # seconds, after which the library's loop checks whether the session is closed, and retries
_NO_TRANSFER = (BadServiceUnsupported, BadNotImplemented, BadNotSupported, BadNothingToDo)


class Session(UaSession):
    """A session that reads value changes as columns.

    It repeats acknowledgements until the server has received them.
    """

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._unconfirmed: dict[tuple[int, int], None] = {}  # in order

    def acknowledge(self, subscription: int, number: int) -> None:
        """Acknowledges a notification with the next publish request."""
        self._unconfirmed[subscription, number] = None

    def is_unconfirmed(self, subscription: int, number: int) -> bool:
        """Returns whether a notification is acknowledged here, but the server has not confirmed it."""
        return (subscription, number) in self._unconfirmed

    async def publish(self, acks: list[ua.SubscriptionAcknowledgement]) -> ua.PublishResponse:
        """Requests the next notification, and sends the pending acknowledgements.

        Args:
            acks: The library's own acknowledgements. They are ignored: the library forgets them when a connection is
                lost, and acknowledges some notifications that were not consumed.

        Raises:
            UaStructParsingError: If the notification cannot be read. It is then not acknowledged.
        """
        await self._wait_until_connected()
        acknowledgements = list(self._unconfirmed)
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = [
            ua.SubscriptionAcknowledgement(*key) for key in acknowledgements
        ]
        data = await self._send_request(request, timeout=0)
        for key in acknowledgements:
            self._unconfirmed.pop(key, None)
        try:
            return read_publish_response(data)
        except (ua.UaError, *_UNREADABLE) as error:
            self.logger.exception("a notification cannot be read; it is not acknowledged")
            raise UaStructParsingError from error

    async def _wait_until_connected(self) -> None:
        """Waits until the connection is restored. Raises BadTimeout.

        A request that is sent before the channel is open would break the connection.
        """
        if self._client.state is UaClientState.CONNECTED:
            return
        async with self._client.subscribe_state() as changes:
            try:
                await changes.wait_for_state(UaClientState.CONNECTED, _CONNECT_TIMEOUT)
            except TimeoutError:
                raise BadTimeout from None


class DurableSubscription(Subscription):
    """A subscription that awaits the consumer of each notification.

    The next notification is requested, and this one acknowledged, only when the consumer has returned. Notifications
    are consumed one after the other, each once.

    Args:
        session: The session.
        parameters: The parameters of the subscription.
        consume: Consumes a notification, and returns when the changes are durable.
        on_gap: Called when the server no longer has a notification that was missed.
        on_stop: Called with a reason when the subscription cannot continue. The library would create a new one, for
            which the server keeps nothing if the connection breaks meanwhile.
    """

    def __init__(
        self,
        session: Session,
        parameters: Any,
        consume: Callable[[Sequence[Any]], Awaitable[None]],
        on_gap: Callable[[], None],
        on_stop: Callable[[str], None],
    ) -> None:
        super().__init__(session, parameters, handler=None, queue_maxsize=1)
        self._session = session
        self._consumer = consume
        self._on_gap = on_gap
        self._on_stop = on_stop
        self._consuming = asyncio.Lock()

    async def publish_callback(self, publish_result: Any) -> None:
        """Consumes a notification, after the missed ones if the connection is being restored."""
        async with self._consuming:
            await self._consume(publish_result.NotificationMessage)
            self.last_publish_at = time.monotonic()

    async def restore(self) -> None:
        """Requests the missed notifications on a new connection. Raises OSError if that breaks too."""
        async with self._consuming:
            try:
                for number in await self._missed_numbers():
                    await self._republish(number)
                while await self._republish(self._next_number):
                    pass  # not every server lists the notifications that it keeps
                self._session.ensure_publish_loop()  # the loop ends when the server has no subscription
            except (ua.UaError, TimeoutError) as error:
                self._stop(str(error) or type(error).__name__)
            self.last_publish_at = time.monotonic()

    async def recreate(self) -> None:
        """Ends the subscription. The library calls this when nothing was received for too long."""
        self._stop("no notification or keep-alive was received in time")

    def is_stale(self, margin: float) -> bool:
        """Returns whether nothing was received for too long.

        Returns False while a notification is being consumed or requested again, because no other one is requested
        then.
        """
        return not self._consuming.locked() and super().is_stale(margin)

    async def _missed_numbers(self) -> list[int]:
        """Returns the numbers of the unacknowledged notifications that the server keeps, if it lists them."""
        parameters = ua.TransferSubscriptionsParameters([self.subscription_id], SendInitialValues=False)
        numbers: list[int] = []
        try:
            for transferred in await self._session.transfer_subscriptions(parameters):
                transferred.StatusCode.check()
                numbers += transferred.AvailableSequenceNumbers
        except _NO_TRANSFER:
            return []  # if the session is the same, the subscription is too
        return sorted(numbers)

    async def _republish(self, number: int) -> bool:
        """Requests a notification again. Returns whether it was received and consumed."""
        subscription = self.subscription_id or 0
        if self._session.is_unconfirmed(subscription, number):
            return False
        try:
            message = await self._session.republish(subscription, number)
        except BadMessageNotAvailable:
            return False
        except (UaStructParsingError, *_UNREADABLE):
            self.logger.exception("notification %s cannot be read; it is skipped", number)
            self._session.acknowledge(subscription, number)  # otherwise it would be requested again each time
            return False
        await self._consume(message)
        return self.last_sequence_number == number

    async def _consume(self, message: ua.NotificationMessage) -> None:
        """Consumes a notification unless it is a keep-alive.

        A keep-alive has no data, and its number is that of the next notification.
        """
        if not message.NotificationData:
            return
        subscription, number = self.subscription_id or 0, int(message.SequenceNumber)
        if self._session.is_unconfirmed(subscription, number):
            return  # it arrived both regularly and by republishing
        await self._consumer(message.NotificationData)
        self._session.acknowledge(subscription, number)
        if number != self._next_number:
            self._on_gap()
        self.last_sequence_number = number

    @property
    def _next_number(self) -> int:
        """The number of the notification after the last one."""
        return (self.last_sequence_number or 0) % _MAX_SEQUENCE + 1

    def _stop(self, reason: str) -> None:
        self._on_gap()
        self._on_stop(f"the subscription ended: {reason}")
