"""Derives from histories what to train: the kind of model, its columns, steps of life and operating regimes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aurum.prediction.model.card import ModelKind
from aurum.prediction.model.features import TIME, FeatureSpec
from aurum.prediction.training.columns import UnitChangeError, ages_of, check_units, select_columns
from aurum.prediction.training.regimes_fit import find_settings, fit_regimes
from aurum.prediction.training.table import Outcomes, Table, outcomes_of
from aurum.readings.batch import Values
from aurum.readings.history import AXES, Run, life_axis

LEAST_HEALTHY_STEPS = 50  # of machines that never failed
LEAST_FAILURES = 6  # machines or runs; fewer cannot be split for validation
FEW_FAILURES = 2  # lives, of which a distribution by age can be learned
_CAP_OF_LIFE = 0.6  # default cap of the RUL, as a share of the median life; above it wear does not show yet
_HORIZON_OF_LIFE = 0.12
_COPIES, _COPIES_OF_A_FOLD = 2, 3  # of the features in memory during training: at all times, and for each fold at once
_ERROR_OF_CHANGE = 0.001  # greatest rounding error, as a share of the median change from reading to reading
_LEAST_ROWS = 1000  # are used, however little memory there is


class TrainingDataError(ValueError):
    """The data is not suitable to train a model. The message says what is missing and what is needed."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to train a model.

    Attributes:
        seed: Seed of all random draws.
        horizon: Horizon of the risk, in units of the life axis; by default a share of the median life.
        rul_cap: Cap of the RUL, in units of the life axis; by default a share of the median life.
        life: The sensor that counts life; by default recognized by its name.
        threads: Folds that are trained side by side. The number does not change the result.
        rows: Greatest number of rows; None for as many as fit into `memory`. More rows are thinned out evenly.
        memory: Memory for the rows during training, in MB.
        rounds: Greatest number of trees of each boosted model. Fewer train faster and predict less accurately.
        feature_fraction: Share of the features that each tree may use.
        seeds: Models with different random draws, of which each model is the mean.
        search: Whether to choose by cross-validation how to train.
        budget: Seconds for that search, which then tries more; None for the usual trials without a limit.
        licence: Licence of the data, for the model card.
        categories: The words of sensors whose values stand for words, in the order of the values.
        one_hot: The features that trees split value by value instead of by order.
    """

    seed: int = 7
    horizon: float | None = None
    rul_cap: float | None = None
    life: str | None = None
    threads: int = 2
    rows: int | None = None
    memory: int = 2048
    rounds: int = 140
    feature_fraction: float = 0.5
    seeds: int = 1
    search: bool = True
    budget: float | None = None
    licence: str = "not declared"
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    one_hot: tuple[int, ...] = ()


def kind_of(machine_type: str, runs: Sequence[Run], readings: int) -> ModelKind:
    """Returns the kind of model that histories of so many readings allow. Raises TrainingDataError if they allow none.

    Of each run only the first and the last reading are needed.
    """
    if not runs or readings < LEAST_HEALTHY_STEPS:
        raise TrainingDataError(
            f"{machine_type}: the data has {readings} rows of {len(runs)} runs; an anomaly model needs at least "
            f"{LEAST_HEALTHY_STEPS} rows, and a model of failures at least {LEAST_FAILURES} runs that end in a failure"
        )
    failed = [run for run in runs if run.failed]
    if not failed:
        return "anomaly"
    machines = len({run.machine for run in failed})
    followed = [run for run in failed if len(run.timestamps) > 1 or run.left > 0]
    if len(failed) < LEAST_FAILURES and len(followed) >= FEW_FAILURES:
        return "rul"
    if len(failed) < LEAST_FAILURES:
        raise TrainingDataError(
            f"{machine_type}: {len(failed)} of {len(runs)} runs end in a failure, and at least {LEAST_FAILURES} are "
            f"needed to train and validate a model; add runs that end in a failure, with a column `fault` that is 1 at "
            f"the failure, or leave out the failed runs to train an anomaly model on healthy machines"
        )
    if len(followed) >= LEAST_FAILURES:
        return "rul"
    healthy = len(runs) - len(failed)
    if healthy < LEAST_FAILURES:
        raise TrainingDataError(
            f"{machine_type}: all {len(runs)} machines ({machines} of them once each) are in one class, failed; at "
            f"least {LEAST_FAILURES} that did not fail, or more than one reading of each life, are needed"
        )
    return "classification"


def derive_specification(runs: Sequence[Run], options: TrainingOptions) -> tuple[FeatureSpec, dict[str, str]]:
    """Determines the features of a model.

    Returns:
        The feature specification, and for each column that is not used the reason.

    Raises:
        TrainingDataError: No sensor is usable, or the data has another problem.
    """
    common = set.intersection(*(set(run.columns) for run in runs))
    if options.life is not None and options.life not in common:
        raise TrainingDataError(
            f"the life column {options.life!r} is not in every run; the columns are {', '.join(sorted(common))}"
        )
    axis = options.life or life_axis(common) or TIME
    selection = select_columns(runs, axis, options.categories)
    if not selection.sensors:
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(selection.dropped.items())[:5])
        raise TrainingDataError(f"no sensor is left to train on: {reasons or 'there are no columns'}")
    spacings = np.concatenate([np.diff(ages_of(run, axis)) for run in runs])
    spacings = spacings[spacings > 0]
    if len(spacings):
        life = float(np.median([np.nanmax(ages_of(run, axis)) for run in runs]))
        step = max(float(np.median(spacings)), _two_digits(life / 1000))
    elif all(len(run.timestamps) == 1 for run in runs):
        step = 1.0
    else:
        raise TrainingDataError("all readings of each run are at one point of its life; at least 2 are needed")
    settings = find_settings(runs, selection.sensors)
    regimes = fit_regimes(runs, settings, [name for name in selection.sensors if name not in settings])
    dropped = dict(selection.dropped)
    sensors = selection.sensors
    if regimes is not None:
        of_regimes = (
            f"is a setting: it defines the {len(regimes.centers)} operating regimes, relative to which sensors are "
            f"expressed"
        )
        dropped |= dict.fromkeys(settings, "is constant in each operating regime")
        dropped |= dict.fromkeys(regimes.columns, of_regimes)
        silent = [name for index, name in enumerate(regimes.sensors) if np.isinf(regimes.deviation[:, index]).all()]
        dropped |= dict.fromkeys(silent, "is constant in each operating regime")
        sensors = tuple(name for name in regimes.sensors if name not in silent)
        if not sensors:
            raise TrainingDataError("no sensor is left to train on: all are constant in each operating regime")
    else:
        try:
            check_units(runs, [name for name in sensors if name not in options.categories])
        except UnitChangeError as error:
            raise TrainingDataError(str(error)) from error
    single = all(_fits_single([run.columns[name] for run in runs]) for name in sensors)
    return FeatureSpec(axis, step, sensors, regimes, single=single), dropped


def training_outcomes(
    kind: ModelKind, runs: Sequence[Run], table: Table, spec: FeatureSpec, options: TrainingOptions
) -> Outcomes:
    """Returns the outcome of each row. Raises TrainingDataError if all rows are in one class."""
    if kind == "classification":
        return outcomes_of(table, kind, 0.0, 0.0)
    lives = [float(np.nanmax(ages_of(run, spec.axis))) - run.begun + run.left for run in runs if run.failed]
    median_life = float(np.median(lives))
    cap = options.rul_cap or _two_digits(_CAP_OF_LIFE * median_life)
    horizon = options.horizon or _two_digits(_HORIZON_OF_LIFE * median_life)
    outcomes = outcomes_of(table, kind, cap, horizon)
    soon = outcomes.soon
    if soon[outcomes.known].all() or not soon.any():
        raise TrainingDataError(
            f"with a horizon of {horizon:g} {unit_of(spec.axis)} {'no' if not soon.any() else 'all'} "
            f"rows are within the horizon of a failure; choose another horizon, or add longer histories"
        )
    return outcomes


def rows_in_memory(spec: FeatureSpec, options: TrainingOptions) -> int:
    """Returns the greatest number of rows to train on, by the options."""
    copies = _COPIES + _COPIES_OF_A_FOLD * options.threads
    row_bytes = 8 * len(spec.names) * copies
    fitting = max(_LEAST_ROWS, options.memory * 1_000_000 // row_bytes)
    return fitting if options.rows is None else min(options.rows, fitting)


def unit_of(axis: str) -> str:
    """Returns the unit of a life axis, such as `h` or `cycles`, whatever the capitals of its name."""
    name = axis.lower()
    usual = "h" if axis == TIME or "hour" in name else "cycles" if "cycle" in name else axis
    return AXES.get(name, usual)


def _fits_single(columns: Sequence[Values]) -> bool:
    """Returns whether single precision keeps what a sensor tells: its error is small against the usual change."""
    magnitude, changes = 0.0, []
    for column in columns:
        values = np.abs(column[~np.isnan(column)])
        magnitude = max(magnitude, float(values.max(initial=0.0)))
        change = np.abs(np.diff(column))
        changes.append(change[change > 0])  # without NaN
    change = np.concatenate(changes)
    error = magnitude * float(np.finfo(np.float32).eps) / 2
    return not len(change) or error <= _ERROR_OF_CHANGE * float(np.median(change))


def _two_digits(value: float) -> float:
    """Rounds to two significant digits, for a readable model card."""
    if value <= 0:
        return value
    digits = 1 - int(np.floor(np.log10(value)))
    return float(round(value, digits))
