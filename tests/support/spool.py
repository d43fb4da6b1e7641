"""What tests of the spool share: batches, and what becomes of them."""

import asyncio

import numpy as np

from aurum.edge.spool import Lane, Spool
from aurum.readings.batch import Batch, Series, decode, parse_request
from aurum.readings.transport.uplink import QueuedBatch

RNG = np.random.default_rng(1)


def batch(sequence: int, readings: int = 3, source: str = "src") -> Batch:
    series = Series("m", "s", np.arange(readings) + sequence * 10_000, RNG.random(readings))
    return Batch.from_series(source, sequence, [series])


async def put(spool: Spool, *batches: Batch) -> list[tuple[int, int]]:
    writing = [await spool.put(each, "", wait=True) for each in batches]
    return [(written.accepted, written.duplicate) for written in await asyncio.gather(*writing)]


def sequences(found: list[QueuedBatch]) -> list[int]:
    return [decode(parse_request(waiting.data).batch, 2**62).sequence for waiting in found]


async def drain(lane: Lane) -> list[int]:
    """Takes everything that waits in a lane, and acknowledges it."""
    taken: list[int] = []
    last = 0
    while found := await lane.batches_after(last, 5):
        taken += sequences(found)
        last = found[-1].id
        await lane.acknowledge([waiting.id for waiting in found])
    return taken
