"""The machines of this scorer with their windows: what new readings change, and which machines have to be scored.

It is used on the model thread only. A machine that cannot be followed reading by reading is filled from the store
again; one for which that does not help is scored by queries.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aurum.prediction.fleet import metrics
from aurum.prediction.fleet.alarm_states import FleetView
from aurum.prediction.fleet.array_conditions import Observations
from aurum.prediction.fleet.gateway_connections import GatewayConnections
from aurum.prediction.fleet.held_readings import HeldReadings, not_in
from aurum.prediction.fleet.machine_table import (
    APART,
    BY_MODEL,
    BY_QUERY,
    BY_RULE,
    FILLING,
    MODES,
    Indices,
    MachineTable,
    NameIndex,
    StreamSeries,
)
from aurum.prediction.fleet.model_group import ModelGroup, same_features
from aurum.prediction.fleet.model_windows import ModelWindows
from aurum.prediction.fleet.recent_readings import SERIES_BYTES, RecentReadings
from aurum.prediction.fleet.silence_groups import Senders
from aurum.prediction.fleet.step_locator import Flags
from aurum.prediction.model.features import FeatureSpec
from aurum.prediction.model.model import Model
from aurum.prediction.serving.inputs import missing_sensor
from aurum.prediction.serving.registry import ModelRegistry
from aurum.readings.batch import Column, Timestamps, Values
from aurum.readings.machine_shares import owners_of
from aurum.readings.transport.follow_columns import (
    decode_definitions,
    decode_gateways,
    decode_machines,
    decode_readings,
)
from aurum.v1 import columns_pb2

_FILLS_BEFORE_WAITING = 2  # of a machine within _FILL_PERIOD, before it waits for the next one
_FILL_PERIOD = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Fill:
    """Machines whose windows have to be filled.

    Attributes:
        number: Distinguishes fills. Only the latest one of a machine counts.
        machines: The machines.
        machine_ids: Their ids.
        spec: The features that are computed from their readings; None for the rule.
    """

    number: int
    machines: Sequence[int]
    machine_ids: Sequence[str]
    spec: FeatureSpec | None


class Fleet:
    """The machines of this scorer.

    Attributes:
        table: All machines that it knows.
        sensors: The names of all sensors that it knows.
        groups: The machines with a model, by machine type.
        recent: The readings of machines that the rules assess.
        settled: Whether the machines that there were at the start are known, so that further ones are new.
        reasons: For machines with a model that does not fit, why the rule assesses them.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        watched_sensors: Iterable[str],
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Creates a fleet without machines.

        Args:
            registry: The models.
            watched_sensors: The sensors that alarm rules name.
            max_bytes: The memory of windows. Machines beyond it are scored by queries.
            clock: Monotonic time in seconds.
        """
        self._registry = registry
        self._max_bytes = max_bytes
        self._clock = clock
        self.table = MachineTable(watched_sensors)
        self.sensors = NameIndex()
        self.groups: dict[str, ModelGroup] = {}
        self.recent = RecentReadings(max(1, max_bytes // SERIES_BYTES))
        self.reasons: dict[int, str] = {}
        self.settled = False
        self._members: Sequence[str] = ()
        self._member = ""
        self._held = HeldReadings()
        self._to_fill: dict[int, str] = {}  # machine → reason, in the order in which they are filled
        self._fills = 0
        self._fill_of: dict[int, int] = {}  # machine → number of the fill in progress
        self._filled_at: dict[int, tuple[float, int]] = {}  # machine → start of the period, fills in it
        self._watched = np.empty(0, np.int64)  # column of the watched sensors by number of the sensor
        self._gateways = GatewayConnections()

    def divide(self, members: Sequence[str], member: str) -> None:
        """Takes over the machines of a share, and gives up the others.

        Args:
            members: The live scorers; empty if this one scores all machines.
            member: The name of this one.
        """
        self._members, self._member = members, member
        table = self.table
        mine = self._is_mine(np.arange(len(table)))
        tracked = table.mode[: len(table)] != APART
        for machine in np.flatnonzero(tracked & ~mine).tolist():
            self._release(machine)
            table.forget(machine)
        for machine in np.flatnonzero(~tracked & mine).tolist():
            self._acquire(machine)

    def watch(self, sensors: Iterable[str]) -> None:
        """Keeps the latest readings of the sensors that alarm rules name, from their next readings on."""
        self.table.watch(sensors)
        self._watched = np.empty(0, np.int64)

    def note_machine(self, machine_id: str, machine_type: str, site: str = "", gateway: str = "") -> None:
        """Notes a machine of the stream, which is new or whose registration or gateway may have changed.

        Args:
            machine_id: The machine.
            machine_type: Its type; empty if it is not registered.
            site: Its site likewise.
            gateway: The gateway that sends its readings; empty if this replica of ingestion knows none.
        """
        new = self.table.ids.find(machine_id) < 0
        machine = self.table.add(machine_id)
        self.table.newcomer[machine] |= new and self.settled
        self.table.sites[machine] = self.table.site_names.number(site)
        if gateway:
            self.table.gateways[machine] = self.table.gateway_names.number(gateway)
        number = self.table.type_names.number(machine_type)
        changed = self.table.types[machine] != number
        self.table.types[machine] = number
        if self.table.mode[machine] == APART:
            if self._is_mine(np.array([machine]))[0]:
                self._acquire(machine)
        elif changed:
            self.refill([machine], "registered")

    def apply(self, series: StreamSeries, response: columns_pb2.FollowedReadings) -> None:
        """Applies a response of a stream.

        Raises:
            ValueError: It is malformed.
        """
        with np.errstate(all="ignore"):  # readings may be infinite
            if response.gap:
                metrics.prediction_fleet_gaps_total.inc()
                self.refill_all("gap")
            for machine in decode_machines(response):
                self.note_machine(machine.machine_id, machine.machine_type, machine.site, machine.gateway)
            for gateway in decode_gateways(response):
                self._gateways.note(gateway.name, series.address, connected=gateway.connected)
            self.define(series, decode_definitions(response.readings))
            if response.readings.numbers:
                numbers, times, values = decode_readings(response.readings)
                self.add(series, numbers.astype(np.intp), times, values)

    def view(self, at_us: int, grace: float, served_since_us: int = 0) -> FleetView:
        """Returns a copy of what alarm rules need to know.

        Args:
            at_us: The present time in µs since 1970.
            grace: Seconds after which the rules of a machine that was taken over are evaluated.
            served_since_us: Since when readings could arrive without an outage, in µs since 1970.
        """
        table = self.table
        known = slice(len(table))
        evaluated = (table.mode[known] != APART) & table.latest_known[known]
        evaluated &= table.acquired_at[known] <= self._clock() - grace
        sensors = {
            sensor: (table.watched_time[known, column].copy(), table.watched_value[known, column].copy())
            for column, sensor in enumerate(table.watched)
        }
        observations = Observations(
            at_us,
            table.last_seen[known].copy(),
            sensors,
            risk=table.risk[known].copy(),
            rul=table.rul[known].copy(),
            anomaly=table.anomaly[known].copy(),
            predicted=table.predicted_us[known].copy(),
            thresholds=table.threshold[known].copy(),
            live=table.live[known].copy(),
            served_since=served_since_us,
        )
        types = list(table.type_names.names), table.types[known].copy()
        senders = Senders(
            tuple(table.gateway_names.names),
            table.gateways[known].copy(),
            tuple(table.site_names.names),
            table.sites[known].copy(),
            self._gateways.connected(),
        )
        return FleetView(table.ids.names, *types, evaluated, observations, senders)

    def machine_ids(self) -> list[str]:
        """Returns the machines of this scorer."""
        return [self.table.ids.names[each] for each in np.flatnonzero(self.table.mode[: len(self.table)]).tolist()]

    def define(self, series: StreamSeries, definitions: Iterable[tuple[int, str, str]]) -> None:
        """Notes the series of a stream: number, machine and sensor."""
        for number, machine_id, sensor in definitions:
            known = self.table.ids.find(machine_id)
            if known < 0:
                self.note_machine(machine_id, "")
                known = self.table.ids.find(machine_id)
            sensor_number = self.sensors.number(sensor)
            series.define(number, known, sensor_number)

    def add(self, series: StreamSeries, numbers: Indices, times: Timestamps, values: Values) -> None:
        """Adds readings of a stream, in its order."""
        machines, sensors = series.of(numbers)
        defined = machines >= 0
        metrics.track_ignored("undefined", int((~defined).sum()))
        followed = defined & (self.table.mode[machines] != APART)
        if not followed.all():
            machines, sensors = machines[followed], sensors[followed]
            times, values = times[followed], values[followed]
        if not len(machines):
            return
        metrics.prediction_fleet_readings_total.inc(len(machines))
        metrics.prediction_fleet_lag_seconds.set(time.time() - int(times.max()) / 1e6)
        table = self.table
        table.note_readings(machines, self._watched_columns()[sensors], times, values, int(time.time() * 1e6))
        dirty = np.unique(machines)
        dirty = dirty[table.dirty_since[dirty] == 0]
        table.dirty_since[dirty] = self._clock()
        modes = table.mode[machines]
        at = np.flatnonzero(modes == FILLING)
        if len(at):
            self._held.hold(machines[at], sensors[at], times[at], values[at])
        self._add_to_groups(np.flatnonzero(modes == BY_MODEL), machines, sensors, times, values)
        at = np.flatnonzero((modes == BY_RULE) | self._assessed(machines))
        self._add_to_recent(at, machines, sensors, times, values)

    def refill(self, machines: Iterable[int], reason: str) -> None:
        """Fills the windows of machines from the store again."""
        for machine in machines:
            if self.table.mode[machine] == APART:
                continue
            self._release(machine)
            self.table.mode[machine] = FILLING
            self._to_fill.setdefault(machine, reason)

    def refill_all(self, reason: str) -> None:
        """Fills all windows again, after readings may have been missed."""
        self.refill(np.flatnonzero(self.table.mode[: len(self.table)] != APART).tolist(), reason)
        self.table.latest_known[:] = False

    @property
    def waits_for_fill(self) -> bool:
        """Whether windows wait to be filled. It may be asked from any thread."""
        return bool(self._to_fill)

    def next_fill(self, most: int) -> Fill | None:
        """Returns at most `most` machines of one type whose windows are to be filled; None if there are none."""
        now = self._clock()
        chosen: list[int] = []
        machine_type = -1
        for machine in self._to_fill:
            if machine_type not in (-1, self.table.types[machine]) or not self._may_fill(machine, now):
                continue
            machine_type = int(self.table.types[machine])
            chosen.append(machine)
            if len(chosen) == most:
                break
        for machine in chosen:
            metrics.prediction_fleet_filled_total.labels(self._to_fill.pop(machine)).inc()
            began, fills = self._filled_at.get(machine, (now, 0))
            self._filled_at[machine] = (now, 1) if now - began > _FILL_PERIOD else (began, fills + 1)
            self._fill_of[machine] = self._fills + 1
            self._held.begin(machine)  # the store, which is asked now, has all earlier readings
        metrics.prediction_fleet_filling.set(len(self._to_fill))
        if not chosen:
            return None
        self._fills += 1
        model = self._registry.active(self.table.type_of(chosen[0]))
        ids = [self.table.ids.names[machine] for machine in chosen]
        return Fill(self._fills, chosen, ids, model.spec if model else None)

    def put_back(self, fill: Fill, reason: str) -> None:
        """Puts machines back that could not be filled."""
        for machine in fill.machines:
            if self._fill_of.get(machine) == fill.number:
                del self._fill_of[machine]
                self._held.take(machine)
                self._to_fill.setdefault(machine, reason)
                self._filled_at.pop(machine, None)

    def install(
        self, fill: Fill, readings: Mapping[str, Mapping[str, Column]], latest: Mapping[str, Mapping[str, Column]]
    ) -> list[int]:
        """Fills windows, and adds the readings that have arrived in the meantime.

        Args:
            fill: The machines.
            readings: For each machine id the readings of the window, by sensor.
            latest: For each machine id at least the latest reading of each of its sensors.

        Returns:
            The machines that the model does not fit, so that all their readings are needed for the rule.
        """
        unfit: list[int] = []
        for machine, machine_id in zip(fill.machines, fill.machine_ids, strict=True):
            if self._fill_of.get(machine) != fill.number:
                continue  # given up, or to be filled anew, in the meantime
            columns, now_us = readings.get(machine_id, {}), int(time.time() * 1e6)
            for sensor, (times, values) in latest.get(machine_id, {}).items():
                self.table.note_latest(machine, sensor, int(times[-1]), float(values[-1]), now_us)
            self.table.latest_known[machine] = True
            if not self._install(machine, columns, fill.spec):
                unfit.append(machine)
        self._update_metrics()
        return unfit

    def install_for_rule(self, fill: Fill, machine: int, columns: Mapping[str, Column], reason: str) -> None:
        """Fills the readings of a machine that the rule assesses although its type has a model; reason: why."""
        if self._fill_of.get(machine) == fill.number:
            self.reasons[machine] = reason
            self._install_recent(machine, columns)

    def follow_models(self) -> None:
        """Follows the changes of champions: new windows are filled if the features have changed."""
        for machine_type, group in list(self.groups.items()):
            model = self._registry.active(machine_type)
            if model is None or model is group.model:
                continue
            if same_features(model.spec, group.model.spec):
                group.model = model
                continue
            self.refill(group.machine_of[group.machine_of >= 0].tolist(), "new_model")
            del self.groups[machine_type]
        types = [self.table.type_names.find(name) for name in self._registry.types if name not in self.groups]
        known = slice(len(self.table))
        modes = self.table.mode[known]
        waiting = np.isin(self.table.types[known], types) & ((modes == BY_RULE) | (modes == BY_QUERY))
        for machine in np.flatnonzero(waiting).tolist():
            if machine not in self.reasons:
                self.refill([machine], "new_model")

    def due(self, interval: float) -> list[tuple[bool, list[int]]]:
        """Returns the machines with new readings that are due, the longest waiting first.

        They are grouped by how they are scored, each group with whether it is scored by a model.
        """
        table, now = self.table, self._clock()
        known = slice(len(table))
        since = table.dirty_since[known]
        waits = (since > 0) & np.isin(table.mode[known], (BY_MODEL, BY_RULE))
        metrics.prediction_fleet_oldest_seconds.set(now - float(since[waits].min(initial=now)))
        machines = np.flatnonzero(waits & (table.scored_at[known] <= now - interval))
        machines = machines[np.argsort(table.scored_at[machines], kind="stable")]
        kinds = np.where(table.mode[machines] == BY_RULE, -1, table.types[machines])
        return [(bool(kind >= 0), machines[kinds == kind].tolist()) for kind in np.unique(kinds)]

    def due_by_query(self, interval: float, most: int) -> list[str]:
        """Returns machines that are scored by queries and due, the longest waiting first."""
        table, now = self.table, self._clock()
        known = slice(len(table))
        waits = (table.dirty_since[known] > 0) & (table.mode[known] == BY_QUERY)
        machines = np.flatnonzero(waits & (table.scored_at[known] <= now - interval))
        machines = machines[np.argsort(table.scored_at[machines], kind="stable")][:most]
        table.scored_at[machines], table.dirty_since[machines] = now, 0.0
        return [table.ids.names[machine] for machine in machines.tolist()]

    def group_of(self, machine: int) -> ModelGroup | None:
        """Returns the group of a machine that a model scores."""
        return self.groups.get(self.table.type_of(machine))

    def _is_mine(self, machines: Indices) -> Flags:
        if not self._members:
            return np.ones(len(machines), np.bool_)
        if self._member not in self._members:
            return np.zeros(len(machines), np.bool_)
        mine: Flags = owners_of(self.table.hashes[machines], self._members) == self._members.index(self._member)
        return mine

    def _acquire(self, machine: int) -> None:
        self.table.mode[machine] = FILLING
        self.table.acquired_at[machine] = self._clock()
        self._to_fill.setdefault(machine, "acquired")

    def _release(self, machine: int) -> None:
        """Gives up the windows of a machine."""
        group = self._group_of_row(machine) if self.table.mode[machine] == BY_MODEL else None
        if group is not None:
            group.release(int(self.table.row[machine]))
        self.table.row[machine] = -1
        self.recent.release(machine)
        self.reasons.pop(machine, None)
        self._to_fill.pop(machine, None)
        self._fill_of.pop(machine, None)
        self._held.take(machine)

    def _group_of_row(self, machine: int) -> ModelGroup | None:
        """Returns the group in which a machine has its row, which may be that of its former type."""
        row = int(self.table.row[machine])
        return next(
            (each for each in self.groups.values() if row < len(each.machine_of) and each.machine_of[row] == machine),
            None,
        )

    def _may_fill(self, machine: int, now: float) -> bool:
        began, fills = self._filled_at.get(machine, (now, 0))
        return fills < _FILLS_BEFORE_WAITING or now - began > min(_FILL_PERIOD, 2.0 ** (fills - 1))

    def _watched_columns(self) -> Indices:
        if len(self._watched) < len(self.sensors):
            watched = {sensor: column for column, sensor in enumerate(self.table.watched)}
            more = [watched.get(name, -1) for name in self.sensors.names[len(self._watched) :]]
            self._watched = np.concatenate([self._watched, np.array(more, np.int64)])
        return self._watched

    def _assessed(self, machines: Indices) -> Flags:
        """Returns whether machines with a model are assessed by the rule too, since it has seen no failures."""
        types = [
            self.table.type_names.find(machine_type)
            for machine_type, group in self.groups.items()
            if not group.model.predicts_risk
        ]
        if not types:
            return np.zeros(len(machines), np.bool_)
        assessed: Flags = np.isin(self.table.types[machines], types) & (self.table.mode[machines] == BY_MODEL)
        return assessed

    def _add_to_groups(
        self, at: Indices, machines: Indices, sensors: Indices, times: Timestamps, values: Values
    ) -> None:
        if not len(at):
            return
        types = self.table.types[machines[at]]
        for machine_type in np.unique(types).tolist():
            group = self.groups.get(self.table.type_names.names[machine_type])
            if group is None:
                continue
            part = at[types == machine_type]
            columns = group.columns_of(self.sensors)[sensors[part]]
            used = columns >= 0
            part = part[used]
            if not len(part):
                continue
            rows = self.table.row[machines[part]]
            added = group.windows.add(rows, columns[used], times[part], values[part])
            self.refill(group.machine_of[sorted(added.late)].tolist(), "late")
            for machine in group.machine_of[sorted(added.unsettled)].tolist():
                self._score_by_query(machine, "unsettled")

    def _add_to_recent(
        self, at: Indices, machines: Indices, sensors: Indices, times: Timestamps, values: Values
    ) -> None:
        if not len(at):
            return
        names = self.sensors.names
        pairs = zip(machines[at].tolist(), sensors[at].tolist(), strict=True)
        rows = np.array([self.recent.row(machine, names[sensor]) for machine, sensor in pairs], np.int64)
        kept = rows >= 0
        at = at[kept]
        if len(at):
            self.refill(sorted(self.recent.add(rows[kept], times[at], values[at])), "late")

    def _install(self, machine: int, columns: Mapping[str, Column], spec: FeatureSpec | None) -> bool:
        """Fills the window of a machine. Returns False if its model does not fit."""
        model = self._registry.active(self.table.type_of(machine))
        group = self._group(model) if model else None
        if (model.spec if model else None) is not spec or (
            model and group and not same_features(model.spec, group.windows.spec)
        ):
            self.refill([machine], "new_model")
            return True
        if model is None or group is None:
            self._install_recent(machine, columns)
            return True
        row = group.add(machine)
        if row < 0 or self._used_bytes() > self._max_bytes:
            if row >= 0:
                group.release(row)
            self._score_by_query(machine, "memory")
            return True
        if not group.windows.install(row, columns):
            group.release(row)
            self._score_by_query(machine, "unsettled")
            return True
        if columns and missing_sensor(model.spec, columns) is not None:
            group.release(row)
            return False
        self.table.row[machine], self.table.mode[machine] = row, BY_MODEL
        self._fill_of.pop(machine, None)
        if not model.predicts_risk:
            self.recent.install(machine, columns)
        self._add_held(machine, columns)
        return True

    def _install_recent(self, machine: int, columns: Mapping[str, Column]) -> None:
        if self._used_bytes() + SERIES_BYTES * len(columns) > self._max_bytes or not self.recent.install(
            machine, columns
        ):
            self._score_by_query(machine, "memory")
            return
        self.table.mode[machine] = BY_RULE
        self._fill_of.pop(machine, None)
        self._add_held(machine, columns)

    def _add_held(self, machine: int, columns: Mapping[str, Column]) -> None:
        """Adds the readings that arrived while a machine was filled, and marks it as due."""
        overflowed = machine in self._held.overflowed
        sensors, times, values = self._held.take(machine)
        new = not_in(columns, self.sensors.names, sensors, times, values)
        at = np.flatnonzero(new)
        machines = np.full(len(sensors), machine)
        if columns and self.table.dirty_since[machine] == 0:
            self.table.dirty_since[machine] = self._clock()
        if self.table.mode[machine] == BY_MODEL:
            self._add_to_groups(at, machines, sensors, times, values)
        if self.table.mode[machine] == BY_RULE or self._assessed(machines[:1]).any():
            self._add_to_recent(at, machines, sensors, times, values)
        if overflowed:
            self.refill([machine], "overflow")

    def _score_by_query(self, machine: int, reason: str) -> None:
        metrics.prediction_fleet_errors_total.labels(reason).inc()
        self._release(machine)
        self.table.mode[machine] = BY_QUERY
        if self.table.dirty_since[machine] == 0:
            self.table.dirty_since[machine] = self._clock()

    def _group(self, model: Model) -> ModelGroup:
        group = self.groups.get(model.card.machine_type)
        if group is None:
            capacity = max(1, self._max_bytes // ModelWindows.row_bytes(model.spec))
            group = self.groups[model.card.machine_type] = ModelGroup.create(model, capacity)
        return group

    def _used_bytes(self) -> int:
        return sum(group.nbytes for group in self.groups.values()) + self.recent.series * SERIES_BYTES

    def _update_metrics(self) -> None:
        counts = np.bincount(self.table.mode[: len(self.table)], minlength=len(MODES)).tolist()
        for mode, count in zip(MODES[1:], counts[1:], strict=True):
            metrics.prediction_fleet_machines.labels(mode).set(count)
        metrics.prediction_fleet_window_bytes.set(self._used_bytes())
