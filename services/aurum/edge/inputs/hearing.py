"""Messages of a broker, from its socket to the disk and back as acknowledgements."""

import asyncio
import contextlib
from collections.abc import Callable

from aurum.edge.inputs.acknowledging import Acknowledgements
from aurum.edge.inputs.broker import BrokerConnection, Message
from aurum.edge.inputs.collecting import Collector
from aurum.runtime.errors import UnavailableError

_MOST_AT_ONCE = 5000  # messages of one batch


async def hear(
    connection: BrokerConnection, collector: Collector, read: Callable[[Message], None], flush: float
) -> None:
    """Until the connection is lost. read: gives a message's values to the collector. flush: seconds that messages are
    gathered at most. Raises UnavailableError, and what the disk raises."""
    alive = asyncio.create_task(connection.keep_alive(), name="broker:keep-alive")
    acknowledgements = Acknowledgements(connection.acknowledge)
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
            await acknowledgements.settle()  # what is on its way to the disk is safe, and need not be stored again
