"""The latest state of every machine, in memory. It is loaded from the store, then updated by what becomes durable."""

import asyncio
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from aurum.ingestion import metrics
from aurum.ingestion.plant_limits import PlantCapacity, PlantLimits, Reservation
from aurum.ingestion.series_cache import CachedSeries
from aurum.ingestion.store import Change, MachineRecord, SeriesSummary
from aurum.readings.batch import Batch, Timestamps, Values
from aurum.runtime.errors import NotFoundError
from aurum.storage.ranks import Rank
from aurum.v1 import ingestion_pb2

_READING_BYTES = 16
_SHOWN = 140  # characters of an invalid id that are reported, because errors travel in headers
_TAIL_OVERHEAD = 500  # bytes of a tail besides its readings
_TAIL_GROWTH = 16  # factor by which a tail may grow beyond its first capacity


@dataclass(slots=True)
class MachineState:
    """The present state of one machine.

    Attributes:
        record: Its registration.
        first_seen_us: The time of its first reading; 0 without readings.
        last_seen_us: The time of its last reading.
        sensors: Sensor → (time, value) of its last reading.
        ranks: Sensor → rank of that reading, as far as it is known.
        version: The version of the plant at the machine's last change.
    """

    record: MachineRecord
    first_seen_us: int = 0
    last_seen_us: int = 0
    sensors: dict[str, tuple[int, float]] = field(default_factory=dict)
    ranks: dict[str, Rank] = field(default_factory=dict)
    version: int = 0

    @property
    def site(self) -> str:
        """The site of the machine; empty without a registration."""
        return self.record.site

    def message(self, *, sensors: bool = True) -> ingestion_pb2.Machine:
        """Returns the state as a message. `sensors` says whether to include the last readings."""
        return ingestion_pb2.Machine(
            machine_id=self.record.machine_id,
            machine_type=self.record.machine_type,
            site=self.record.site,
            registered_us=self.record.registered_us,
            first_seen_us=self.first_seen_us,
            last_seen_us=self.last_seen_us,
            sensors=[
                ingestion_pb2.SensorState(sensor=sensor, timestamp_us=at, value=value)
                for sensor, (at, value) in (sorted(self.sensors.items()) if sensors else ())
            ],
            sensor_count=len(self.sensors),
        )


