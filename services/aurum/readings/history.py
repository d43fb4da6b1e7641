"""Histories of machines, from which models are trained: runs from an overhaul until failure."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from aurum.readings.batch import Timestamps, Values

HOUR_US = 3_600_000_000
OPERATING_HOURS = "operating_hours"  # hours since overhaul: falls back when a machine was overhauled
FAULT = "fault"  # 1 from a failure until the repair

AXES = {
    OPERATING_HOURS: "h",
    "cycle": "cycles",
    "cycles": "cycles",
    "time_in_cycles": "cycles",
    "hours": "h",
    "run_hours": "h",
}
"""Sensors that count a machine's life, and their units. Without one, life is counted in hours of time."""
LABELS = frozenset({FAULT, "failure", "failed", "rul", "label", "target"})
"""Columns that tell the outcome, so that no model may see them."""


@dataclass(frozen=True, slots=True)
class Run:
    """A machine from an overhaul, or its first reading, until it failed, or until it is not known further.

    columns: sensor → value at each of the timestamps (µs), NaN where there is no reading. left: life left at the last
    reading where that is known though the run was not followed until then; then it counts as failed.
    """

    machine_id: str
    failed: bool
    timestamps: Timestamps
    columns: dict[str, Values]
    left: float = 0.0

    @property
    def machine(self) -> str:
        """The machine without the number of its run."""
        return self.machine_id.rpartition("/")[0] or self.machine_id


def axis_of(sensors: Iterable[str]) -> str | None:
    """The sensor that counts the life of a machine with these sensors, or None."""
    there = set(sensors)
    return next((name for name in AXES if name in there), None)


def split_runs(
    machine_id: str,
    timestamps: Timestamps,
    columns: dict[str, Values],
    *,
    ends_in_failure: bool,
    axis: str | None = None,
) -> list[Run]:
    """The runs in a machine's history: a new one begins where the life counter falls back, or a fault ends.

    A run that reaches a fault has failed and ends there. Where there is no fault signal the last run has failed if
    `ends_in_failure`. axis: the sensor that counts life; by default known by its name.
    """
    axis = axis or axis_of(columns)
    fault = columns.get(FAULT)
    faulty = np.nan_to_num(fault) >= 0.5 if fault is not None else np.zeros(len(timestamps), dtype=bool)
    begins = np.zeros(len(timestamps), dtype=bool)
    begins[:1] = True
    begins[1:] |= faulty[:-1] & ~faulty[1:]
    if axis is not None:
        life = columns[axis]
        known = np.flatnonzero(~np.isnan(life))
        falls = known[1:][np.diff(life[known]) < 0]
        begins[falls] = True
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
