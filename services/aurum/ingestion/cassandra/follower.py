"""Follows the open slots: finds the batches of other replicas, and those that were merged."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aurum.ingestion.cassandra.batch_rows import CorruptBatchError, StoredBatch, decode_batch
from aurum.ingestion.cassandra.open_slots import BatchKey, OpenSlots
from aurum.ingestion.cassandra.schema import SLOT_BUCKETS, SLOT_SECONDS, slot_bucket
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.runtime import damage
from aurum.runtime.errors import UnavailableError

logger = logging.getLogger(__name__)

FOLLOW_SECONDS = 1.0  # seconds between two refreshes that nobody asks for
_AT_ONCE = 16  # batches that are read at once
_FRESH_SECONDS = 20.0  # seconds after its end during which an empty slot is listed at each refresh
_LIST_EVERY = 10.0  # seconds between two listings of an older empty slot
_MOST_AHEAD = 10  # seconds by which the clock of another replica may be ahead

Listing = dict[int, set[BatchKey]]  # the batches of slots


def current_slot() -> int:
    """Returns the slot of the present."""
    return int(time.time() // SLOT_SECONDS)


def list_batches(session: CassandraSession, slots: Sequence[int]) -> Listing:
    """Returns the batches in slots. Blocks. Raises UnavailableError."""
    places = [(slot, bucket) for slot in slots for bucket in range(SLOT_BUCKETS)]
    found: Listing = {slot: set() for slot in slots}
    for (slot, _), rows in zip(places, session.rows_for_each("batch_keys", places), strict=True):
        found[slot].update((row.source, row.sequence) for row in rows)
    return found


def load_batches(
    session: CassandraSession, slot: int, keys: Sequence[BatchKey]
) -> tuple[list[StoredBatch], list[BatchKey]]:
    """Returns batches of a slot, and the keys of those that are damaged. Those that were merged away are left out.

    Blocks.

    Raises:
        UnavailableError: If Cassandra does not answer.
    """
    loaded: list[StoredBatch] = []
    damaged: list[BatchKey] = []
    for rows in session.rows_for_each("batch", [(slot, slot_bucket(key[0]), *key) for key in keys]):
        for row in rows:
            try:
                loaded.append(decode_batch(slot, row))
            except CorruptBatchError as error:
                damaged.append((row.source, row.sequence))
                name = f"{slot}/{row.source}/{row.sequence}"
                damage.report("batch", name, str(error), "it stays where it is, and its readings are in no answer")
    return loaded, damaged


class Follower:
    """Keeps the open slots up to date. For the event loop.

    Args:
        session: The session.
        slots: The open slots.
        own: The batches that this replica is writing, which it adds itself.
        on_batch: Called with each batch that another replica has stored.
    """

    def __init__(
        self,
        session: CassandraSession,
        slots: OpenSlots,
        own: Container[BatchKey],
        on_batch: Callable[[StoredBatch], None],
    ) -> None:
        self._session = session
        self._slots = slots
        self._own = own
        self._on_batch = on_batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-follower")
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._reported_ahead = False
        self._closed = False

    def close(self) -> None:
        """Ends the thread."""
        self._closed = True
        self._thread.shutdown(wait=True)

    async def refresh(self) -> None:
        """Brings the open slots up to date with everything that was durable when it was called.

        Callers that ask while a refresh is in progress share the next one.

        Raises:
            UnavailableError: If Cassandra does not answer, or the store was closed.
        """
        if self._closed:
            raise UnavailableError("the store is closed")
        if self._next is None:
            self._next = asyncio.create_task(self._refresh(), name="store-refresh")
            self._next.add_done_callback(_retrieve)
        await asyncio.shield(self._next)

    async def _refresh(self) -> None:
        async with self._lock:
            self._next = None
            if self._closed:
                raise UnavailableError("the store is closed")
            await self._list_registered()
            known = {slot.number: set(slot.keys) for slot in self._slots.slots() if self._is_due(slot.number)}
            found = await self._on_thread(list_batches, self._session, list(known))
            now = time.monotonic()
            for number, keys in found.items():
                slot = self._slots.get(number)
                slot.listed = now
                self._slots.remove_keys(number, known[number] - keys)
                await self._load(number, sorted(key for key in keys - slot.keys if key not in self._own))

    async def _list_registered(self) -> None:
        """Adds the slots that other replicas have opened, and removes those that were closed."""
        before = {slot.number for slot in self._slots.slots()}
        registered = {row.slot for row in await self._on_thread(lambda: list(self._session.rows("slots", ())))}
        for number in registered:
            self._slots.get(number)
        for number in before - registered:
            self._slots.remove(number)  # remains if batches of it are known
        ahead = max(registered, default=0) - current_slot()
        if ahead * SLOT_SECONDS > _MOST_AHEAD and not self._reported_ahead:
            self._reported_ahead = True
            logger.warning(
                "another replica of ingestion opened a slot %d seconds ahead of this clock; synchronise the clocks, or "
                "readings may be shown late",
                ahead * SLOT_SECONDS,
            )

    def _is_due(self, number: int) -> bool:
        slot = self._slots.get(number)
        fresh = time.time() - (number + 1) * SLOT_SECONDS < _FRESH_SECONDS
        return fresh or bool(slot.keys) or time.monotonic() - slot.listed > _LIST_EVERY

    async def _load(self, number: int, keys: Sequence[BatchKey]) -> None:
        """Reads batches, a few at a time."""
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            loaded, damaged = await self._on_thread(load_batches, self._session, number, some)
            for stored in loaded:
                self._slots.add(stored)
                self._on_batch(stored)
            self._slots.add_damaged(number, damaged)

    async def _on_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _retrieve(task: "asyncio.Task[None]") -> None:
    """Marks the error of a refresh as retrieved, in case nobody waits for it any more."""
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
