"""Histories of machines, from which models are trained: runs from an overhaul until a failure."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Timestamps, Values

OPERATING_HOURS = "operating_hours"  # hours since the last overhaul; resets at an overhaul
FAULT = "fault"  # 1 from a failure until the repair, else 0

AXES = {
    OPERATING_HOURS: "h",
    "cycle": "cycles",
    "cycles": "cycles",
    "time_in_cycles": "cycles",
    "hours": "h",
    "run_hours": "h",
}
"""Sensors that count a machine's life, and their units. Without one, life is counted in hours of time."""
LABELS = frozenset({FAULT, "failure", "failed", "rul", "label", "target", "anomaly", "changepoint"})
"""Columns that reveal the outcome and must be hidden from models."""


@dataclass(frozen=True, slots=True)
class Run:
    """The operation of a machine from an overhaul, or its first reading, until a failure or the last reading.

    Attributes:
        machine_id: The machine, with `/` and the number of the run if it has several.
        failed: Whether the run ends in a failure.
        timestamps: Times in µs since the epoch.
        columns: Sensor → value at each of the timestamps; NaN where there is no reading.
        left: The life left at the last reading, if it is known although the run was not followed to its failure. The
            run then counts as failed.
    """

    machine_id: str
    failed: bool
    timestamps: Timestamps
    columns: dict[str, Values]
    left: float = 0.0

    @property
    def machine(self) -> str:
        """The machine id without the number of the run."""
        return self.machine_id.rpartition("/")[0] or self.machine_id


def life_axis(sensors: Iterable[str]) -> str | None:
    """Returns the sensor that counts the life of a machine with these sensors, or None."""
    by_name: dict[str, str] = {}
    for sensor in sorted(sensors, reverse=True):  # of names that differ in capitals, the first one is used
        by_name[sensor.lower()] = sensor
    return next((by_name[name] for name in AXES if name in by_name), None)


def split_runs(
    machine_id: str,
    timestamps: Timestamps,
    columns: dict[str, Values],
    *,
    ends_in_failure: bool,
    axis: str | None = None,
    renewed: npt.NDArray[np.bool_] | None = None,
) -> list[Run]:
    """Splits a machine's history into runs. A new run begins where the life counter decreases or a fault ends.

    A run ends at a fault and has then failed.

    Args:
        machine_id: The machine.
        timestamps: Times in µs since the epoch.
        columns: Sensor → value at each time.
        ends_in_failure: Whether the last run has failed, if there is no fault signal.
        axis: The sensor that counts life; by default it is recognised by its name, whatever its capitals.
        renewed: The times from which on the machine is known to have been overhauled.
    """
    axis = axis or life_axis(columns)
    fault = columns.get(FAULT)
    faulty = np.nan_to_num(fault) >= 0.5 if fault is not None else np.zeros(len(timestamps), dtype=bool)
    begins = np.zeros(len(timestamps), dtype=bool)
    begins[:1] = True
    begins[1:] |= faulty[:-1] & ~faulty[1:]
    if renewed is not None:
        begins |= renewed & ~faulty  # an overhaul at a failure repairs it, and the run that failed includes the failure
    if axis is not None:
        life = columns[axis]
        present = np.flatnonzero(~np.isnan(life))
        decreases = present[1:][np.diff(life[present]) < 0]
        begins[decreases] = True
    starts = [*np.flatnonzero(begins).tolist(), len(timestamps)]
    runs: list[Run] = []
    for start, end in itertools.pairwise(starts):
        faults = np.flatnonzero(faulty[start:end])
        failed = len(faults) > 0 or (fault is None and ends_in_failure and end == len(timestamps))
        stop = start + int(faults[0]) + 1 if len(faults) else end
        part = slice(start, stop)
        name = machine_id if len(starts) == 2 else f"{machine_id}/{len(runs) + 1}"
        runs.append(Run(name, failed, timestamps[part], {sensor: values[part] for sensor, values in columns.items()}))
    return runs
