"""The interface of a store of readings, independent of its implementation."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aurum.ingestion.series_index import SeriesIndex
from aurum.readings.batch import Batch, SeriesKey, Timestamps, Values
from aurum.readings.transport.ingest_stream import Written
from aurum.runtime.errors import REQUEST_ID_REUSED, AlreadyExistsError
from aurum.runtime.time_units import DAY_US, HOUR_US
from aurum.storage.ranks import Rank

SMALL = 10_000  # readings; a segment of this size is not merged further before its day is over
SETTLED_US = HOUR_US  # a day is over this long after its end
HOUSEKEEPING = 1.0  # seconds between two rounds of housekeeping
EVENT_MEMORY_US = 90 * DAY_US  # how long events are kept
KEPT_KINDS = frozenset(
    {"alarm_rules", "maintenance", "maintenance_change", "planned_stop", "scorecard"}
)  # kinds of events that are kept for ever
MOST_RANKED = 200  # segments with several ranks that are searched for the sources of a machine
READ_AT_ONCE = 200_000  # readings of several series after which no further series is read
MAX_RAW = 500_000  # readings of one series in one answer; more must be reduced
TOO_MANY_READINGS = "TOO_MANY_READINGS"  # reason for refusing to read more than MAX_RAW readings of a series


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """A machine and its registration. Type and site are empty if it is known only from its readings."""

    machine_id: str
    machine_type: str
    site: str
    registered_us: int
    request_id: str


def require_same_registration(registered: MachineRecord, again: MachineRecord) -> None:
    """Raises AlreadyExistsError unless a registration repeats the one that was granted, by request id and content."""
    if not again.request_id or again.request_id != registered.request_id:
        raise AlreadyExistsError(f"machine {again.machine_id} is registered already")
    if (again.machine_type, again.site) != (registered.machine_type, registered.site):
        raise AlreadyExistsError(
            f"machine {again.machine_id} was registered by a request of this id with another type or site",
            reason=REQUEST_ID_REUSED,
        )


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """The summary of a series: the times of its first and last reading, the last value, and the rank of its batch."""

    machine_id: str
    sensor: str
    first_us: int
    last_us: int
    last_value: float
    rank: Rank = ()


@dataclass(frozen=True, slots=True)
class Points:
    """The answer to a query of a series. If it was reduced, `values` are means and the last three fields are set."""

    timestamps: Timestamps
    values: Values
    minima: Values | None = None
    maxima: Values | None = None
    counts: Timestamps | None = None


@dataclass(frozen=True, slots=True)
class Latest:
    """The last reading of a series. `rank` is empty if it is unknown."""

    at_us: int
    value: float
    rank: Rank = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What another writer has stored of a machine.

    `machine` is its registration if that is new, and `sensors` its latest readings by sensor.
    """

    machine_id: str
    machine: MachineRecord | None
    first_us: int
    sensors: Mapping[str, Latest]


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a machine or of the plant, such as a prediction. `(kind, machine_id, at_us, id)` identifies it.

    `number` is assigned by the store, see aurum.v1.Event.
    """

    kind: str
    machine_id: str
    at_us: int
    id: str
    data: bytes
    number: int = field(default=0, compare=False)


def machine_concerned(event_id: str) -> str:
    """Returns the machine that an event of the plant as a whole concerns by its id; empty if it concerns none."""
    machine_id, tilde, _ = event_id.partition("~")
    return machine_id if tilde else ""


OnRegistered = Callable[[MachineRecord], None]
OnStored = Callable[[Batch, Rank], None]  # a batch that another process has stored, and its rank


async def complete_registration(
    registering: Coroutine[Any, Any, MachineRecord], registered: OnRegistered | None
) -> MachineRecord:
    """Runs a registration to its end, even if the caller is cancelled, because it may already be in the tables.

    Args:
        registering: The registration.
        registered: Called with the result in any case, if given.
    """
    task = asyncio.create_task(registering, name="registration")

    def report_result(done: asyncio.Task[MachineRecord]) -> None:
        if not done.cancelled() and done.exception() is None and registered is not None:
            registered(done.result())

    task.add_done_callback(report_result)
    return await asyncio.shield(task)


class Store(Protocol):
    """Stores segments of readings, the registry of machines and their events. Times are in µs since the epoch."""

    @property
    def shared(self) -> bool:
        """Whether other processes write to it too. Their changes are then found by `changes` and `find`."""

    @property
    def series(self) -> SeriesIndex:
        """The numbers of the series. A series that is new is numbered when its first batch has become durable."""

    async def start(self) -> None:
        """Starts the background work."""

    async def close(self) -> None:
        """Writes what is queued, then closes the store."""

    def problem(self) -> str | None:
        """Returns why the store cannot be written at the moment, or None."""

    async def append_batch(self, batch: Batch, *, wait: bool) -> Awaitable[Written]:
        """Queues a batch. The returned awaitable completes when it is durable.

        Args:
            batch: The batch.
            wait: Whether to wait for room if the queue is full.

        Raises:
            ResourceExhaustedError: If the queue is full and `wait` is false.
        """

    async def list_machines(self) -> list[MachineRecord]:
        """Returns all machines."""

    async def summaries(self) -> list[SeriesSummary]:
        """Returns the summary of each series."""

    async def register(self, machine: MachineRecord, registered: OnRegistered | None = None) -> MachineRecord:
        """Registers a machine.

        Args:
            machine: The registration.
            registered: Called with the stored machine, even if the caller has been cancelled.

        Raises:
            AlreadyExistsError: If the machine is registered, unless by the same request with the same content.
        """

    async def gateways(self) -> dict[str, str]:
        """Returns the gateway from which the readings of each machine come, for those whose gateway is known."""

    async def record_gateways(self, gateways: Mapping[str, str]) -> None:
        """Stores the gateways from which the readings of machines come, by machine. Former ones are replaced."""

    async def sent_only_by(self, machine_id: str, owner: str) -> bool:
        """Returns whether one owner owns the sources of all readings that are kept of a machine.

        Returns False if no readings are kept, or if an owner is unknown.
        """

    def follow(self, on_stored: OnStored) -> None:
        """Passes on each batch that another process stores from now on.

        Args:
            on_stored: Called on the event loop. Replaces the one that was given before.
        """

    async def changes(self) -> list[Change]:
        """Returns what other processes have written recently, besides the batches that `follow` passes on."""

    async def find_machine(self, machine_id: str) -> Change | None:
        """Returns a machine that is unknown in this process, or None."""

    async def record_events(self, events: Sequence[Event]) -> None:
        """Stores events. Those that exist already are replaced."""

    async def events(  # noqa: PLR0917
        self, kind: str, machine_id: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        """Returns the newest events in [start_us, end_us), newest first.

        Args:
            kind: The kind of event.
            machine_id: The machine; empty for the plant as a whole.
            start_us: The first time.
            end_us: The time after the last.
            limit: The greatest number of events.
            before: Time and id of an event; only those that follow it in this order are returned.
        """

    async def events_about(  # noqa: PLR0917
        self, kind: str, about: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        """Returns the newest events of the plant as a whole that concern a machine, newest first.

        They are found without reading those that concern others.

        Args:
            kind: The kind of event.
            about: The machine: the id of an event that concerns it begins with it and "~".
            start_us: See `events`.
            end_us: See `events`.
            limit: The greatest number of events.
            before: See `events`.
        """

    async def journal(self, kind: str, after: int, before: int, limit: int) -> list[Event]:
        """Returns events of the plant as a whole with numbers between `after` and `before`, highest first."""

    async def read(
        self, machine_id: str, sensor: str, start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> Points:
        """Returns readings in [start_us, end_us), sorted. See QueryRequest for points and last."""

    async def read_several(
        self, machine_id: str, sensors: Sequence[str], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns what `read` does, for the first of these sensors: at least one, and as many as are read at once."""

    async def read_keys(
        self, keys: Sequence[SeriesKey], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns what `read` does, for the first of these series: at least one, and as many as are read at once."""
