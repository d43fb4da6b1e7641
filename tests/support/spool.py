"""Helpers of tests of the spool: creating, putting and draining batches."""

import asyncio
from dataclasses import replace

import numpy as np

from aurum.edge.spool import Lane, Spool
from aurum.readings.batch import Batch, Series
from aurum.readings.batch_decoding import decode, parse_request
from aurum.readings.transport.uplink import QueuedBatch

RNG = np.random.default_rng(1)


def make_batch(sequence: int, readings: int = 3, source: str = "src") -> Batch:
    """Returns a batch with random readings."""
    series = Series("m", "s", np.arange(readings) + sequence * 10_000, RNG.random(readings))
    return Batch.from_series(source, sequence, [series])


async def put_batches(spool: Spool, *batches: Batch) -> list[tuple[int, int]]:
    """Puts batches, and returns the accepted and duplicate readings of each."""
    writing = [await spool.put(batch, "", wait=True) for batch in batches]
    return [(written.accepted, written.duplicate) for written in await asyncio.gather(*writing)]


def sequences_of(batches: list[QueuedBatch]) -> list[int]:
    """Returns the sequences of batches."""
    return [decode(parse_request(batch.data).batch, 2**62).sequence for batch in batches]


async def drain(lane: Lane) -> list[int]:
    """Takes and acknowledges all batches of a lane. Returns their sequences."""
    taken: list[int] = []
    last = 0
    while batches := await lane.batches_after(last, 5):
        taken += sequences_of(batches)
        last = batches[-1].id
        await lane.acknowledge([batch.id for batch in batches])
    return taken


def batch_with_data(source: str, sequence: int, data: bytes) -> Batch:
    """A batch of three readings with any content in place of its message."""
    series = Series("m", "s", np.arange(1, 4), np.zeros(3), increasing=True)
    return replace(Batch.from_series(source, sequence, [series]), data=data)
