"""Healthy time: the parts of runs without labelled anomalies, their blocks, and the alarms in them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from aurum.prediction.training.table import Bools, Floats, Indices, Table
from aurum.readings.history import Run

ANOMALY = "anomaly"
"""The column that labels anomalies over time: 1 while a machine is not healthy."""
MONTH_HOURS = 730.5
QUIET_STEPS = 8
"""Steps in a row below the threshold after which an alarm has ended."""
_LEAST_RUNS = 3  # from which whole runs are held out
_FOLDS = 5
_HOUR_US = 3.6e9


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of time that are held out together.

    Attributes:
        fold: The fold of each row.
        near: near[fold], the rows that are too near a block of the fold to fit the model for it.
        description: How the blocks were formed.
    """

    fold: Indices
    near: list[Bools]
    description: str


def is_anomalous(run: Run, column: str = ANOMALY) -> Bools | None:
    """Returns which readings are labelled as anomalous; None if the run has no such column."""
    values = run.columns.get(column)
    return None if values is None else np.nan_to_num(values) >= 0.5


def healthy_parts(runs: Sequence[Run]) -> list[Run]:
    """Returns the parts of runs without labelled anomalies, as runs. Runs without labels are returned as they are."""
    parts: list[Run] = []
    for run in runs:
        anomalous = is_anomalous(run)
        if anomalous is None or not anomalous.any():
            parts.append(run)
            continue
        edges = np.flatnonzero(np.diff(anomalous.astype(np.int8))) + 1
        for number, part in enumerate(np.split(np.arange(len(anomalous)), edges), 1):
            if not anomalous[part[0]]:
                rows = slice(int(part[0]), int(part[-1]) + 1)
                columns = {name: values[rows] for name, values in run.columns.items()}
                name = f"{run.machine}/{run.machine_id.removeprefix(run.machine).strip('/') or 1}.{number}"
                parts.append(replace(run, machine_id=name, timestamps=run.timestamps[rows], columns=columns))
    return parts


def blocks_of(run: Indices, gap: int) -> Blocks:
    """Divides rows in chronological order into blocks that are held out in turn.

    From three runs on, whole runs are held out. Otherwise, each run is divided into five parts of equal length, and the
    rows within `gap` rows of a part are not used to fit the model for it, since their windows overlap.
    """
    numbers = np.unique(run)
    if len(numbers) >= _LEAST_RUNS:
        fold = np.searchsorted(numbers, run) % _FOLDS
        return Blocks(fold, [fold == each for each in range(_FOLDS)], f"whole runs, {len(numbers)} of them")
    fold = np.zeros(len(run), dtype=np.intp)
    for number in numbers:
        rows = np.flatnonzero(run == number)
        fold[rows] = np.arange(len(rows)) * _FOLDS // len(rows)
    near = []
    for each in range(_FOLDS):
        within = fold == each
        wide = np.convolve(within, np.ones(2 * gap + 1))[gap : gap + len(run)] > 0.5
        near.append(wide if (~wide).sum() >= len(run) // 4 else within)
    return Blocks(fold, near, f"five parts of each of {len(numbers)} runs")


def hours_per_row(runs: Sequence[Run], table: Table) -> Floats:
    """Returns the hours between two rows of each row's run."""
    hours = np.zeros(len(table))
    for number in np.unique(table.run):
        rows = table.run == number
        times = runs[number].timestamps
        hours[rows] = (int(times[-1]) - int(times[0])) / _HOUR_US / max(int(rows.sum()) - 1, 1)
    return hours


def episodes(beyond: Bools, quiet: int = QUIET_STEPS) -> list[tuple[int, int]]:
    """Returns first and last row of each alarm: rows beyond a threshold, with at most `quiet` other rows in between."""
    rows = np.flatnonzero(beyond)
    if not len(rows):
        return []
    breaks = np.flatnonzero(np.diff(rows) > quiet)
    starts = rows[np.concatenate([[0], breaks + 1])]
    ends = rows[np.concatenate([breaks, [len(rows) - 1]])]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
