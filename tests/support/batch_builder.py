"""A batch builder over a spool in memory."""

import asyncio
from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import Any

from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import EARLIEST, TagRule
from aurum.edge.inputs.common.series_owners import SeriesOwners
from aurum.edge.inputs.common.tags import Tags
from aurum.readings.batch import Batch
from aurum.readings.transport.ingest_stream import Written
from aurum.security.settings import SenderSettings
from aurum.security.source_limits import SourceLimits


class MemorySpool:
    """Keeps the batches that are put. Each is durable at once, or when the test completes its future in `waiting`."""

    max_bytes = 1_000_000_000

    def __init__(self, *, at_once: bool = True) -> None:
        self.batches: list[Batch] = []
        self.waiting: list[asyncio.Future[Written]] = []
        self._at_once = at_once

    async def put(self, batch: Batch, traceparent: str, *, wait: bool) -> Awaitable[Written]:
        self.batches.append(batch)
        durable: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self.waiting.append(durable)
        if self._at_once:
            durable.set_result(Written(batch.readings, 0))
        return durable

    def readings(self) -> dict[tuple[str, str], list[tuple[int, float]]]:
        readings: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for batch in self.batches:
            for series in batch.series:
                pairs = zip(series.timestamps.tolist(), series.values.tolist(), strict=True)
                readings.setdefault((series.machine_id, series.sensor), []).extend(pairs)
        return readings


def make_builder(
    spool: MemorySpool,
    *rules: TagRule,
    clock: Any = "device",
    machines: Mapping[str, str] | None = None,
    earliest: datetime = EARLIEST,
    name: str = "test",
    owners: SeriesOwners | None = None,
) -> BatchBuilder:
    tags = Tags(rules, machines, name, owners)
    limits = SourceLimits(SenderSettings())
    return BatchBuilder(name, f"{name}-1", spool, tags, clock, limits, earliest=earliest)  # type: ignore[arg-type]
