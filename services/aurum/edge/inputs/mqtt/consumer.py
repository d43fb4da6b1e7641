"""Moves messages from a broker's connection to the spool, and acknowledges them when they are durable."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from aurum.edge.inputs.common.ack_tracker import AckTracker
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.mqtt.connection import Message, MqttConnection
from aurum.runtime.errors import UnavailableError

_MAX_MESSAGES = 5000  # messages in one batch


async def consume(
    connection: MqttConnection,
    builder: BatchBuilder,
    handle: Callable[[Message], None],
    flush: float,
    committed: Callable[[Awaitable[Any] | None], None] = lambda durable: None,
) -> None:
    """Reads messages until the connection is lost.

    Args:
        connection: The connection.
        builder: Gathers the values.
        handle: Adds the values of a message to the builder.
        flush: The greatest number of seconds for which messages are gathered.
        committed: Receives what completes when the values of the messages so far are durable; None if it had no values.

    Raises:
        UnavailableError: If the connection is lost.
        Exception: The error of a failed write.
    """
    keep_alive_task = asyncio.create_task(connection.keep_alive(), name="broker:keep-alive")
    ack_tracker = AckTracker(connection.acknowledge)

    async def commit(packet_ids: list[int]) -> None:
        durable = await builder.commit()
        committed(durable)
        await ack_tracker.track(durable, packet_ids)

    try:
        while True:
            messages = await connection.receive(_MAX_MESSAGES, flush)
            packet_ids: list[int] = []
            for message in messages:
                handle(message)
                if message.packet_id:
                    packet_ids.append(message.packet_id)
                if builder.full:
                    await commit(packet_ids)
                    packet_ids = []
            if messages:
                await commit(packet_ids)
            else:
                ack_tracker.acknowledge_durable()
    finally:
        keep_alive_task.cancel()
        with contextlib.suppress(UnavailableError):
            await ack_tracker.wait_for_all()  # so that these messages are not sent again
