"""Rate limits by source, so that a malfunctioning device does not slow down the others."""

import asyncio

from aurum.readings.batch import Batch
from aurum.runtime.errors import RATE_LIMIT, ResourceExhaustedError
from aurum.security import metrics
from aurum.security.rate_limits import RateLimits
from aurum.security.settings import SenderSettings

_RECHECK_SECONDS = 1.0  # seconds


class SourceLimits:
    """The rate limit of each source, by the settings."""

    def __init__(self, settings: SenderSettings) -> None:
        rate = settings.ingestion_source_rate
        self._limits = RateLimits(rate, settings.ingestion_source_burst) if rate else None

    async def admit(self, batch: Batch, *, wait: bool) -> None:
        """Admits a batch within the rate of its source.

        Args:
            batch: The batch; each of its readings takes a token.
            wait: Whether to wait until there are enough tokens, as for streams.

        Raises:
            ResourceExhaustedError: The source exceeds its rate and `wait` is false. The client retries it like any
                overload.
        """
        while self._limits is not None and (seconds := self._limits.take(batch.source_id, batch.readings)):
            if not wait:
                metrics.auth_refused_total.labels("source_rate").inc()
                raise ResourceExhaustedError(
                    f"source {batch.source_id} exceeds its rate (AURUM_INGESTION_SOURCE_RATE)",
                    reason=RATE_LIMIT,
                    retry_after=seconds,
                )
            await asyncio.sleep(min(seconds, _RECHECK_SECONDS))
