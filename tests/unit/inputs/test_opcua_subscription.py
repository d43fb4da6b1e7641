"""What is taken of an OPC UA server's notifications, and what of them is acknowledged, while connections break."""

import asyncio
from typing import Any

import pytest
from asyncua import ua
from asyncua.client.ua_client import UaClient, UaClientState
from asyncua.ua.ua_binary import struct_to_binary

from aurum.edge.inputs.opcua.subscription import DurableSubscription, Session

ID = 7


class Server(Session):
    """Answers as a server does that keeps what it has sent until it is acknowledged."""

    def __init__(self) -> None:
        self.client = UaClient()
        self.client._set_state(UaClientState.CONNECTED)
        super().__init__(self.client)
        self.asked = 0
        self.kept: dict[int, float] = {}
        self.refused: set[int] = set()
        self.gone = False
        self.transfers = True
        self.publishing: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        self._last = 0

    async def _send_request(self, request: Any, timeout: float | None = None, message_type: Any = None) -> Any:
        return ua.utils.Buffer(struct_to_binary(await self._answer(request)))

    async def _answer(self, request: Any) -> Any:
        if isinstance(request, ua.PublishRequest):
            self.asked += 1
            for each in request.Parameters.SubscriptionAcknowledgements:
                self.kept.pop(each.SequenceNumber, None)
            value = await self.publishing
            self.publishing = asyncio.get_running_loop().create_future()
            return ua.PublishResponse(Parameters=self.send(value))
        if isinstance(request, ua.RepublishRequest):
            number = request.Parameters.RetransmitSequenceNumber
            if number in self.refused or number not in self.kept:
                raise ua.uaerrors.BadMessageNotAvailable
            return ua.RepublishResponse(NotificationMessage=message(number, self.kept[number]))
        assert isinstance(request, ua.TransferSubscriptionsRequest)
        if self.gone:
            raise ua.uaerrors.BadSubscriptionIdInvalid
        if not self.transfers:
            raise ua.uaerrors.BadServiceUnsupported
        answer = ua.TransferSubscriptionsResponse()
        answer.Parameters.Results = [ua.TransferResult(AvailableSequenceNumbers=list(self.kept))]
        return answer

    def send(self, value: float | None) -> ua.PublishResult:
        """None: a sign of life."""
        number = self._last + 1
        if value is not None:
            self._last = number
            self.kept[number] = value
        return ua.PublishResult(ID, list(self.kept), NotificationMessage=message(number, value))


def message(number: int, value: float | None) -> ua.NotificationMessage:
    if value is None:
        return ua.NotificationMessage(number)
    item = ua.MonitoredItemNotification(1, ua.DataValue(ua.Variant(value)))
    return ua.NotificationMessage(number, NotificationData=[ua.DataChangeNotification([item])])


class Taken:
    def __init__(self) -> None:
        self.values: list[float] = []
        self.lost = 0
        self.gone: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def take(self, notifications: Any) -> None:
        await self.open.wait()
        for each in notifications:
            if isinstance(each, ua.DataChangeNotification):
                self.values += [item.Value.Value.Value for item in each.MonitoredItems]
            else:
                self.values += each.values.tolist()

    def note_loss(self) -> None:
        self.lost += 1


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def taken() -> Taken:
    return Taken()


@pytest.fixture
async def subscription(server: Server, taken: Taken) -> DurableSubscription:
    found = DurableSubscription(
        server, ua.CreateSubscriptionParameters(), taken.take, taken.note_loss, taken.gone.append
    )
    found.subscription_id = ID
    return found


async def hear(server: Server, subscription: DurableSubscription, value: float | None) -> None:
    """One question for notifications, and its answer."""
    server.publishing.set_result(value)
    response = await server.publish([])
    await subscription.publish_callback(response.Parameters)


async def hear_one_of_three(server: Server, subscription: DurableSubscription) -> None:
    await hear(server, subscription, 1.0)
    server.send(2.0)
    server.send(3.0)


async def test_missed_notifications_are_fetched_and_acknowledged(
    server: Server, subscription: DurableSubscription, taken: Taken
) -> None:
    await hear_one_of_three(server, subscription)
    await subscription.restore()
    await hear(server, subscription, 4.0)
    assert taken.values == [1.0, 2.0, 3.0, 4.0]
    await hear(server, subscription, None)
    assert not server.kept
    await subscription.restore()
    assert (taken.values, taken.lost, taken.gone) == ([1.0, 2.0, 3.0, 4.0], 0, [])


async def test_missed_notifications_are_fetched_without_transfer(
    server: Server, subscription: DurableSubscription, taken: Taken
) -> None:
    server.transfers = False
    await hear_one_of_three(server, subscription)
    await subscription.restore()
    assert (taken.values, taken.lost, taken.gone) == ([1.0, 2.0, 3.0], 0, [])
    await subscription.restore()
    await hear(server, subscription, 4.0)
    assert (taken.values, taken.lost) == ([1.0, 2.0, 3.0, 4.0], 0)


