"""The latest state of every machine, in memory. It is loaded from the store, then updated by what becomes durable."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from aurum.ingestion import machine_messages, metrics
from aurum.ingestion.latest_readings import NEVER, Places, last_of_each
from aurum.ingestion.machine_table import MachineTable
from aurum.ingestion.machine_view import MachineState
from aurum.ingestion.plant_limits import PlantCapacity, PlantLimits, Reservation
from aurum.ingestion.series_cache import CachedSeries, SeriesCache
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.store import Change, Latest, MachineRecord, SeriesSummary
from aurum.readings.batch import Batch, SeriesKey, SeriesKeys, Timestamps, Values
from aurum.runtime.errors import NotFoundError
from aurum.storage.ranks import Rank

_SHOWN = 140  # characters of an invalid id that are reported, because errors travel in headers


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
        series: SeriesIndex | None = None,
    ) -> None:
        """Creates an empty plant.

        Args:
            limits: The numbers of machines and sensors that are allowed.
            tail_readings: The first capacity of a tail.
            tail_bytes: The limit on the size of all tails.
            shared: Whether other processes write to the store too. Their readings do not pass here, so no tails are
                kept.
            on_registration: Called with each machine that is new or was registered.
            series: The numbers of the store's series. None for numbers that are used only here.
        """
        self._shared = shared
        self._on_registration = on_registration or (lambda record: None)
        self._capacity = PlantCapacity(limits)
        self._table = MachineTable(SeriesIndex() if series is None else series)
        self._cache = SeriesCache(tail_readings, tail_bytes)
        self._version = 0
        self._changed = asyncio.Event()

    @property
    def count(self) -> int:
        """How many machines there are."""
        return len(self._table)

    def load(self, machines: Sequence[MachineRecord], summaries: Sequence[SeriesSummary]) -> None:
        """Loads machines and summaries of series from the store."""
        for record in machines:
            self._add_machine(record)
        if summaries:
            keys = [(each.machine_id, each.sensor) for each in summaries]
            times = np.array([each.last_us for each in summaries], np.int64)
            values = np.array([each.last_value for each in summaries], np.float64)
            first = np.array([each.first_us for each in summaries], np.int64)
            self._merge(keys, first, times, values, [each.rank for each in summaries])

    def apply_change(self, change: Change) -> None:
        """Applies a change that another writer has stored."""
        self.apply_changes([change])

    def apply_changes(self, changes: Sequence[Change]) -> None:
        """Applies changes that other writers have stored."""
        machines: list[int] = []
        latest: dict[SeriesKey, Latest] = {}
        for change in changes:
            machine = self._table.number_of(change.machine_id)
            if machine is None:
                machine = self._add_machine(MachineRecord(change.machine_id, "", "", 0, ""))
            if change.machine is not None:
                self._register(machine, change.machine)
            first = [reading.at_us for reading in change.sensors.values()]
            if change.first_us:
                first.append(change.first_us)
            if first:
                self._table.include_first(machine, min(first))
            machines.append(machine)
            for sensor, reading in change.sensors.items():
                known = latest.setdefault((change.machine_id, sensor), reading)
                if (reading.at_us, reading.rank) > (known.at_us, known.rank):
                    latest[change.machine_id, sensor] = reading
        if latest:
            times = np.array([each.at_us for each in latest.values()], np.int64)
            values = np.array([each.value for each in latest.values()], np.float64)
            self._merge([*latest], times, times, values, [each.rank for each in latest.values()])
        self._mark_changed(np.array(machines, np.intp))
        self.wake()

    def reserve(self, batch: Batch) -> Reservation:
        """Reserves room for the machines and sensors of a batch, until `release`. Raises ResourceExhaustedError."""
        series = self._table.index.find(batch.keys)
        self._table.make_room()
        known = self._table.latest.have_readings(series)
        unknown = () if known.all() else [batch.keys.keys[place] for place in np.flatnonzero(~known).tolist()]
        return self._capacity.reserve(unknown, self)

    def release(self, reservation: Reservation) -> None:
        """Ends the reservation after a batch was applied, or was not stored."""
        self._capacity.release(reservation)

    def apply_batch(self, batch: Batch, now: int, rank: Rank = ()) -> None:
        """Applies a batch that has become durable.

        Of readings at the same time, the one with the highest rank counts.
        """
        series = self._number(batch.keys, now)
        times, values, first = last_of_each(batch)
        self._cache.append_batch(batch, series)
        self._table.latest.replace(series, times, values, rank)
        machines = self._table.machines_of(series)
        self._table.include_times(machines, first, times)
        self._mark_changed(machines)
        self.wake()

    def apply_registration(self, record: MachineRecord) -> None:
        """Applies a registration that has become durable."""
        machine = self._table.number_of(record.machine_id)
        if machine is None:
            machine = self._add_machine(record)
        self._register(machine, record)
        self._mark_changed(np.array([machine], np.intp))
        self.wake()

    def is_known(self, machine_id: str) -> bool:
        """Whether a machine is registered or has readings."""
        return self._table.number_of(machine_id) is not None

    def is_unregistered(self, machine_id: str) -> bool:
        """Whether a machine is known only from its readings, which may not be durable yet."""
        state = self.find(machine_id)
        return self._capacity.has_reservation(machine_id) if state is None else not state.record.machine_type

    def find(self, machine_id: str) -> MachineState | None:
        """Returns the state of a machine, or None if it is unknown."""
        machine = self._table.number_of(machine_id)
        return None if machine is None else MachineState(self._table, machine)

    def get(self, machine_id: str) -> MachineState:
        """Returns the state of a machine. Raises NotFoundError."""
        state = self.find(machine_id)
        if state is None:
            raise unknown_machine(machine_id)
        return state

    def tail(self, state: MachineState, sensor: str, *, once: bool = False) -> CachedSeries | None:
        """Returns the tail of a series, or None if other processes write too.

        A new one starts with the next reading. With `once`, none is begun.
        """
        series = state.series_of(sensor)
        if self._shared or series is None:
            return None
        if once:
            return self._cache.present(series)
        return self._cache.tail(series, self._table.latest.times.item(series))

    def extend_tail(self, state: MachineState, tail: CachedSeries, start_us: int) -> bool:
        """Enlarges a tail for all readings from `start_us` on, as estimated by their rate.

        Returns whether there is room.
        """
        return self._cache.extend(tail, max(start_us, state.first_seen_us))

    def cached_readings(
        self, state: MachineState, sensor: str, start_us: int, end_us: int, last: int, *, once: bool = False
    ) -> tuple[Timestamps, Values] | None:
        """Returns readings in [start_us, end_us) from memory, or None if some may be only in the store.

        Args:
            state: The machine.
            sensor: The sensor.
            start_us: The first time.
            end_us: The time after the last.
            last: How many readings, counted from the end; 0 for all.
            once: Whether the readings will not be asked for again soon.
        """
        tail = self.tail(state, sensor, once=once)
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
        *,
        only: Sequence[str] | None = None,
    ) -> tuple[list[MachineState], str]:
        """Returns a page of the matching machines, in the order of their ids.

        Args:
            after: The id after which the page begins; empty for the first page.
            size: The greatest number of machines.
            machine_type: The type to match; empty for all.
            site: The site to match; empty for all.
            may_see: Whether the caller may see the machine with an id.
            only: The known machines to choose from, ordered by id; None for all.

        Returns:
            The machines, and the next `after`; empty at the end.
        """
        states: list[MachineState] = []
        numbers = self._table.numbers_after(after) if only is None else self._numbers_of(only, after)
        for machine in numbers:
            record = self._table.records[machine]
            if (machine_type and record.machine_type != machine_type) or (site and record.site != site):
                continue
            if not may_see(record.machine_id):
                continue
            if len(states) == size:
                return states, states[-1].record.machine_id
            states.append(MachineState(self._table, machine))
        return states, ""

    def _numbers_of(self, machine_ids: Sequence[str], after: str) -> Iterator[int]:
        numbers = (self._table.number_of(each) for each in machine_ids if each > after)
        return (number for number in numbers if number is not None)

    @property
    def version(self) -> int:
        """The version of the plant, which increases with each change."""
        return self._version

    def changed_since(self, version: int) -> list[MachineState]:
        """Returns the machines that changed after `version`, the latest first."""
        versions = self._table.versions[: len(self._table)]
        changed = np.flatnonzero(versions > version)
        latest_first = changed[np.argsort(versions[changed], kind="stable")[::-1]]
        return [MachineState(self._table, machine) for machine in latest_first.tolist()]

    def encoded(self, states: Iterable[MachineState]) -> Iterator[bytes]:
        """Yields the serialized message of each state, with the last readings."""
        return machine_messages.encode(self._table, [state.number for state in states])

    async def wait_for_change(self, version: int) -> None:
        """Returns as soon as something has changed after `version`, or `wake` is called."""
        if self._version <= version:
            await self._changed.wait()

    def wake(self) -> None:
        """Ends all waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _number(self, keys: SeriesKeys, now: int) -> Places:
        """Returns the number of each series. Adds those without readings, and their machines, which begin at `now`."""
        table = self._table
        series = table.index.assign(keys).astype(np.intp)
        table.make_room()
        last = table.latest.times[series]
        if last.min() == NEVER:
            for place in np.flatnonzero(last == NEVER).tolist():
                machine_id, sensor = keys.keys[place]
                machine = table.number_of(machine_id)
                if machine is None:
                    machine = self._add_machine(MachineRecord(machine_id, "", "", now, ""))
                table.add_series(machine, sensor, series.item(place))
                self._capacity.count_sensors(table.records[machine].site)
        return series

    def _merge(
        self, keys: Sequence[SeriesKey], first: Timestamps, times: Timestamps, values: Values, ranks: Sequence[Rank]
    ) -> None:
        """Adds the last readings of series, each with its rank, and the times of the first ones."""
        series = self._number(SeriesKeys(keys), 0)
        self._table.latest.merge(series, times, values, ranks)
        self._table.include_times(self._table.machines_of(series), first, times)

    def _add_machine(self, record: MachineRecord) -> int:
        machine = self._table.add(record)
        self._mark_changed(np.array([machine], np.intp))
        metrics.ingestion_machines.set(len(self._table))
        self._on_registration(record)
        return machine

    def _register(self, machine: int, record: MachineRecord) -> None:
        sensors = len(self._table.series[machine])
        self._capacity.count_sensors(self._table.records[machine].site, -sensors)
        self._table.records[machine] = record
        self._capacity.count_sensors(record.site, sensors)
        self._on_registration(record)

    def _mark_changed(self, machines: Places) -> None:
        """Gives the plant a new version, which is that of the machines too."""
        self._version += 1
        self._table.versions[machines] = self._version


def unknown_machine(machine_id: str) -> NotFoundError:
    """Returns the error for a machine that does not exist, or that the caller may not know about."""
    shown = machine_id[:_SHOWN]
    return NotFoundError(
        f"machine {shown!r} is not known: it was not registered and has sent no reading",
        reason="MACHINE_NOT_FOUND",
        metadata={"machine_id": shown},
    )
