"""The past of a simulated fleet, which leads to the state in which the fleet begins.

The present state of a machine is given, so its wear is traced back from there: with u = 0.4 + 1.2·w, the growth of wear
dw/dt = a(t)·(0.4 + 1.2·w) means that u changes by the factor exp(1.2·∫a dt). A machine that has worked for a shorter
time than the past lasts was overhauled meanwhile, after planned maintenance or, for some machines, after a failure. The
past runs at the speed of the clock: an hour of it is an hour of machine life.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.history import Stop
from aurum.runtime.time_units import HOUR_US
from aurum_sim.fleet import Fleet
from aurum_sim.plant_model import (
    DROPOUT_END,
    DROPOUT_RATE,
    QUALITY_SPREAD,
    REPAIR_HOURS,
    SPIKE_RATE,
    Bools,
    Floats,
    MachineGroup,
    ambient_at,
)

STEP_US = 60_000_000  # between two readings of a sensor
_STEP_HOURS = STEP_US / HOUR_US
_FAILED_AGO = 48.0  # hours; the machine whose overhaul was nearest to this long ago has failed before it
_VIBRATION = "vibration_mm_s"  # whose limit is the alarm rule that machines without a model have
_FAILING_MODE = 0  # of a machine that failed: the first of its type
_LIFE_TO_FAILURE = 1.155  # of a life at nominal load, after which the wear is 1
_PLANNED = (0.45, 0.95)  # shares of the life at which maintenance is planned


@dataclass(frozen=True, slots=True)
class GroupPast:
    """The past of all machines of one type.

    Attributes:
        machine_ids: The machines.
        sensors: The sensors, in the order of the columns.
        times: The times of the readings, in µs since 1970.
        values: values[time, machine, sensor].
        present: Which of the values were read.
        stops: The failures and overhauls of each machine, in their order.
    """

    machine_ids: Sequence[str]
    sensors: Sequence[str]
    times: npt.NDArray[np.int64]
    values: Floats
    present: Bools
    stops: Sequence[Sequence[Stop]]


def past_of(fleet: Fleet, end_us: int, hours: float, failures: int, seed: int) -> list[GroupPast]:
    """Simulates the past of a fleet, and brings its machines into the state in which it ends.

    Args:
        fleet: The fleet, which has not been advanced yet.
        end_us: The end of the past, in µs since 1970.
        hours: How long it lasts.
        failures: The number of machines that failed in it; fewer if not as many were overhauled.
        seed: The same seed, fleet and end give the same past.
    """
    failed = _failed_machines(fleet, hours, failures)
    return [
        _GroupHistory(group, ids, end_us, hours, np.random.default_rng([seed, index])).simulate(failed[index])
        for index, (group, ids) in enumerate(fleet.groups)
    ]


def _failed_machines(fleet: Fleet, hours: float, failures: int) -> list[set[int]]:
    """Returns the machines of each group that failed before their overhaul, if possible by what vibration shows."""
    possible = [
        (_VIBRATION not in group.sensors, abs(age - _FAILED_AGO), index, machine)
        for index, (group, _) in enumerate(fleet.groups)
        for machine, age in enumerate(group.hours.tolist())
        if 0 < age < hours - 2 * REPAIR_HOURS
    ]
    chosen: list[set[int]] = [set() for _ in fleet.groups]
    for _, _, index, machine in sorted(possible)[:failures]:
        chosen[index].add(machine)
    return chosen


class _GroupHistory:
    """Simulates the past of the machines of one type."""

    def __init__(
        self, group: MachineGroup, ids: Sequence[str], end_us: int, hours: float, rng: np.random.Generator
    ) -> None:
        self._group = group
        self._ids = ids
        self._rng = rng
        steps = round(hours / _STEP_HOURS)
        self._times = end_us - STEP_US * np.arange(steps - 1, -1, -1, dtype=np.int64)
        self._clock = group.clock_hours - _STEP_HOURS * np.arange(steps - 1, -1, -1, dtype=np.float64)
        self._load = self._loads()
        # rate[time, machine, mode] of wear, without the quality of the life
        self._growth = (self._load[:, :, None] / 0.75) ** group.exponent * (_STEP_HOURS / group.life)

    def simulate(self, failed: set[int]) -> GroupPast:
        group = self._group
        steps = len(self._times)
        wear = np.empty((steps, group.count, len(group.life)))
        hours = np.empty((steps, group.count))
        fault = np.zeros((steps, group.count), dtype=bool)
        stops = [self._trace(machine, machine in failed, wear, hours, fault) for machine in range(group.count)]
        group.wear = wear[-1].copy()
        group.cancel_missed_maintenance()
        values, present = self._read(np.where(fault, 0.0, self._load), wear)
        shape = (steps, group.count, 2)
        signals = np.concatenate([hours[..., None], fault[..., None]], axis=2)
        return GroupPast(
            self._ids,
            group.sensors,
            self._times,
            np.concatenate([values, signals], axis=2),
            np.concatenate([present, np.ones(shape, dtype=bool)], axis=2),
            stops,
        )

    def _trace(self, machine: int, failed: bool, wear: Floats, hours: Floats, fault: Bools) -> list[Stop]:
        """Fills in the wear, the life counter and the faults of a machine. Returns its failures and overhauls."""
        group, steps = self._group, len(self._times)
        age = float(group.hours[machine])
        began = max(0, steps - 1 - round(age / _STEP_HOURS))  # where the present life begins
        back = np.arange(steps - 1, -1, -1) * _STEP_HOURS
        hours[began:, machine] = np.maximum(age - back[began:], 0.0)
        grown = self._grown(machine, began, steps, group.quality[machine])
        if began == 0:
            last = 0.4 + 1.2 * group.wear[machine]
            wear[:, machine] = np.clip((last * np.exp(1.2 * (grown - grown[-1])) - 0.4) / 1.2, 0, 1)
            return []
        wear[began:, machine] = np.clip((0.4 * np.exp(1.2 * (grown - grown[0])) - 0.4) / 1.2, 0, 0.97)
        ended = began - round(REPAIR_HOURS / _STEP_HOURS) if failed else began
        self._trace_life_before(machine, failed, ended, wear, hours)
        wear[ended:began, machine] = wear[ended - 1, machine]
        hours[ended:began, machine] = hours[ended - 1, machine]
        fault[ended:began, machine] = True
        at = int(self._times[began])
        overhaul = Stop(at, at, failed=False, renewed=True)
        if not failed:
            return [overhaul]
        mode = group.kind.modes[int(wear[ended - 1, machine].argmax())].name
        return [Stop(int(self._times[ended]), at, failed=True, renewed=False, mode=mode), overhaul]

    def _trace_life_before(self, machine: int, failed: bool, ended: int, wear: Floats, hours: Floats) -> None:
        """Fills in the life of a machine that ended at a step."""
        group, rng = self._group, self._rng
        quality = np.exp(QUALITY_SPREAD * rng.standard_normal(len(group.life)))
        to_failure = _LIFE_TO_FAILURE * group.life / quality
        share = rng.uniform(*_PLANNED)
        lasted = float(to_failure[_FAILING_MODE]) if failed else share * float(group.life.min())
        lasted = max(lasted, ended * _STEP_HOURS)
        worn = np.clip((np.exp(1.2 * quality / group.life * lasted) - 1) / 3, 0, 0.97)
        if failed:
            worn[_FAILING_MODE] = 1.0
        grown = self._grown(machine, 0, ended, quality)
        last = 0.4 + 1.2 * worn
        wear[:ended, machine] = np.clip((last * np.exp(1.2 * (grown - grown[-1])) - 0.4) / 1.2, 0, 1)
        hours[:ended, machine] = lasted - np.arange(ended - 1, -1, -1) * _STEP_HOURS

    def _grown(self, machine: int, start: int, end: int, quality: Floats) -> Floats:
        """Returns grown[step, mode], the integral of the rate of wear from the first of these steps on."""
        grown: Floats = np.cumsum(self._growth[start:end, machine] * quality, axis=0)
        return grown

    def _loads(self) -> Floats:
        """Returns load[time, machine] by shift, with slow drift and fast noise, as MachineGroup has it."""
        rng, count = self._rng, self._group.count
        pushes = 0.02 * rng.standard_normal((len(self._clock), count))
        drift = np.zeros(count)
        for step in range(len(pushes)):
            drift = 0.9 * drift + pushes[step]
            pushes[step] = drift
        load: Floats = np.clip(
            self._group.nominal_load(self._clock[:, None]) + pushes + 0.03 * rng.standard_normal(pushes.shape),
            0.05,
            1.0,
        )
        return load

    def _read(self, load: Floats, wear: Floats) -> tuple[Floats, Bools]:
        """Returns values[time, machine, sensor] with noise, and which of them were read."""
        group, rng = self._group, self._rng
        ambient = ambient_at(self._clock)[:, None] + 0.3 * rng.standard_normal(load.shape)
        values = group.sensor_values(load, wear, ambient)
        values *= group.calibration
        values += group.noise * rng.standard_normal(values.shape)
        np.maximum(values, 0.0, out=values)
        spikes = rng.random(values.shape) < SPIKE_RATE
        values[spikes] *= rng.uniform(1.5, 3.0, int(spikes.sum()))
        present = np.ones(values.shape, dtype=bool)
        begins = np.argwhere(rng.random(values.shape) < DROPOUT_RATE)
        lengths = rng.geometric(DROPOUT_END, len(begins))
        for (step, machine, sensor), length in zip(begins.tolist(), lengths.tolist(), strict=True):
            present[step : step + length, machine, sensor] = False
        return values, present
