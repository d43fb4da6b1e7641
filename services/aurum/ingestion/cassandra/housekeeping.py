"""Merges what a replica is due to merge: slots first, then blocks, summaries and segments."""

import asyncio
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aurum.ingestion import metrics
from aurum.ingestion.cassandra import summaries
from aurum.ingestion.cassandra.blocks import Place
from aurum.ingestion.cassandra.compaction import Compactor, merge_day
from aurum.ingestion.cassandra.follower import list_batches
from aurum.ingestion.cassandra.merging import FAN_IN, HeldBatches, Merged, Merger
from aurum.ingestion.cassandra.open_slots import OpenSlot, OpenSlots
from aurum.ingestion.cassandra.schema import GROUPS, PERIOD_US, SLOT_SECONDS
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.store import HOUSEKEEPING, SETTLED_US
from aurum.readings.batch import now_us
from aurum.runtime.errors import AurumError
from aurum.runtime.time_units import DAY_US

T = TypeVar("T")
logger = logging.getLogger(__name__)

_GRACE_SECONDS = 3.0  # seconds after the end of a slot at which it is merged
_CLOSE_SECONDS = 60.0  # seconds for which a slot must have had no batches before it is closed
_RETRY_SECONDS = 10.0  # seconds before a slot is merged again, or claimed again
_PERIODS_SECONDS = 60.0  # seconds between two searches for periods that are over
_MOST_PLACES = 100_000  # periods of groups whose blocks are counted


