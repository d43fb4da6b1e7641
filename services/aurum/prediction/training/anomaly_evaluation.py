"""Evaluates the anomaly alarms of a model on runs whose anomalies are labelled over time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aurum.prediction.model.features import LEAST_STEPS, TIME, features_of, steps_of
from aurum.prediction.model.model import Model
from aurum.prediction.training.columns import ages_of
from aurum.prediction.training.evaluation import EvaluationDataError
from aurum.prediction.training.healthy_time import episodes, is_anomalous
from aurum.prediction.training.table import Bools, Floats
from aurum.readings.history import Run

USUAL_THRESHOLD = 0.999  # for models of earlier versions, which have none
_HOUR_US = 3.6e9
_DAY_HOURS = 24.0


@dataclass(frozen=True, slots=True)
class AnomalyEvaluation:
    """The quality of the anomaly alarms. An alarm lasts from its first to its last step beyond the threshold.

    Attributes:
        threshold: The score beyond which a state is unusual.
        alarms: Number of alarms.
        true_alarms: Those that overlap a labelled anomaly.
        anomalies: Number of labelled anomalies.
        detected: Those during which an alarm was active.
        healthy_days: Days without labelled anomalies.
        delay_hours: Median hours from the beginning of a detected anomaly to its alarm; None if none was detected.
    """

    threshold: float
    alarms: int
    true_alarms: int
    anomalies: int
    detected: int
    healthy_days: float
    delay_hours: float | None

    @property
    def precision(self) -> float | None:
        """The share of alarms that overlap a labelled anomaly; None without alarms."""
        return self.true_alarms / self.alarms if self.alarms else None

    @property
    def false_alarms_a_day(self) -> float | None:
        """False alarms per day of healthy operation; None without such a day."""
        return (self.alarms - self.true_alarms) / self.healthy_days if self.healthy_days else None


@dataclass(frozen=True, slots=True)
class _Scored:
    """One run by steps: scores, labels, and hours since its beginning."""

    scores: Floats
    anomalous: Bools
    hours: Floats


def evaluate_anomalies(model: Model, runs: Sequence[Run], column: str, false_alarms: float) -> AnomalyEvaluation:
    """Evaluates the alarms of a model.

    Args:
        model: The model.
        runs: Runs with the sensors of the model and the column of labels.
        column: The column that is 1 while a machine is not healthy, and otherwise 0.
        false_alarms: Allowed false alarms for each machine and month, from which the threshold follows.

    Raises:
        EvaluationDataError: A run lacks the column of labels, or no run has enough steps.
    """
    threshold = model.anomaly.threshold(false_alarms) or USUAL_THRESHOLD
    scored = [each for run in runs if (each := _score(model, run, column)) is not None]
    if not scored:
        raise EvaluationDataError(
            f"no run has the {LEAST_STEPS} steps of {model.spec.step:g} {model.card.unit} that the model needs"
        )
    alarms = true_alarms = anomalies = 0
    healthy_hours = 0.0
    delays: list[float] = []
    for run in scored:
        raised = episodes(run.scores > threshold)
        labelled = episodes(run.anomalous, quiet=1)
        alarms += len(raised)
        true_alarms += sum(bool(run.anomalous[first : last + 1].any()) for first, last in raised)
        anomalies += len(labelled)
        for first, last in labelled:
            during = [max(begin, first) for begin, end in raised if begin <= last and end >= first]
            if during:
                delays.append(float(run.hours[min(during)] - run.hours[first]))
        healthy_hours += float(np.diff(run.hours)[~run.anomalous[1:]].sum())
    return AnomalyEvaluation(
        threshold,
        alarms,
        true_alarms,
        anomalies,
        len(delays),
        healthy_hours / _DAY_HOURS,
        float(np.median(delays)) if delays else None,
    )


def _score(model: Model, run: Run, column: str) -> _Scored | None:
    """Scores the steps of a run. Returns None if they are too few."""
    spec = model.spec
    labels = is_anomalous(run, column)
    if labels is None:
        raise EvaluationDataError(
            f"{run.machine_id} has no column {column!r}, which labels anomalies; its columns are "
            f"{', '.join(sorted(run.columns))}"
        )
    lacking = [name for name in spec.queried if name not in run.columns]
    if lacking:
        raise EvaluationDataError(f"{run.machine_id} lacks sensors of the model: {', '.join(lacking)}")
    steps = steps_of({name: (run.timestamps, run.columns[name]) for name in spec.queried}, spec)
    if len(steps.ages) < LEAST_STEPS:
        return None
    count = len(steps.ages)
    ages = run.timestamps / _HOUR_US if spec.axis == TIME else ages_of(run, spec.axis)
    known = ~np.isnan(ages)
    step = np.floor(ages[known] / spec.step).astype(np.int64) - (round(float(steps.ages[0]) / spec.step) - 1)
    inside = (step >= 0) & (step < count)
    anomalous = np.zeros(count, dtype=bool)
    np.logical_or.at(anomalous, step[inside], labels[known][inside])
    hours = np.full(count, np.nan)
    hours[step[inside]] = (run.timestamps[known][inside] - run.timestamps[0]) / _HOUR_US
    present = np.flatnonzero(~np.isnan(hours))
    hours = np.interp(np.arange(count), present, hours[present])
    return _Scored(model.anomaly(features_of(steps)), anomalous, hours)
