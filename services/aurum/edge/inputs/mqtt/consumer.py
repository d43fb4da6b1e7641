"""Moves messages from a broker's connection to the spool, and acknowledges them when they are durable."""

import asyncio
import contextlib
from collections.abc import Callable

from aurum.edge.inputs.common.ack_tracker import AckTracker
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.mqtt.connection import Message, MqttConnection
from aurum.runtime.errors import UnavailableError

_MOST_AT_ONCE = 5000  # messages in one batch


async def consume(
    connection: MqttConnection, collector: BatchBuilder, read: Callable[[Message], None], flush: float
) -> None:
    """Reads messages until the connection is lost.

    Args:
        connection: The connection.
        collector: Gathers the values.
        read: Adds a message's values to the collector.
        flush: The greatest number of seconds for which messages are gathered.

    Raises:
        UnavailableError: If the connection is lost.
        Exception: The error of a failed write.
    """
    alive = asyncio.create_task(connection.keep_alive(), name="broker:keep-alive")
    acknowledgements = AckTracker(connection.acknowledge)
    try:
        while True:
            messages = await connection.take(_MOST_AT_ONCE, flush)
            numbers: list[int] = []
            for message in messages:
                read(message)
                if message.number:
                    numbers.append(message.number)
                if collector.full:
                    await acknowledgements.follow(await collector.commit(), numbers)
                    numbers = []
            if messages:
                await acknowledgements.follow(await collector.commit(), numbers)
            else:
                acknowledgements.settle_done()
    finally:
        alive.cancel()
        with contextlib.suppress(UnavailableError):
            await acknowledgements.settle()  # so that these messages are not sent again
