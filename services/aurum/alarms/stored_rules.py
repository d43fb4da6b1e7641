"""Follows the revisions of the alarm rules in the store, and puts the newest one in force."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from aurum.alarms.followed_rules import FollowedRules
from aurum.alarms.rules_revision import EVENT_KIND, revisions_of
from aurum.runtime.errors import AurumError
from aurum.v1 import ingestion_pb2

logger = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_RETRY_SECONDS = 1.0  # while the store is unreachable and nothing has been read from it
_MOST_EVENTS = 64  # that are read and kept: more than one revision has

ListAfter = Callable[[str, int, int], Awaitable[list[ingestion_pb2.Event]]]
"""Returns the events of a kind after an event number, the newest so many, in the order of their numbers."""


class StoredRules:
    """Reads the revisions of the alarm rules from the store."""

    def __init__(self, rules: FollowedRules, list_after: ListAfter) -> None:
        """Reads nothing yet.

        Args:
            rules: The rules in force.
            list_after: Reads events from the store.
        """
        self._rules = rules
        self._list_after = list_after
        self._events: OrderedDict[tuple[int, str], ingestion_pb2.Event] = OrderedDict()
        self._last_number = 0
        self._reading = asyncio.Lock()

    async def read(self) -> None:
        """Puts the newest valid revision in force, if there is a newer one. Raises AurumError."""
        async with self._reading:
            events = await self._list_after(EVENT_KIND, self._last_number, _MOST_EVENTS)
            unread = [event for event in events if (event.at_us, event.id) not in self._events]
            for event in unread:
                self._events[event.at_us, event.id] = event
                self._last_number = max(self._last_number, event.number)
            while len(self._events) > _MOST_EVENTS:
                self._events.popitem(last=False)
            if unread or not self._rules.loaded:
                revisions = await asyncio.to_thread(revisions_of, list(self._events.values()))
                self._rules.follow_revision(revisions[0] if revisions else None)

    async def run(self) -> None:
        """Reads periodically until cancelled."""
        unreachable = False
        while True:
            try:
                await self.read()
                unreachable = False
            except AurumError as error:
                if not unreachable:
                    logger.warning(
                        "stored alarm rules were not read: %s; the present ones stay in force, and it is tried again",
                        error.message,
                    )
                unreachable = True
            await asyncio.sleep(_POLL_SECONDS if self._rules.loaded else _RETRY_SECONDS)