async def test_unreadable_notification_is_skipped_and_counted(
    server: Server, subscription: DurableSubscription, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hear_one_of_three(server, subscription)
    republish = server.republish

    async def unreadable(subscription_id: int, number: int) -> Any:
        if number == 2:
            raise ValueError("is not UTF-8")
        return await republish(subscription_id, number)

    monkeypatch.setattr(server, "republish", unreadable)
    for _ in range(2):
        await subscription.restore()
    assert (taken.values, taken.lost, taken.gone) == ([1.0, 3.0], 1, [])
    await hear(server, subscription, None)
    assert not server.kept


async def test_notification_after_keep_alive_is_not_skipped(
    server: Server, subscription: DurableSubscription, taken: Taken
) -> None:
    await hear(server, subscription, 1.0)
    await hear(server, subscription, None)  # it has the number of what comes next
    server.send(2.0)
    await subscription.restore()
    assert (taken.values, taken.lost) == ([1.0, 2.0], 0)


async def test_newer_notifications_wait_for_restore(
    server: Server, subscription: DurableSubscription, taken: Taken
) -> None:
    """Notifications of the new connection wait until the missing earlier ones are restored."""
    await hear(server, subscription, 1.0)
    server.send(2.0)
    taken.open.clear()
    restoring = asyncio.create_task(subscription.restore())
    await asyncio.sleep(0)
    younger = asyncio.create_task(hear(server, subscription, 3.0))
    await asyncio.sleep(0.01)
    taken.open.set()
    await asyncio.gather(restoring, younger)
    assert (taken.values, taken.lost) == ([1.0, 2.0, 3.0], 0)
    await hear(server, subscription, None)
    assert not server.kept


async def test_notification_in_progress_is_taken_once(
    server: Server, subscription: DurableSubscription, taken: Taken
) -> None:
    taken.open.clear()
    hearing = asyncio.create_task(hear(server, subscription, 1.0))
    await asyncio.sleep(0.01)
    restoring = asyncio.create_task(subscription.restore())
    await asyncio.sleep(0.01)
    taken.open.set()
    await asyncio.gather(hearing, restoring)
    assert (taken.values, taken.lost) == ([1.0], 0)


async def test_republished_notification_in_flight_is_taken_once(
    server: Server, subscription: DurableSubscription, taken: Taken
) -> None:
    server.publishing.set_result(1.0)
    response = await server.publish([])
    await subscription.restore()
    await subscription.publish_callback(response.Parameters)
    assert (taken.values, taken.lost) == ([1.0], 0)


async def test_lost_acknowledgement_is_sent_again(
    server: Server, subscription: DurableSubscription, taken: Taken
) -> None:
    await hear(server, subscription, 1.0)
    kept = dict(server.kept)
    server.publishing.set_exception(ConnectionError())
    with pytest.raises(ConnectionError):
        await server.publish([])
    server.kept = kept  # it has not heard of it
    server.publishing = asyncio.get_running_loop().create_future()
    await subscription.restore()
    assert taken.values == [1.0]
    await hear(server, subscription, None)
    assert not server.kept


async def test_notifications_discarded_by_server_count_as_lost(
    server: Server, subscription: DurableSubscription, taken: Taken
) -> None:
    await hear_one_of_three(server, subscription)
    server.refused.add(2)
    await subscription.restore()
    await hear(server, subscription, 4.0)
    assert (taken.values, taken.lost, taken.gone) == ([1.0, 3.0, 4.0], 1, [])
    server.send(5.0)
    server.kept.clear()
    await subscription.restore()
    await hear(server, subscription, 6.0)
    assert (taken.values, taken.lost) == ([1.0, 3.0, 4.0, 6.0], 2)


async def test_only_a_lost_subscription_ends_the_restore(
    server: Server, subscription: DurableSubscription, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hear(server, subscription, 1.0)
    server.send(2.0)

    async def broken(*_: Any) -> Any:
        raise ConnectionError

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(server, "republish", broken)
        with pytest.raises(ConnectionError):
            await subscription.restore()
    await subscription.restore()
    assert (taken.values, taken.lost, taken.gone) == ([1.0, 2.0], 0, [])
    server.gone = True
    await subscription.restore()
    assert taken.lost == 1
    assert "BadSubscriptionIdInvalid" in taken.gone[0]


@pytest.mark.parametrize(
    "state",
    [UaClientState.CONNECTING, UaClientState.SOCKET_OPEN, UaClientState.CHANNEL_OPEN, UaClientState.DISCONNECTED],
)
async def test_publish_waits_until_connection_is_established(server: Server, state: UaClientState) -> None:
    server.client._set_state(state)
    asking = asyncio.create_task(server.publish([]))
    await asyncio.sleep(0.05)
    assert server.asked == 0
    server.client._set_state(UaClientState.CONNECTED)
    server.publishing.set_result(1.0)
    response = await asking
    assert (server.asked, response.Parameters.NotificationMessage.SequenceNumber) == (1, 1)


async def test_publish_times_out_without_connection(server: Server) -> None:
    server.client._set_state(UaClientState.RECONNECTING)
    with pytest.raises(ua.uaerrors.BadTimeout):
        await server.publish([])
    assert server.asked == 0
