"""Simulates machines that wear, fail and are repaired, for all machines of a type at once.

Time advances in steps of operating time. Wear w of each failure mode grows by
dw = quality · dt/life · (load/nominal)^exponent · (0.4 + 1.2·w), since existing damage accelerates further damage. The
quality is a lognormal factor of each unit; at nominal load and quality 1, a mode fails after 1.16 times its life. When
the wear of a mode reaches 1, the machine stops. Its fault signal is 1 until the repair some hours later. Some machines
get planned maintenance before they fail. Repair and maintenance both reset the wear and the operating hours since
overhaul to 0.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.history import FAULT, OPERATING_HOURS, Run
from aurum.runtime.time_units import HOUR_US
from aurum_sim.machine_types import MachineType

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_IDLE_LOAD = 0.15
QUALITY_SPREAD = 0.22  # sigma of the lognormal quality
REPAIR_HOURS = 6.0
_PLANNED_SHARE = 0.35  # share of lives for which maintenance is planned
DROPOUT_RATE = 0.0008  # of a sensor, per reading; a dropout lasts 10 readings on average
DROPOUT_END = 0.1
SPIKE_RATE = 0.0004  # per reading


@dataclass(frozen=True, slots=True)
class Step:
    """Readings of all machines at one instant: values[machine, sensor], and which of them are present."""

    values: Floats
    present: Bools


class MachineGroup:
    """All machines of one type. All random numbers come from `rng`, so a seed determines the history.

    Attributes:
        kind: The machine type.
        count: The number of machines.
        sensors: The names of the sensors, with the life counter and the fault signal at the end.
        life: Scale of the life of each failure mode, in operating hours.
        exponent: Exponent of the load in the rate of wear of each mode.
        quality: quality[machine, mode] of the present lives, by which the rate of wear is multiplied.
        wear: wear[machine, mode].
        hours: Operating hours of each machine since its overhaul.
        clock_hours: The time that shifts, weekends and the ambient temperature follow.
        phase: Hours by which the shifts of each machine are ahead.
        calibration: calibration[machine, sensor], by which readings are multiplied.
        noise: Standard deviation of the noise of each sensor, in its unit.
    """

    def __init__(
        self,
        kind: MachineType,
        count: int,
        rng: np.random.Generator,
        *,
        worn: float = 0.0,
        planned_maintenance: bool = True,
    ) -> None:
        """Creates the machines.

        Args:
            kind: The machine type.
            count: The number of machines.
            rng: The source of all random numbers.
            worn: Greatest share of its life that a machine has used at the start; 0 for new machines.
            planned_maintenance: Whether some machines get planned maintenance.
        """
        self.kind = kind
        self.count = count
        self.sensors = (*(sensor.name for sensor in kind.sensors), OPERATING_HOURS, FAULT)
        self._rng = rng
        self._planned = planned_maintenance
        self.life = np.array([mode.life_hours for mode in kind.modes])
        self.exponent = np.array([mode.load_exponent for mode in kind.modes])
        self._base = np.array([sensor.base for sensor in kind.sensors])
        self.noise = np.array([sensor.noise for sensor in kind.sensors]) * self._base
        self._gains = np.array([[sensor.gains.get(mode.name, 0.0) for mode in kind.modes] for sensor in kind.sensors])
        self._sensors_by_kind = {
            name: np.array([index for index, sensor in enumerate(kind.sensors) if sensor.kind == name], dtype=np.intp)
            for name in ("level", "thermal", "vibration", "power", "output", "head")
        }
        modes = len(kind.modes)
        self.wear: Floats = np.zeros((count, modes))
        self.hours: Floats = np.zeros(count)
        self.clock_hours = float(rng.uniform(0, 168))
        self.quality = np.ones((count, modes))
        self._planned_at = np.full(count, np.inf)
        self._down_until: Floats = np.full(count, -np.inf)
        self.phase = rng.uniform(0, 8, count)
        self._load_drift = np.zeros(count)
        relative = np.array([sensor.noise for sensor in kind.sensors])
        self.calibration = 1 + 0.7 * relative * rng.standard_normal((count, len(kind.sensors)))
        self._dropped = np.zeros((count, len(kind.sensors)), dtype=bool)
        self._overhaul(np.ones(count, dtype=bool))
        if worn:
            share = rng.uniform(0, worn, count)
            self.hours = share * (self.life / self.quality).min(axis=1)
            self.wear = self._worn_by(self.hours)

    @property
    def faulty(self) -> Bools:
        """Which machines have failed and are not repaired yet."""
        return self._down_until > self.clock_hours

    def cancel_missed_maintenance(self) -> None:
        """Cancels planned maintenance of machines that have worked for longer already."""
        self._planned_at = np.where(self.hours >= self._planned_at, np.inf, self._planned_at)

    def worst_mode(self, machine: int) -> str:
        """Returns the failure mode that has worn a machine most. After a failure, it is the one that failed."""
        return self.kind.modes[int(self.wear[machine].argmax())].name

    def step(self, hours: float) -> Step:
        """Advances by some hours and reads all sensors."""
        self.clock_hours += hours
        self._repair()
        load = self._load()
        running = ~self.faulty
        growth = load[:, None] ** self.exponent / 0.75**self.exponent * (0.4 + 1.2 * self.wear)
        self.wear = np.where(
            running[:, None], np.minimum(1.0, self.wear + hours * self.quality / self.life * growth), self.wear
        )
        self.hours = np.where(running, self.hours + hours, self.hours)
        failed = running & (self.wear >= 1.0).any(axis=1)
        self._down_until = np.where(failed, self.clock_hours + max(REPAIR_HOURS, hours), self._down_until)
        planned = running & ~failed & (self.hours >= self._planned_at)
        if planned.any():
            self._overhaul(planned)
        return self._read(np.where(self.faulty, 0.0, load))

    def nominal_load(self, clock_hours: Floats | float) -> Floats:
        """Returns the load of each machine by shift at one time, or load[time, machine] at times[time, 1]."""
        in_shift = ((clock_hours + self.phase) % 24) < 8 * self.kind.shifts
        weekend = (np.asarray(clock_hours) % 168) >= 144
        works = in_shift & ~(weekend & (self.kind.shifts < 3))
        nominal: Floats = np.where(works, 0.85, _IDLE_LOAD)
        return nominal

    def sensor_values(self, load: Floats, wear: Floats, ambient: Floats) -> Floats:
        """Returns values[..., sensor] without noise for load[...], wear[..., mode] and ambient[...] in °C."""
        wear_by_kind = {
            "vibration": np.expm1(3 * wear) / np.expm1(3.0),
            "output": wear**2,
        }
        values: Floats = np.empty((*load.shape, len(self.kind.sensors)))
        for kind, index in self._sensors_by_kind.items():
            effect = 1 + wear_by_kind.get(kind, wear) @ self._gains[index].T
            base = self._base[index]
            column = load[..., None]
            match kind:
                case "thermal":
                    values[..., index] = ambient[..., None] + base * (0.35 + 0.65 * column**2) * effect
                case "vibration":
                    values[..., index] = base * (0.6 + 0.4 * column) * effect
                case "power":
                    values[..., index] = base * (0.25 + 0.75 * column) * effect
                case "output":
                    values[..., index] = base * column * effect
                case "head":
                    values[..., index] = base * (0.8 + 0.2 * column) * effect
                case _:
                    values[..., index] = base * effect
        return values

    def _load(self) -> Floats:
        """Returns the load of each machine by shift, with slow drift and fast noise, from 0.05 to 1."""
        nominal = self.nominal_load(self.clock_hours)
        self._load_drift += 0.1 * (-self._load_drift) + 0.02 * self._rng.standard_normal(self.count)
        noise = 0.03 * self._rng.standard_normal(self.count)
        load: Floats = np.clip(nominal + self._load_drift + noise, 0.05, 1.0)
        return load

    def _read(self, load: Floats) -> Step:
        ambient = ambient_at(self.clock_hours) + 0.3 * self._rng.standard_normal(self.count)
        values = self.sensor_values(load, self.wear, ambient)
        shape = values.shape
        values = values * self.calibration + self.noise * self._rng.standard_normal(shape)
        values = np.maximum(values, 0.0)
        spikes = self._rng.random(shape) < SPIKE_RATE
        values = np.where(spikes, values * self._rng.uniform(1.5, 3.0, shape), values)
        drawn = self._rng.random(shape)
        self._dropped = np.where(self._dropped, drawn > DROPOUT_END, drawn < DROPOUT_RATE)
        signals = np.column_stack([self.hours, self.faulty.astype(np.float64)])
        return Step(
            values=np.hstack([values, signals]),
            present=np.hstack([~self._dropped, np.ones((self.count, 2), dtype=bool)]),
        )

    def _repair(self) -> None:
        repaired = np.isfinite(self._down_until) & (self._down_until <= self.clock_hours)
        if repaired.any():
            self._down_until[repaired] = -np.inf
            self._overhaul(repaired)

    def _overhaul(self, which: Bools) -> None:
        count = int(which.sum())
        self.wear[which] = 0.0
        self.hours[which] = 0.0
        self.quality[which] = np.exp(QUALITY_SPREAD * self._rng.standard_normal((count, len(self.kind.modes))))
        planned = self._rng.uniform(0.45, 0.95, count) * self.life.min()
        never = self._rng.random(count) >= (_PLANNED_SHARE if self._planned else 0.0)
        self._planned_at[which] = np.where(never, np.inf, planned)

    def _worn_by(self, hours: Floats) -> Floats:
        """Returns the wear after some hours at nominal load, by dw/dt = q/life · (0.4 + 1.2·w) and w(0) = 0."""
        rate = self.quality / self.life
        wear: Floats = np.clip((np.exp(1.2 * rate * hours[:, None]) - 1) / 3, 0, 0.97)
        return wear


def ambient_at(clock_hours: Floats | float) -> Floats:
    """Returns the ambient temperature in °C without noise, which follows the time of day."""
    ambient: Floats = 21 + 5 * np.sin(2 * np.pi * (np.asarray(clock_hours) - 9) / 24)
    return ambient


def run_to_failure(kind: MachineType, machines: int, seed: int, step_hours: float = 1.0) -> list[Run]:
    """Simulates machines from new to failure and returns their histories."""
    rng = np.random.default_rng([seed, sum(map(ord, kind.name))])
    group = MachineGroup(kind, machines, rng, planned_maintenance=False)
    steps: list[Step] = []
    ended = np.zeros(machines, dtype=bool)
    modes = [""] * machines
    lengths = np.zeros(machines, dtype=np.intp)
    limit = int(20 * max(mode.life_hours for mode in kind.modes) / step_hours)
    while not ended.all() and len(steps) < limit:
        steps.append(group.step(step_hours))
        lengths[~ended] = len(steps)
        for machine in np.flatnonzero(group.faulty & ~ended).tolist():
            modes[machine] = group.worst_mode(machine)
        ended |= group.faulty
    values = np.stack([step.values for step in steps])
    present = np.stack([step.present for step in steps])
    values = np.where(present, values, np.nan)
    return [
        Run(
            machine_id=f"{kind.name}-{machine:03d}",
            failed=bool(ended[machine]),
            timestamps=(np.arange(lengths[machine]) * (step_hours * HOUR_US)).astype(np.int64),
            columns={sensor: values[: lengths[machine], machine, index] for index, sensor in enumerate(group.sensors)},
            mode=modes[machine],
        )
        for machine in range(machines)
    ]
