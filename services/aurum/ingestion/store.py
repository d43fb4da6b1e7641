"""What a store of readings does, whatever it is made of."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aurum.readings.batch import Batch, Timestamps, Values
from aurum.readings.ingest_stream import Written
from aurum.runtime.errors import REQUEST_ID_REUSED, AlreadyExistsError
from aurum.storage.ranks import Rank

DAY_US = 86_400_000_000
EVENT_MEMORY_US = 90 * DAY_US  # that events are kept
KEPT_KINDS = frozenset({"maintenance"})  # of events that are kept for ever
MOST_RANKED = 200  # segments of several sources that are looked through to learn who sends for a machine
MAX_RAW = 500_000  # readings of one series in one answer; more have to be reduced


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """A machine as it is registered; machine_type and site are empty if it is known only from its readings."""

    machine_id: str
    machine_type: str
    site: str
    registered_us: int
    request_id: str


def require_repeated(registered: MachineRecord, again: MachineRecord) -> None:
    """Raises AlreadyExistsError unless a registration is the same request as that which was granted."""
    if not again.request_id or again.request_id != registered.request_id:
        raise AlreadyExistsError(f"machine {again.machine_id} is registered already")
    if (again.machine_type, again.site) != (registered.machine_type, registered.site):
        raise AlreadyExistsError(
            f"machine {again.machine_id} was registered by a request of this id with another type or site",
            reason=REQUEST_ID_REUSED,
        )


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """What is kept of a series: the times of its first and last reading, the last value, and the rank of its batch: of
    readings of the same time those of the highest rank count."""

    machine_id: str
    sensor: str
    first_us: int
    last_us: int
    last_value: float
    rank: Rank = ()


@dataclass(frozen=True, slots=True)
class Points:
    """A series as asked for; the last three are set if it was reduced, `values` then being means."""

    timestamps: Timestamps
    values: Values
    minima: Values | None = None
    maxima: Values | None = None
    counts: Timestamps | None = None


@dataclass(frozen=True, slots=True)
class Latest:
    """The last reading of a series. rank: empty if it is not known."""

    at_us: int
    value: float
    rank: Rank = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What another writer has stored of a machine: its registration if that is new, its latest reading by sensor."""

    machine_id: str
    machine: MachineRecord | None
    first_us: int
    sensors: Mapping[str, Latest]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that became of a machine, such as a prediction. (kind, machine_id, at_us, id) identifies it. number: of
    the store's, see aurum.v1.Event."""

    kind: str
    machine_id: str
    at_us: int
    id: str
    data: bytes
    number: int = field(default=0, compare=False)


Registered = Callable[[MachineRecord], None]


async def to_its_end(registering: Coroutine[Any, Any, MachineRecord], registered: Registered | None) -> MachineRecord:
    """Awaits a registration, which goes on when whoever waits for it gives up: it may then be in the tables all the
    same. registered: is told in any case."""
    task = asyncio.create_task(registering, name="registration")

    def tell(done: asyncio.Task[MachineRecord]) -> None:
        if not done.cancelled() and done.exception() is None and registered is not None:
            registered(done.result())

    task.add_done_callback(tell)
    return await asyncio.shield(task)


class Store(Protocol):
    """Keeps segments of readings, the registry of machines and their events. Times are microseconds since the epoch."""

    @property
    def shared(self) -> bool:
        """Whether others write to it too, so that `changes` and `find` may tell of what did not come by here."""

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Writes what is queued, then ends."""

    def problem(self) -> str | None:
        """Why nothing can be written at the moment, or None."""

    async def append(self, batch: Batch, *, wait: bool) -> Awaitable[Written]:
        """Queues a batch; the result's await ends when it is durable. wait: for room, else ResourceExhaustedError."""

    async def machines(self) -> list[MachineRecord]: ...

    async def summaries(self) -> list[SeriesSummary]: ...

    async def register(self, machine: MachineRecord, registered: Registered | None = None) -> MachineRecord:
        """registered: is told what the tables have, also after nobody waits for it any more. Raises AlreadyExistsError
        if it is registered, unless by the same request with the same content."""

    async def sent_only_by(self, machine_id: str, owner: str) -> bool:
        """Whether the sources of all readings that are kept of a machine belong to one owner; False if none is kept, or
        if the owner of one is not known (any more)."""

    async def changes(self) -> list[Change]:
        """What others have written lately."""

    async def find(self, machine_id: str) -> Change | None:
        """A machine that is not known here."""

    async def record(self, events: Sequence[Event]) -> None:
        """Keeps events; those that are there already are replaced."""

    async def events(  # noqa: PLR0917
        self, kind: str, machine_id: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        """The newest events in [start_us, end_us), newest first. before: time and id of one; only those that follow."""

    async def journal(self, kind: str, after: int, before: int, limit: int) -> list[Event]:
        """Events of the plant as a whole whose numbers are between `after` and `before`, the highest first."""

    async def read(
        self, machine_id: str, sensor: str, start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> Points:
        """Readings in [start_us, end_us), sorted; see QueryRequest for points and last."""
