"""The sources of batches over Cassandra: their order, their owners, and the sequences that are stored."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aurum.ingestion.cassandra.follower import Follower
from aurum.ingestion.cassandra.open_slots import OpenSlots
from aurum.ingestion.cassandra.schema import BLOCK
from aurum.ingestion.cassandra.session import CassandraSession
from aurum.ingestion.cassandra.single_flight import SingleFlight
from aurum.readings.batch import Batch, now_us
from aurum.readings.source_owner import owner_after
from aurum.storage import sequence_ranges

_SOURCES = 10_000  # sources whose sequences are cached
_BLOCKS = 4  # blocks of sequences that are cached for each source
_LOOK_UP_EVERY = 86_400.0  # seconds; often enough to renew the expiry of a source in use

OnReader = Callable[[Callable[[], list[sequence_ranges.Range]]], Awaitable[list[sequence_ranges.Range]]]


@dataclass(slots=True)
class Source:
    """What is cached of a source.

    Attributes:
        order: The time of its first batch (µs).
        owner: The caller that owns it; empty if unknown.
        looked_up: The monotonic time of the last look-up in the tables.
        received: The sequences known to be stored, by block.
    """

    order: int
    owner: str
    looked_up: float
    received: dict[int, list[sequence_ranges.Range]] = field(default_factory=dict)


def received_in_tables(session: CassandraSession, source_id: str, block: int) -> list[sequence_ranges.Range]:
    """Returns the stored sequences of a block, without those in open slots. Blocks. Raises UnavailableError."""
    sequences: list[sequence_ranges.Range] = []
    for row in session.rows("received", (source_id, block)):
        sequence_ranges.record(sequences, row.sequence)
    for row in session.rows("received_ranges", (source_id, block)):
        sequence_ranges.record(sequences, row.first, row.last)
    return sequences


class Sources:
    """A cache of the sources. For the event loop.

    Args:
        session: The session.
        slots: The open slots.
        follower: Brings them up to date.
        on_reader: Runs blocking work on a thread.
    """

    def __init__(self, session: CassandraSession, slots: OpenSlots, follower: Follower, on_reader: OnReader) -> None:
        self._session = session
        self._slots = slots
        self._follower = follower
        self._on_reader = on_reader
        self._sources: OrderedDict[str, Source] = OrderedDict()
        self._once = SingleFlight()

    async def source_of(self, batch: Batch) -> Source:
        """Returns the source of a batch, and registers it if it is new.

        Raises:
            PermissionDeniedError: If the source belongs to another caller.
            UnavailableError: If Cassandra does not answer.
        """
        source = self._sources.get(batch.source_id)
        if source is None or time.monotonic() - source.looked_up > _LOOK_UP_EVERY:
            source = await self._once(
                ("source", batch.source_id), lambda: self._look_up(batch.source_id, batch.sequence)
            )
        if batch.source_id in self._sources:
            self._sources.move_to_end(batch.source_id)
        if owner_after(source.owner, batch.owner, batch.source_id) != source.owner:
            await self._session.execute("add_owner", (batch.source_id, batch.owner))
            source.owner = await self.owner_of(batch.source_id)  # may be another caller that was faster
            owner_after(source.owner, batch.owner, batch.source_id)
        return source

    async def owner_of(self, source_id: str) -> str:
        """Returns the owner of a source; empty if unknown. Raises UnavailableError."""
        rows = await self._session.execute("owner", (source_id,))
        return rows[0].owner if rows else ""

    async def received(self, batch: Batch, source: Source) -> list[sequence_ranges.Range]:
        """Returns the stored sequences of the block that contains the batch's sequence. Raises UnavailableError."""
        block = batch.sequence // BLOCK
        sequences = source.received.get(block)
        if sequences is None:
            key = (batch.source_id, block)
            sequences = await self._once(("received", *key), lambda: self._look_up_received(source, key))
        return sequences

    def record(self, source_id: str, sequence: int) -> None:
        """Records a batch that this or another replica has stored, if its source is cached."""
        source = self._sources.get(source_id)
        sequences = source.received.get(sequence // BLOCK) if source is not None else None
        if sequences is not None:
            sequence_ranges.record(sequences, sequence)

    async def _look_up(self, source_id: str, sequence: int) -> Source:
        """Reads a source from the tables, or adds it, and renews the expiry of its rows."""
        added = False
        rows = await self._session.execute("source", (source_id,))
        owner = await self.owner_of(source_id)
        if rows:
            await self._session.execute("keep_source", (source_id, rows[0].first_us))
        else:
            added = bool((await self._session.execute("add_source", (source_id, now_us())))[0].applied)
            rows = await self._session.execute("source", (source_id,))
        if owner:
            await self._session.execute("keep_owner", (source_id, owner))
        source, order = self._sources.get(source_id), rows[0].first_us
        if source is None or source.order != order:
            source = self._sources[source_id] = Source(order, owner, 0.0)
        source.owner, source.looked_up = owner, time.monotonic()
        if added:  # now, so nothing of it is stored
            source.received[sequence // BLOCK] = []
        if len(self._sources) > _SOURCES:
            self._sources.popitem(last=False)
        return source

    async def _look_up_received(self, source: Source, key: tuple[str, int]) -> list[sequence_ranges.Range]:
        # The open slots first: a merge records sequences in the tables before it removes them from a slot
        await self._follower.refresh()
        open_sequences = self._slots.sequences_of(key[0])
        sequences = await self._on_reader(lambda: received_in_tables(self._session, *key))
        for first, last in [*open_sequences, *self._slots.sequences_of(key[0])]:
            sequence_ranges.record(sequences, first, last)
        source.received[key[1]] = sequences
        while len(source.received) > _BLOCKS:
            del source.received[next(iter(source.received))]
        return sequences
