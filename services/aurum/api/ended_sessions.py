"""Sessions that were signed out before they expired. Every replica of the API refuses them.

A session that ends at this replica is refused here at once, and recorded as an event without a machine. The other
replicas read the event within seconds. While ingestion is unreachable, events wait in memory.
"""

import asyncio
import collections
import logging
import time
from collections.abc import Callable

from aurum.api.backends import IngestionBackend
from aurum.runtime.errors import AurumError
from aurum.v1 import ingestion_pb2

logger = logging.getLogger(__name__)

_EVENT_KIND = "session_end"
_EXCHANGE_SECONDS, _RETRY_SECONDS = 2.0, 5.0  # between exchanges; while ingestion is unreachable
_MAX_SESSIONS = 10_000  # those that expire first are dropped first


class EndedSessions:
    """The ids of ended sessions, exchanged with the other replicas. Not thread-safe; use it from one event loop."""

    def __init__(self, ingestion: IngestionBackend, clock: Callable[[], float] = time.time) -> None:
        self._ingestion = ingestion
        self._clock = clock
        self._until: dict[str, float] = {}  # expiry of each session, by its id
        self._unrecorded: collections.deque[tuple[str, float]] = collections.deque(maxlen=_MAX_SESSIONS)
        self._last_number = 0

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._until

    def end(self, session_id: str, until: float) -> None:
        """Ends a session at this replica. until: When it would have expired, in seconds since 1970."""
        self._add(session_id, until)
        self._unrecorded.append((session_id, until))

    async def run(self) -> None:
        """Exchanges ended sessions with the other replicas periodically. Runs until cancelled."""
        while True:
            try:
                await self.exchange()
                pause = _EXCHANGE_SECONDS
            except AurumError as error:
                logger.debug("ended sessions could not be exchanged and will be retried: %s", error.message)
                pause = _RETRY_SECONDS
            await asyncio.sleep(pause)

    async def exchange(self) -> None:
        """Records the sessions that ended here and reads those that ended elsewhere.

        Raises:
            AurumError: Ingestion did not answer. Unrecorded sessions are kept for the next exchange.
        """
        while self._unrecorded:
            session_id, until = self._unrecorded[0]
            event = ingestion_pb2.Event(kind=_EVENT_KIND, at_us=int(until * 1e6), id=session_id)
            await self._ingestion.record_events([event])
            self._unrecorded.popleft()
        for event in await self._ingestion.list_events_after(_EVENT_KIND, self._last_number, _MAX_SESSIONS):
            self._last_number = max(self._last_number, event.number)
            self._add(event.id, event.at_us / 1e6)

    def _add(self, session_id: str, until: float) -> None:
        now = self._clock()
        if until > now:
            self._until[session_id] = until
        if len(self._until) > _MAX_SESSIONS:
            latest = sorted(self._until.items(), key=lambda item: item[1])[-_MAX_SESSIONS // 2 :]
            self._until = {session_id: end for session_id, end in latest if end > now}
