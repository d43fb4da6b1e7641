"""A simulated plant without fault sensors, whose failures and overhauls people record."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.history import FAULT, OPERATING_HOURS, Run, Stop, split_runs
from aurum.runtime.time_units import HOUR_US
from aurum_sim.machine_types import MachineType
from aurum_sim.plant_model import MachineGroup


@dataclass(frozen=True)
class RecordedPlant:
    """The readings of each machine by sensor at common times, without the fault signal, and its recorded stops."""

    timestamps: npt.NDArray[np.int64]
    columns: dict[str, dict[str, npt.NDArray[np.float64]]]
    stops: dict[str, list[Stop]]

    def runs(self, until: int | None = None) -> list[Run]:
        """Lives as they are known at a time."""
        rows = slice(None) if until is None else slice(int(np.searchsorted(self.timestamps, until)))
        return [
            run
            for machine, columns in self.columns.items()
            for run in split_runs(
                machine,
                self.timestamps[rows],
                {name: values[rows] for name, values in columns.items()},
                ends_in_failure=False,
                stops=[stop for stop in self.stops[machine] if until is None or (stop.to_us or stop.from_us) < until],
            )
        ]


def recorded_plant(  # noqa: PLR0917
    kind: MachineType, machines: int, hours: float, step: float, seed: int, begin: int
) -> RecordedPlant:
    """Simulates a plant. begin: time of its first reading, in µs since 1970."""
    group = MachineGroup(kind, machines, np.random.default_rng(seed), worn=0.9)
    taken, modes = [], []
    for _ in range(int(hours / step)):
        taken.append(group.step(step))
        modes.append([group.worst_mode(machine) for machine in range(machines)])
    values = np.stack([np.where(each.present, each.values, np.nan) for each in taken])
    times = begin + (np.arange(len(taken)) * step * HOUR_US).astype(np.int64)
    columns, stops = {}, {}
    for machine in range(machines):
        by_name = {sensor: values[:, machine, index] for index, sensor in enumerate(group.sensors)}
        faulty, life = by_name.pop(FAULT) >= 0.5, by_name[OPERATING_HOURS]
        name = f"{kind.name}-{machine:02d}"
        columns[name] = by_name
        begins = np.flatnonzero(faulty[1:] & ~faulty[:-1]) + 1
        ends = [int(row + np.argmin(faulty[row:])) if not faulty[row:].all() else len(times) - 1 for row in begins]
        stops[name] = [
            Stop(int(times[row]), int(times[end]), failed=True, mode=modes[row][machine])
            for row, end in zip(begins, ends, strict=True)
        ]
        overhauls = np.flatnonzero((np.diff(life) < 0) & ~faulty[:-1]) + 1
        stops[name] += [Stop(int(times[row]), int(times[row]), renewed=True) for row in overhauls]
    return RecordedPlant(times, columns, stops)