class MachineStates:
    """The states of all machines of the plant, and the tails of their series. For one event loop."""

    def __init__(
        self,
        limits: PlantLimits,
        tail_readings: int,
        tail_bytes: int,
        *,
        shared: bool = False,
        on_registration: Callable[[MachineRecord], None] | None = None,
    ) -> None:
        """Creates an empty plant.

        Args:
            limits: The numbers of machines and sensors that are allowed.
            tail_readings: The first capacity of a tail.
            tail_bytes: The limit on the size of all tails.
            shared: Whether other processes write to the store too. Their readings do not pass here, so no tails are
                kept.
            on_registration: Called with each machine that is new or was registered.
        """
        self._shared = shared
        self._on_registration = on_registration or (lambda record: None)
        self._capacity = PlantCapacity(limits)
        self._tail_readings = tail_readings
        self._tail_bytes = tail_bytes
        self._held_bytes = 0  # greatest size of all present tails
        self._tails: OrderedDict[tuple[str, str], CachedSeries] = OrderedDict()  # the most recently used last
        self._states: OrderedDict[str, MachineState] = OrderedDict()  # the most recently changed last
        self._ids: list[str] = []  # sorted
        self._version = 0
        self._changed = asyncio.Event()

    def load(self, machines: list[MachineRecord], summaries: list[SeriesSummary]) -> None:
        """Loads machines and summaries of series from the store."""
        for record in machines:
            self._add_machine(record)
        for each in summaries:
            state = self._states[each.machine_id]
            state.first_seen_us = min(state.first_seen_us or each.first_us, each.first_us)
            state.last_seen_us = max(state.last_seen_us, each.last_us)
            self._set_latest(state, each.sensor, each.last_us, each.last_value)
            state.ranks[each.sensor] = each.rank

    def apply_change(self, change: Change) -> None:
        """Applies a change that another writer has stored."""
        state = self._states.get(change.machine_id) or self._add_machine(
            MachineRecord(change.machine_id, "", "", 0, "")
        )
        if change.machine is not None:
            self._register(state, change.machine)
        if change.first_us:
            state.first_seen_us = min(state.first_seen_us or change.first_us, change.first_us)
        for sensor, latest in change.sensors.items():
            at = latest.at_us
            latest_known = state.sensors.get(sensor)
            if latest_known is None or (at, latest.rank) > (latest_known[0], state.ranks.get(sensor, ())):
                self._set_latest(state, sensor, at, latest.value)
                state.ranks[sensor] = latest.rank
            state.first_seen_us = min(state.first_seen_us or at, at)
            state.last_seen_us = max(state.last_seen_us, at)
        self._mark_changed(state)
        self.wake()

    def reserve(self, batch: Batch) -> Reservation:
        """Reserves room for the machines and sensors of a batch, until `release`. Raises ResourceExhaustedError."""
        return self._capacity.reserve(batch, self._states)

    def release(self, reservation: Reservation) -> None:
        """Ends the reservation after a batch was applied, or was not stored."""
        self._capacity.release(reservation)

    def apply_batch(self, batch: Batch, now: int, rank: Rank = ()) -> None:
        """Applies a batch that has become durable.

        Of readings at the same time, the one with the highest rank counts.
        """
        touched: dict[str, MachineState] = {}
        for series in batch.series:
            state = self._states.get(series.machine_id)
            if state is None:
                state = self._add_machine(MachineRecord(series.machine_id, "", "", now, ""))
            position = len(series.timestamps) - 1
            oldest = int(series.timestamps[0])
            if not series.increasing:
                position -= int(series.timestamps[::-1].argmax())
                oldest = int(series.timestamps.min())
            newest = int(series.timestamps[position])
            tail = self._tails.get((series.machine_id, series.sensor))
            if tail is not None:
                tail.append_readings(series.timestamps, series.values, increasing=series.increasing)
            latest_known = state.sensors.get(series.sensor)
            if latest_known is None or (newest, rank) >= (latest_known[0], state.ranks.get(series.sensor, ())):
                if latest_known is None:
                    self._capacity.count_sensors(state.site)
                state.sensors[series.sensor] = (newest, float(series.values[position]))
                state.ranks[series.sensor] = rank
            state.first_seen_us = min(state.first_seen_us or oldest, oldest)
            state.last_seen_us = max(state.last_seen_us, newest)
            touched[series.machine_id] = state
        for state in touched.values():
            self._mark_changed(state)
        self.wake()

    def apply_registration(self, record: MachineRecord) -> None:
        """Applies a registration that has become durable."""
        state = self._states.get(record.machine_id) or self._add_machine(record)
        self._register(state, record)
        self._mark_changed(state)
        self.wake()

    def is_known(self, machine_id: str) -> bool:
        """Whether a machine is registered or has readings."""
        return machine_id in self._states

    def is_unregistered(self, machine_id: str) -> bool:
        """Whether a machine is known only from its readings, which may not be durable yet."""
        state = self._states.get(machine_id)
        return self._capacity.has_reservation(machine_id) if state is None else not state.record.machine_type

    def get(self, machine_id: str) -> MachineState:
        """Returns the state of a machine. Raises NotFoundError."""
        state = self._states.get(machine_id)
        if state is None:
            raise unknown_machine(machine_id)
        return state

    def tail(self, state: MachineState, sensor: str) -> CachedSeries | None:
        """Returns the tail of a series. A new one starts with the next reading. None if other processes write too."""
        if self._shared:
            return None
        key = (state.record.machine_id, sensor)
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = CachedSeries(self._tail_readings, state.sensors[sensor][0] + 1)
            self._held_bytes += _max_tail_bytes(tail.capacity)
            while self._held_bytes > self._tail_bytes and len(self._tails) > 1:
                self._held_bytes -= _max_tail_bytes(self._tails.popitem(last=False)[1].capacity)
            metrics.ingestion_tails.set(len(self._tails))
        elif 4 * tail.asked > 3 * tail.capacity:
            self._grow_tail(tail, 2 * tail.capacity)
        self._tails.move_to_end(key)
        return tail

    def extend_tail(self, state: MachineState, tail: CachedSeries, start_us: int) -> bool:
        """Enlarges a tail for all readings from `start_us` on, as estimated by their rate.

        Returns whether there is room.
        """
        wanted = tail.estimate_count(max(start_us, state.first_seen_us))
        return wanted > 0 and self._grow_tail(tail, wanted)

    def cached_readings(
        self, state: MachineState, sensor: str, start_us: int, end_us: int, last: int
    ) -> tuple[Timestamps, Values] | None:
        """Returns readings in [start_us, end_us) from memory, or None if some may be only in the store.

        Args:
            state: The machine.
            sensor: The sensor.
            start_us: The first time.
            end_us: The time after the last.
            last: How many readings, counted from the end; 0 for all.
        """
        tail = self.tail(state, sensor)
        if tail is None:
            return None
        start_us = max(start_us, state.first_seen_us)  # there are no readings before it
        return tail.last_readings(last, start_us, end_us) if last else tail.between(start_us, end_us)

    def list_page(
        self,
        after: str,
        size: int,
        machine_type: str,
        site: str,
        may_see: Callable[[str], bool] = bool,
    ) -> tuple[list[MachineState], str]:
        """Returns a page of the matching machines, in the order of their ids.

        Args:
            after: The id after which the page begins; empty for the first page.
            size: The greatest number of machines.
            machine_type: The type to match; empty for all.
            site: The site to match; empty for all.
            may_see: Whether the caller may see the machine with an id.

        Returns:
            The machines, and the next `after`; empty at the end.
        """
        states: list[MachineState] = []
        for index in range(bisect_right(self._ids, after) if after else 0, len(self._ids)):
            state = self._states[self._ids[index]]
            if (machine_type and state.record.machine_type != machine_type) or (site and state.record.site != site):
                continue
            if not may_see(state.record.machine_id):
                continue
            if len(states) == size:
                return states, states[-1].record.machine_id
            states.append(state)
        return states, ""

    @property
    def version(self) -> int:
        """The version of the plant, which increases with each change."""
        return self._version

    def changed_since(self, version: int) -> Iterator[MachineState]:
        """Yields the machines that changed after `version`, the latest first."""
        for state in reversed(self._states.values()):
            if state.version <= version:
                return
            yield state

    async def wait_for_change(self, version: int) -> None:
        """Returns as soon as something has changed after `version`, or `wake` is called."""
        if self._version <= version:
            await self._changed.wait()

    def wake(self) -> None:
        """Ends all waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _grow_tail(self, tail: CachedSeries, wanted: int) -> bool:
        """Enlarges a tail to hold `wanted` readings. Returns False if that exceeds the limits."""
        capacity = tail.capacity
        while capacity < wanted:
            capacity *= 2
        more = _max_tail_bytes(capacity) - _max_tail_bytes(tail.capacity)
        if capacity > _TAIL_GROWTH * self._tail_readings or self._held_bytes + more > self._tail_bytes:
            return False
        self._held_bytes += more
        tail.capacity = capacity
        return True

    def _add_machine(self, record: MachineRecord) -> MachineState:
        state = self._states[record.machine_id] = MachineState(record)
        insort(self._ids, record.machine_id)
        self._mark_changed(state)
        metrics.ingestion_machines.set(len(self._states))
        self._on_registration(record)
        return state

    def _register(self, state: MachineState, record: MachineRecord) -> None:
        self._capacity.count_sensors(state.site, -len(state.sensors))
        state.record = record
        self._capacity.count_sensors(state.site, len(state.sensors))
        self._on_registration(record)

    def _set_latest(self, state: MachineState, sensor: str, at: int, value: float) -> None:
        if sensor not in state.sensors:
            self._capacity.count_sensors(state.site)
        state.sensors[sensor] = (at, value)

    def _mark_changed(self, state: MachineState) -> None:
        """Gives a machine a new version and makes it the most recently changed one."""
        self._version += 1
        state.version = self._version
        self._states.move_to_end(state.record.machine_id)


def unknown_machine(machine_id: str) -> NotFoundError:
    """Returns the error for a machine that does not exist, or that the caller may not know about."""
    shown = machine_id[:_SHOWN]
    return NotFoundError(
        f"machine {shown!r} is not known: it was not registered and has sent no reading",
        reason="MACHINE_NOT_FOUND",
        metadata={"machine_id": shown},
    )


def _max_tail_bytes(capacity: int) -> int:
    """Returns the memory that a tail of this capacity takes at most."""
    return 2 * capacity * _READING_BYTES + _TAIL_OVERHEAD
