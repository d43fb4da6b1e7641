"""A subscription to an OPC UA server, whose notifications are acknowledged when they are on our disk, and that asks for
what was sent and not heard after a lost connection (OPC 10000-4, 5.14.5 and 5.14.6: Publish, Republish)."""

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

from aurum.edge.inputs.opcua_changes import read_publish_response

_UNREADABLE = (struct.error, ValueError, LookupError)
_LAST_NUMBER = 2**32 - 1  # of a notification; they begin at 1
_CONNECTED_WITHIN = 1.0  # seconds, after which the library's loop looks whether the session is closed, and asks again
_NO_TRANSFER = (BadServiceUnsupported, BadNotImplemented, BadNotSupported, BadNothingToDo)


class Session(UaSession):
    """Reads changes of values as columns, and acknowledges until the server has heard it."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._unconfirmed: dict[tuple[int, int], None] = {}  # in order

    def acknowledge(self, subscription: int, number: int) -> None:
        """With the next question for notifications."""
        self._unconfirmed[subscription, number] = None

    def acknowledged(self, subscription: int, number: int) -> bool:
        """Whether it has been, as far as the server may not know yet."""
        return (subscription, number) in self._unconfirmed

    async def publish(self, acks: list[ua.SubscriptionAcknowledgement]) -> ua.PublishResponse:
        """acks: what the library believes to be taken; it forgets them with a connection, and some are not."""
        await self._wait_for_the_connection()
        told = list(self._unconfirmed)
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = [ua.SubscriptionAcknowledgement(*each) for each in told]
        data = await self._send_request(request, timeout=0)
        for each in told:
            self._unconfirmed.pop(each, None)
        try:
            return read_publish_response(data)
        except (ua.UaError, *_UNREADABLE) as error:
            self.logger.exception("a notification cannot be read")  # it is not acknowledged
            raise UaStructParsingError from error

    async def _wait_for_the_connection(self) -> None:
        """While it is made anew: what is sent before its channel is open would break it. Raises BadTimeout."""
        if self._client.state is UaClientState.CONNECTED:
            return
        async with self._client.subscribe_state() as changes:
            try:
                await changes.wait_for_state(UaClientState.CONNECTED, _CONNECTED_WITHIN)
            except TimeoutError:
                raise BadTimeout from None


class DurableSubscription(Subscription):
    """Awaits whoever takes a notification, so that the next one is asked for, and this one acknowledged, only then.

    Takes them one after the other, each once. take: ends when the changes are durable. lost: called when the server has
    not kept everything that it has sent. gone: called, with a reason, when this one cannot go on; the library would
    begin another, and keeps nothing for it if the connection breaks meanwhile.
    """

    def __init__(
        self,
        session: Session,
        parameters: Any,
        take: Callable[[Sequence[Any]], Awaitable[None]],
        lost: Callable[[], None],
        gone: Callable[[str], None],
    ) -> None:
        super().__init__(session, parameters, handler=None, queue_maxsize=1)
        self._session = session
        self._take = take
        self._lost = lost
        self._gone = gone
        self._one_at_a_time = asyncio.Lock()

    async def publish_callback(self, publish_result: Any) -> None:
        """While a connection is restored, what comes by it waits: it is younger than what is asked for again."""
        async with self._one_at_a_time:
            await self._took(publish_result.NotificationMessage)
            self.last_publish_at = time.monotonic()

    async def restore(self) -> None:
        """By a new connection. Raises OSError if that breaks too."""
        async with self._one_at_a_time:
            try:
                for number in await self._available():
                    await self._ask_for(number)
                while await self._ask_for(self._next):
                    pass  # not every server tells what it has
                self._session.ensure_publish_loop()  # it ends where a server has no subscription
            except (ua.UaError, TimeoutError) as error:
                self._end(str(error) or type(error).__name__)
            self.last_publish_at = time.monotonic()

    async def recreate(self) -> None:
        """Called when nothing was heard for too long."""
        self._end("nothing came, not even a sign of life")

    def is_stale(self, margin: float) -> bool:
        """Not while a notification is being taken, or asked for again: then it is we who ask for no other."""
        return not self._one_at_a_time.locked() and super().is_stale(margin)

    async def _available(self) -> list[int]:
        """The numbers of what the server keeps until it is acknowledged, as far as it tells."""
        parameters = ua.TransferSubscriptionsParameters([self.subscription_id], SendInitialValues=False)
        found: list[int] = []
        try:
            for transferred in await self._session.transfer_subscriptions(parameters):
                transferred.StatusCode.check()
                found += transferred.AvailableSequenceNumbers
        except _NO_TRANSFER:
            return []  # if the session is the same, so is the subscription
        return sorted(found)

    async def _ask_for(self, number: int) -> bool:
        """Whether that brought it."""
        subscription = self.subscription_id or 0
        if self._session.acknowledged(subscription, number):
            return False
        try:
            message = await self._session.republish(subscription, number)
        except BadMessageNotAvailable:
            return False
        except (UaStructParsingError, *_UNREADABLE):
            self.logger.exception("notification %s cannot be read", number)
            self._session.acknowledge(subscription, number)  # or it would be asked for each time
            return False
        await self._took(message)
        return self.last_sequence_number == number

    async def _took(self, message: ua.NotificationMessage) -> None:
        """A sign of life has no data, and the number of a notification that is still to come."""
        if not message.NotificationData:
            return
        subscription, number = self.subscription_id or 0, int(message.SequenceNumber)
        if self._session.acknowledged(subscription, number):
            return  # it was asked for again while it was on its way
        await self._take(message.NotificationData)
        self._session.acknowledge(subscription, number)
        if number != self._next:
            self._lost()
        self.last_sequence_number = number

    @property
    def _next(self) -> int:
        """The number of the notification after the last one."""
        return (self.last_sequence_number or 0) % _LAST_NUMBER + 1

    def _end(self, why: str) -> None:
        self._lost()
        self._gone(f"the subscription cannot go on: {why}")