class Housekeeping:
    """The background work of a replica. For the event loop.

    Args:
        session: The session.
        series: The numbers of the series.
        slots: The open slots.
        replica: The id of this replica.
        ttl: The seconds that readings are kept; 0 for ever.
    """

    def __init__(
        self, session: CassandraSession, series: SeriesIndex, slots: OpenSlots, replica: str, ttl: int
    ) -> None:
        self._session = session
        self._series = series
        self._slots = slots
        self._replica = replica
        self._ttl = ttl
        self._merger = Merger(session, series, ttl)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-merger")
        self._compactor = Compactor()
        self._blocks: Counter[Place] = Counter()  # merges of slots since the blocks of a period were merged
        self._summaries: Counter[int] = Counter()  # merges of slots since the summaries of a group were joined
        self._tried: dict[int, float] = {}  # slots, and when it was tried to merge them
        self._with_batches: dict[int, float] = {}  # slots, and when they were last seen to have batches
        self._periods: list[Place] = []  # that are over
        self._periods_listed = 0.0

    def close(self) -> None:
        """Ends the thread. A merge in progress ends with an error and is repeated after the next start."""
        self._merger.stop()
        self._thread.shutdown(wait=True)

    async def run(self) -> None:
        """Works for as long as the store runs."""
        while True:
            await asyncio.sleep(HOUSEKEEPING)
            try:
                while await self._work():
                    pass
            except AurumError as error:
                metrics.ingestion_maintenance_failures_total.inc()
                logger.warning("merging failed and is retried: %s", error.message)
            except Exception:
                metrics.ingestion_maintenance_failures_total.inc()
                logger.exception("merging failed and is retried")

    async def _work(self) -> bool:
        """Does the most urgent piece of work. Returns False if there is none."""
        for work in (self._merge_slot, self._merge_blocks, self._join_summaries, self._finish_period, self._merge_day):
            if await work():
                return True
        return False

    async def _merge_slot(self) -> bool:
        """Merges a slot that is over, or closes one that stays empty."""
        now = time.monotonic()
        slots = self._slots.slots()
        numbers = {slot.number for slot in slots}
        self._tried = {number: at for number, at in self._tried.items() if number in numbers}
        self._with_batches = {slot.number: self._with_batches.get(slot.number, now) for slot in slots}
        self._with_batches.update(dict.fromkeys((slot.number for slot in slots if slot.keys), now))
        metrics.ingestion_merge_lag_seconds.set(max((_age(slot) for slot in slots if slot.keys), default=0.0))
        for slot in slots:
            if now - self._tried.get(slot.number, -_RETRY_SECONDS) < _RETRY_SECONDS:
                continue
            if slot.keys and _age(slot) >= _GRACE_SECONDS:
                self._tried[slot.number] = now
                if await self._claim(f"slot/{slot.number}"):
                    held = None
                    if slot.columns is not None and not slot.damaged:
                        held = HeldBatches(frozenset(slot.keys), slot.columns)
                    merged = await self._on_thread(self._merger.merge_slot, slot.number, held)
                    self._slots.remove_keys(slot.number, merged.batches)
                    self._record(merged)
                    return True
            elif not slot.keys and _age(slot) > 0 and now - self._with_batches[slot.number] > _CLOSE_SECONDS:
                self._tried[slot.number] = now
                await self._close_slot(slot.number)
                return True
        return False

    async def _close_slot(self, number: int) -> None:
        """Removes the registration of a slot, if it has no batches."""
        if not (await self._on_thread(list_batches, self._session, [number]))[number]:
            await self._session.execute("drop_slot", (number,))

    async def _merge_blocks(self) -> bool:
        for place, count in self._blocks.most_common(1):
            if count >= FAN_IN:
                del self._blocks[place]
                self._record(await self._on_thread(self._merger.merge_blocks, place))
                return True
        return False

    async def _join_summaries(self) -> bool:
        for group, count in self._summaries.most_common(1):
            if count >= summaries.FAN_IN:
                del self._summaries[group]
                await self._on_thread(summaries.join_group, self._session, self._series, group)
                return True
        return False

    async def _finish_period(self) -> bool:
        now = time.monotonic()
        if not self._periods and now - self._periods_listed > _PERIODS_SECONDS:
            self._periods_listed = now
            self._periods = await self._on_thread(self._list_periods)
        while self._periods:
            place = self._periods.pop()
            if await self._claim("period/{}/{}".format(*place)):
                self._record(await self._on_thread(self._merger.finish_period, place))
                return True
        return False

    def _list_periods(self) -> list[Place]:
        """Returns the periods that are over and may have blocks. Blocks."""
        last = (now_us() - SETTLED_US) // PERIOD_US - 1
        groups = [(group, 0, last) for group in range(GROUPS)]
        found = self._session.rows_for_each("periods", groups)
        return [(group, row.period) for group, rows in enumerate(found) for row in rows]

    async def _merge_day(self) -> bool:
        settled = now_us() - SETTLED_US
        self._compactor.mark_completed_days(settled // DAY_US)
        place = self._compactor.pop_due()
        if place is None:
            return False
        over = settled >= (place[2] + 1) * DAY_US
        merged = await self._on_thread(functools.partial(merge_day, self._session, place, self._ttl, over=over))
        metrics.ingestion_segments_merged_total.inc(merged)
        return True

    async def _claim(self, name: str) -> bool:
        """Returns whether no other replica has claimed a piece of work recently."""
        (row,) = await self._session.execute("claim", (name, self._replica))
        return bool(row.applied) or row.replica == self._replica

    def _record(self, merged: Merged) -> None:
        """Records what a merge did, for the merges that follow from it."""
        metrics.ingestion_batches_merged_total.inc(len(merged.batches))
        metrics.ingestion_blocks_merged_total.inc(merged.blocks)
        if len(self._blocks) > _MOST_PLACES:
            self._blocks.clear()
        if merged.batches:
            self._blocks.update(set(merged.places))
            self._summaries.update(set(merged.groups))
        for day in merged.days:
            self._compactor.record_segment(day)

    async def _on_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)


def _age(slot: OpenSlot) -> float:
    """Returns the seconds since the end of a slot; negative before it."""
    return time.time() - (slot.number + 1) * SLOT_SECONDS
