"""How much each source may send: one device that has gone mad costs the others nothing."""

import asyncio

from aurum.readings.batch import Batch
from aurum.runtime import metrics
from aurum.runtime.errors import RATE_LIMIT, ResourceExhaustedError
from aurum.runtime.settings import Settings
from aurum.security.rate_limits import RateLimits

_LOOK_AGAIN = 1.0  # seconds


class SourceLimits:
    def __init__(self, settings: Settings) -> None:
        rate = settings.ingestion_source_rate
        self._limits = RateLimits(rate, settings.ingestion_source_burst) if rate else None

    async def admit(self, batch: Batch, *, wait: bool) -> None:
        """wait: holds a stream back until it is its turn. Otherwise raises ResourceExhaustedError, which a device waits
        for as for any overload."""
        while self._limits is not None and (seconds := self._limits.take(batch.source_id, batch.readings)):
            if not wait:
                metrics.auth_refused_total.labels("source_rate").inc()
                raise ResourceExhaustedError(
                    f"source {batch.source_id} sends more than its share (AURUM_INGESTION_SOURCE_RATE)",
                    reason=RATE_LIMIT,
                    retry_after=seconds,
                )
            await asyncio.sleep(min(seconds, _LOOK_AGAIN))
