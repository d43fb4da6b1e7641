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

_KIND = "session_end"  # kind of the event
_EVERY, _WHILE_AWAY = 2.0, 5.0  # seconds between exchanges; while ingestion is unreachable
_MOST = 10_000  # kept sessions; those that expire first are dropped first


class EndedSessions:
    """The ids of ended sessions, exchanged with the other replicas. Not thread-safe; use it from one event loop."""

    def __init__(self, ingestion: IngestionBackend, clock: Callable[[], float] = time.time) -> None:
        self._ingestion = ingestion
        self._clock = clock
        self._until: dict[str, float] = {}  # expiry of each session, by its id
        self._waiting: collections.deque[tuple[str, float]] = collections.deque(maxlen=_MOST)
        self._number = 0

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._until

    def end(self, session_id: str, until: float) -> None:
        """Ends a session. until: When it would have expired, in seconds since 1970."""
        self._note(session_id, until)
        self._waiting.append((session_id, until))

    async def run(self) -> None:
        """Exchanges ended sessions with the other replicas periodically. Runs until cancelled."""
        while True:
            try:
                await self.exchange()
                pause = _EVERY
            except AurumError as error:
                logger.debug("ended sessions are not exchanged at the moment: %s", error.message)
                pause = _WHILE_AWAY
            await asyncio.sleep(pause)

    async def exchange(self) -> None:
        """Records the sessions that ended here and reads those that ended elsewhere.

        Raises:
            AurumError: Ingestion did not answer. Unrecorded sessions are kept for the next exchange.
        """
        while self._waiting:
            session_id, until = self._waiting[0]
            event = ingestion_pb2.Event(kind=_KIND, at_us=int(until * 1e6), id=session_id)
            await self._ingestion.record_events([event])
            self._waiting.popleft()
        for event in await self._ingestion.list_events_after(_KIND, self._number, _MOST):
            self._number = max(self._number, event.number)
            self._note(event.id, event.at_us / 1e6)

    def _note(self, session_id: str, until: float) -> None:
        now = self._clock()
        if until > now:
            self._until[session_id] = until
        if len(self._until) > _MOST:
            kept = sorted(self._until.items(), key=lambda each: each[1])[-_MOST // 2 :]
            self._until = {each: end for each, end in kept if end > now}
