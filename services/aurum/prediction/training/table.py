"""The table that a model is trained on: the features of runs at their steps, and the outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.card import ModelKind
from aurum.prediction.model.features import LEAST_STEPS, FeatureSpec, Steps, features_of, steps_of
from aurum.readings.history import Run

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Table:
    """Training rows, with one element of each array for each row.

    Attributes:
        features: features[row, feature].
        left: Life until the failure or, if the run did not fail, until the end of the known history.
        failed: Whether the row's run ended in a failure.
        share: The elapsed share of the run's life.
        age: The age; time since the beginning of the run if no sensor counts life.
        group: Index of the machine.
        run: Index of the run.
        steps: The steps of each run, for features that are added later.
        step: Index of the step within the run.
    """

    features: Floats
    left: Floats
    failed: Bools
    share: Floats
    group: Indices
    run: Indices
    age: Floats
    steps: Mapping[int, Steps] = field(default_factory=dict)
    step: Indices = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    def __len__(self) -> int:
        return len(self.left)


def tabulate(runs: Sequence[Run], spec: FeatureSpec, most_rows: int) -> Table:
    """Returns about `most_rows` rows at most, evenly over all runs, always including the last step of each run."""
    return tabulate_every(runs, spec, max(1, -(-sum(len(run.timestamps) for run in runs) // most_rows)))


def tabulate_every(runs: Sequence[Run], spec: FeatureSpec, stride: int) -> Table:
    """Returns a row for each `stride` steps of each run, always including its last step."""
    features, left, failed, shares, group, numbers, lived = [], [], [], [], [], [], []
    steps_of_runs: dict[int, Steps] = {}
    chosen = []
    machines = {name: index for index, name in enumerate(dict.fromkeys(run.machine for run in runs))}
    for number, run in enumerate(runs):
        steps = steps_of({name: (run.timestamps, run.columns[name]) for name in spec.queried}, spec)
        if len(steps.ages) < LEAST_STEPS:
            continue
        rows = np.arange(len(steps.ages) - 1, -1, -stride)[::-1]
        steps_of_runs[number] = steps
        chosen.append(rows)
        features.append(features_of(steps, rows))
        ages, end = steps.ages[rows], float(steps.ages[-1])
        left.append(end - ages + run.left)
        failed.append(np.full(len(rows), run.failed))
        shares.append((ages - steps.ages[0]) / max(end - float(steps.ages[0]) + run.left, spec.step))
        group.append(np.full(len(rows), machines[run.machine]))
        numbers.append(np.full(len(rows), number))
        lived.append(ages if steps.counted else ages - steps.ages[0])
    if not features:
        return _empty(spec)
    return Table(
        np.vstack(features),
        np.concatenate(left),
        np.concatenate(failed),
        np.concatenate(shares),
        np.concatenate(group),
        np.concatenate(numbers),
        np.concatenate(lived),
        steps=steps_of_runs,
        step=np.concatenate(chosen),
    )


def join_machines(tables: Sequence[Table], runs: Sequence[int], spec: FeatureSpec) -> Table:
    """Returns the table of several machines, as if their runs had been tabulated together.

    Args:
        tables: The table of each machine.
        runs: The number of runs of each machine.
        spec: The specification of the features.
    """
    if not tables:
        return _empty(spec)
    first_runs = np.cumsum([0, *runs])[:-1].tolist()
    group = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return Table(
        np.vstack([table.features for table in tables]),
        np.concatenate([table.left for table in tables]),
        np.concatenate([table.failed for table in tables]),
        np.concatenate([table.share for table in tables]),
        group,
        np.concatenate([table.run + first for table, first in zip(tables, first_runs, strict=True)]),
        np.concatenate([table.age for table in tables]),
        steps={
            number + first: steps
            for table, first in zip(tables, first_runs, strict=True)
            for number, steps in table.steps.items()
        },
        step=np.concatenate([table.step for table in tables]),
    )


def _empty(spec: FeatureSpec) -> Table:
    nothing, whole = np.empty(0), np.empty(0, dtype=np.intp)
    return Table(np.empty((0, len(spec.names))), nothing, nothing.astype(bool), nothing, whole, whole, nothing)


def thinned_rows(rows: int, most: int) -> Indices:
    """Returns the indices of about `most` of some rows at most, evenly and with the last one."""
    return np.arange(rows - 1, -1, -max(1, -(-rows // most)), dtype=np.intp)[::-1]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The training targets of each row.

    Attributes:
        left: RUL up to the cap, NaN if it is not known; None if the model is not trained on lives.
        soon: Whether the failure is within the horizon.
        known: Whether `soon` is known. If the run did not fail, it is known where the run went on beyond the horizon.
        cap: Cap of the RUL.
        horizon: Horizon of the risk.
    """

    left: Floats | None
    soon: Bools
    known: Bools
    cap: float
    horizon: float


def outcomes_of(table: Table, kind: ModelKind, cap: float, horizon: float) -> Outcomes:
    """Returns the training targets for a kind of model. Without lives, only rows at a failure itself are positive."""
    if kind != "rul":
        soon = table.failed & (table.left <= 0)
        return Outcomes(None, soon, np.ones(len(table), dtype=bool), 0.0, 0.0)
    left = np.where(table.failed | (table.left >= cap), np.minimum(table.left, cap), np.nan)
    soon = table.failed & (table.left <= horizon)
    return Outcomes(left, soon, table.failed | (table.left > horizon), cap, horizon)
