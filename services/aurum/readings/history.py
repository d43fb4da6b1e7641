"""Histories of machines, from which models are trained: runs from an overhaul until a failure."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Column, Timestamps, Values

Bools = npt.NDArray[np.bool_]

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
LIFE_NUMBERS = frozenset({"life_number", "run_number", "life_id", "run_id"})
"""Sensors that number the lives of a machine. A new life begins where one changes; models do not use them."""
LABELS = frozenset({FAULT, "failure", "failed", "rul", "label", "target", "anomaly", "changepoint"})
"""Columns that reveal the outcome and must be hidden from models."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop of a machine that someone recorded.

    Attributes:
        from_us: When it began, in µs since 1970.
        to_us: When the machine was back in service; None if it is not known.
        failed: Whether the machine failed. Its life ends then.
        renewed: Whether the machine was overhauled. A new life begins then.
        mode: How it failed; empty if it is not known.
    """

    from_us: int
    to_us: int | None = None
    failed: bool = False
    renewed: bool = False
    mode: str = ""


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
        mode: How the run failed, if a record names it.
        begun: The life counter at the beginning, if a record says that the run begins although the counter goes on.
    """

    machine_id: str
    failed: bool
    timestamps: Timestamps
    columns: dict[str, Values]
    left: float = 0.0
    mode: str = ""
    begun: float = 0.0

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


def align(columns: Mapping[str, Column]) -> tuple[Timestamps, dict[str, Values]]:
    """Returns the times at which any sensor has a reading, and each sensor's values at them, NaN without a reading."""
    timestamps = np.unique(np.concatenate([times for times, _ in columns.values()]))
    aligned = {}
    for sensor, (times, values) in columns.items():
        column = np.full(len(timestamps), np.nan)
        column[np.searchsorted(timestamps, times)] = values
        aligned[sensor] = column
    return timestamps, aligned


def split_runs(
    machine_id: str,
    timestamps: Timestamps,
    columns: dict[str, Values],
    *,
    ends_in_failure: bool,
    axis: str | None = None,
    stops: Sequence[Stop] = (),
    renewed: npt.NDArray[np.bool_] | None = None,
) -> list[Run]:
    """Splits a machine's history into runs.

    A new run begins where the life counter decreases, the number of the life changes, a fault ends, or a recorded stop
    ends that renewed the machine. A run ends at a fault or a recorded failure, and has then failed. If a failure has no
    recorded end, what follows belongs to no run until a fault, a repair or an overhaul ends, the counter decreases or
    the number changes; if none of these follows, the next run begins at once.

    Args:
        machine_id: The machine.
        timestamps: Times in µs since the epoch.
        columns: Sensor → value at each time.
        ends_in_failure: Whether the last run has failed, if nothing tells of failures.
        axis: The sensor that counts life; by default it is recognised by its name, whatever its capitals.
        stops: The recorded stops of the machine.
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
        begins[_rows_of_change(columns[axis], decreases=True)] = True
    for sensor, values in columns.items():
        if sensor.lower() in LIFE_NUMBERS:
            begins[_rows_of_change(values, decreases=False)] = True
    ordered = sorted(stops, key=lambda stop: stop.from_us)
    failures = {row: stop for stop in ordered if stop.failed and (row := _last_row(timestamps, stop.from_us)) >= 0}
    out = _add_recorded_begins(begins, timestamps, ordered, sorted(failures))
    starts = [*np.flatnonzero(begins).tolist(), len(timestamps)]
    unlabelled = fault is None and not any(stop.failed for stop in stops)
    runs: list[Run] = []
    for start, end in itertools.pairwise(starts):
        failing = np.flatnonzero(faulty[start:end])[:1] + start
        recorded = [row for row in failures if start <= row < end]
        ends = [*failing.tolist(), *recorded]
        failed = bool(ends) or (unlabelled and ends_in_failure and end == len(timestamps))
        stop = min(ends) + 1 if ends else end
        idle = np.flatnonzero(out[start:stop])
        if len(idle):  # an overhaul in progress
            stop, failed = start + int(idle[0]), False
        if stop == start:
            continue
        part = slice(start, stop)
        runs.append(
            Run(
                f"{machine_id}/{len(runs) + 1}",
                failed,
                timestamps[part],
                {sensor: values[part] for sensor, values in columns.items()},
                mode=failures[min(recorded)].mode if failed and recorded else "",
                begun=_begun(columns.get(axis or ""), start),
            )
        )
    return runs if len(runs) > 1 else [replace(run, machine_id=machine_id) for run in runs]


def _rows_of_change(values: Values, *, decreases: bool) -> npt.NDArray[np.intp]:
    """Returns the rows at which known values decrease, or at which they change."""
    present = np.flatnonzero(~np.isnan(values))
    steps = np.diff(values[present])
    return present[1:][steps < 0 if decreases else steps != 0]


def _last_row(timestamps: Timestamps, at_us: int) -> int:
    """Returns the last row up to a time; -1 if there is none."""
    return int(np.searchsorted(timestamps, at_us, "right")) - 1


def _add_recorded_begins(
    begins: Bools, timestamps: Timestamps, stops: Sequence[Stop], failures: Sequence[int]
) -> Bools:
    """Marks where runs begin by the recorded stops. Returns the rows at which an overhaul was in progress.

    Args:
        begins: The rows at which runs begin, which is changed.
        timestamps: Times in µs since the epoch.
        stops: The stops by time.
        failures: The rows at which the machine failed, sorted.
    """
    out = np.zeros(len(timestamps), dtype=bool)
    open_failure = False
    for stop in stops:
        end = int(np.searchsorted(timestamps, stop.from_us if stop.to_us is None else stop.to_us, "left"))
        if stop.renewed:
            out[int(np.searchsorted(timestamps, stop.from_us, "left")) : end] = True
        if end < len(timestamps) and (stop.renewed or (stop.failed and stop.to_us is not None) or open_failure):
            begins[end] = begins[end] or not (stop.failed and stop.to_us is None)
        open_failure = stop.failed and stop.to_us is None
    for row, following in itertools.pairwise([*failures, len(timestamps) - 1]):
        if row + 1 < len(timestamps) and not begins[row + 1 : following + 1].any():
            begins[row + 1] = True
    return out


def _begun(life: Values | None, start: int) -> float:
    """Returns the life counter at the beginning of a run, if it goes on from the run before; 0 otherwise."""
    if life is None or start == 0:
        return 0.0
    before, after = life[:start], life[start:]
    before, after = before[~np.isnan(before)], after[~np.isnan(after)]
    return float(after[0]) if len(before) and len(after) and after[0] >= before[-1] else 0.0
