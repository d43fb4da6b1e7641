"""Trains a model for one machine type. Validation splits are by machine and by time, never by row."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from aurum import __version__
from aurum.prediction.model import card as parts
from aurum.prediction.model.age_blend import AgeBlend
from aurum.prediction.model.features import MIDDLE, SHORT, TIME, FeatureSpec
from aurum.prediction.model.model import CARD, FOREST, Model, assemble
from aurum.prediction.model.regimes import Regimes
from aurum.prediction.model.wear_index import WearIndex
from aurum.prediction.training.anomaly_fit import AnomalyFit, fit_anomaly
from aurum.prediction.training.categories import one_hot_features
from aurum.prediction.training.causes_fit import fit_causes
from aurum.prediction.training.digests import digest_of, digest_of_run
from aurum.prediction.training.healthy_time import healthy_parts, hours_per_row
from aurum.prediction.training.lifetime_fit import fit_lifetime
from aurum.prediction.training.skill import median_life
from aurum.prediction.training.specification import (
    FEW_FAILURES,
    LEAST_FAILURES,
    LEAST_HEALTHY_STEPS,
    TrainingDataError,
    TrainingOptions,
    derive_specification,
    kind_of,
    rows_in_memory,
    training_outcomes,
    unit_of,
)
from aurum.prediction.training.supervised import Progress, evaluate_later_lives, fit_outcomes
from aurum.prediction.training.table import Floats, Table, tabulate
from aurum.prediction.training.task import Task
from aurum.prediction.training.wear_index_fit import design
from aurum.readings.history import Run

__all__ = ["Progress", "TrainingData", "TrainingDataError", "TrainingOptions", "train", "train_on"]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a model is trained on, with its features.

    Attributes:
        kind: The kind of model.
        runs: The histories. Their first and last readings, with the columns that may count life, are enough.
        spec: How the features are computed.
        dropped: For each column that is not used the reason.
        table: The features of the runs.
        sha256: The digest of the histories, see `digest_of`.
    """

    kind: parts.ModelKind
    runs: Sequence[Run]
    spec: FeatureSpec
    dropped: dict[str, str]
    table: Table
    sha256: str


_HEALTHY_SHARE = 0.3  # of a life from its beginning, which counts as healthy
_DRIFT_FEATURES = 8
_DECILES = np.linspace(0, 1, 11)[1:-1]


def train(
    machine_type: str, runs: Sequence[Run], source: str, options: TrainingOptions, progress: Progress = lambda *_: None
) -> tuple[Model, dict[str, str]]:
    """Trains a model on histories.

    Args:
        machine_type: The machine type.
        runs: The histories.
        source: Where the histories come from, for the model card.
        options: How to train.
        progress: Called with the share that is done and the name of the present stage.

    Returns:
        The model, and the contents of its files by name.

    Raises:
        TrainingDataError: The histories are not suitable.
    """
    runs = [run for run in runs if len(run.timestamps)]
    kind = kind_of(machine_type, runs, sum(len(run.timestamps) for run in runs))
    if kind == "anomaly":
        runs = healthy_parts(runs)
    progress(0.0, "columns")
    spec, dropped = derive_specification(runs, options)
    progress(0.02, "features")
    table = tabulate(runs, spec, rows_in_memory(spec, options))
    data = TrainingData(kind, runs, spec, dropped, table, digest_of([digest_of_run(run) for run in runs]))
    return train_on(machine_type, data, source, options, progress)


def train_on(
    machine_type: str, data: TrainingData, source: str, options: TrainingOptions, progress: Progress = lambda *_: None
) -> tuple[Model, dict[str, str]]:
    """Trains a model on histories whose features are known. Arguments, result and errors are those of `train`."""
    kind, runs, spec, table = data.kind, data.runs, data.spec, data.table
    progress(0.1, f"features of {len(table)} rows")
    fitted = None
    later = None
    evaluation = lifetime = None
    soon = np.zeros(len(table), dtype=bool)
    cap = horizon = 0.0
    if kind == "anomaly":
        _require_healthy_steps(machine_type, spec, len(table))
        healthy = np.ones(len(table), dtype=bool)
    else:
        target = training_outcomes(kind, runs, table, spec, options)
        cap, horizon, soon = target.cap, target.horizon, target.soon
        failures = sum(run.failed for run in runs)
        if kind == "rul" and failures < LEAST_FAILURES:
            _require_life_counter(machine_type, runs, spec, failures)
            lifetime, evaluation = fit_lifetime(runs, table, target, spec.axis, options.seed)
        else:
            options = replace(options, one_hot=one_hot_features(table, target, spec.names, options))
            task = Task(runs, table, target, spec)
            fitted = fit_outcomes(task, options, progress)
            evaluation = fitted.evaluation
            progress(0.85, "later lives")
            later = evaluate_later_lives(task, fitted)
        healthy = table.share <= _HEALTHY_SHARE if kind == "rul" else ~target.soon
    progress(0.9, "anomaly")
    usual = _usual_features(spec, options)
    usual_means = [index for index in usual if spec.names[index].endswith(f".mean_{SHORT}")]
    hours = hours_per_row(runs, table)
    anomaly = fit_anomaly(table.features[healthy], usual, table.run[healthy], hours[healthy], options.seed)
    files = {**(fitted.files if fitted else {}), FOREST: anomaly.forest}
    gain = fitted.gain if fitted else np.array([float(index in usual) for index in range(len(spec.names))])
    features = table.features
    if fitted is not None:
        spec = fitted.spec
        features = design(table, spec.derived)
    now = datetime.now(UTC)
    strongest = np.argsort(-gain, kind="stable")
    card = parts.ModelCard(
        kind=kind,
        machine_type=machine_type,
        version=f"{now:%Y%m%d-%H%M%S}.{now.microsecond // 1000:03}-{data.sha256[:6]}",
        created=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        software={"aurum": __version__, "lightgbm": lgb.__version__, "numpy": np.__version__},
        data=parts.DataSummary(
            source=source,
            sha256=data.sha256,
            machines=len({run.machine for run in runs}),
            runs=len(runs),
            failures=sum(run.failed for run in runs),
            rows=len(table),
            until_us=max(int(run.timestamps[-1]) for run in runs),
            licence=options.licence,
            dropped_columns=data.dropped,
        ),
        seed=options.seed,
        axis=spec.axis,
        unit=unit_of(spec.axis),
        step=spec.step,
        sensors=list(spec.sensors),
        features=list(spec.names),
        importance={spec.names[index]: round(float(gain[index]), 5) for index in strongest[:20]},
        horizon=horizon,
        rul_cap=cap,
        monotone=_monotone_names(spec, fitted.monotone if fitted else ()),
        regimes=_regime_part(spec.regimes),
        evaluation=evaluation,
        later_lives=later,
        median_life=median_life(table, table.failed) if fitted is not None and kind == "rul" else None,
        wear_index=_wear_index_part(spec.derived.index),
        deviations=spec.derived.deviations,
        single=spec.single,
        age_blend=_age_blend_part(fitted.age_blend if fitted else None),
        search=fitted and fitted.search,
        risk=fitted and fitted.risk,
        interval=fitted and fitted.interval,
        anomaly=_anomaly_part(anomaly),
        lifetime=lifetime,
        causes=fit_causes(runs, table, soon, healthy, usual_means, options.seed) if soon.any() else None,
        drift=_drift(features, spec, strongest),
        categories=_categories(spec, options),
        files={name: hashlib.sha256(content.encode()).hexdigest() for name, content in files.items()},
    )
    progress(1.0, "done")
    return assemble(card, files), {CARD: card.model_dump_json(indent=1), **files}


def _require_healthy_steps(machine_type: str, spec: FeatureSpec, steps: int) -> None:
    """Raises TrainingDataError if there is too little healthy time for an anomaly model."""
    if steps < LEAST_HEALTHY_STEPS:
        raise TrainingDataError(
            f"{machine_type}: {steps} steps of {spec.step:g} {unit_of(spec.axis)} of healthy machines; an anomaly "
            f"model needs at least {LEAST_HEALTHY_STEPS}; add longer histories"
        )


def _require_life_counter(machine_type: str, runs: Sequence[Run], spec: FeatureSpec, failures: int) -> None:
    """Raises TrainingDataError if the few failures cannot be related to the age since the last overhaul."""
    if spec.axis == TIME or any(run.begun for run in runs):
        raise TrainingDataError(
            f"{machine_type}: {failures} of {len(runs)} runs end in a failure, and at least {LEAST_FAILURES} are "
            f"needed without a column that counts life from each overhaul, such as operating_hours; with one, "
            f"{FEW_FAILURES} are"
        )


def _usual_features(spec: FeatureSpec, options: TrainingOptions) -> list[int]:
    """Returns the features by which anomalies are found: mean and spread of sensors, without categories if possible."""
    usual = [index for index, name in enumerate(spec.names) if name.endswith((f".mean_{SHORT}", f".std_{MIDDLE}"))]
    return [index for index in usual if spec.names[index].rpartition(".")[0] not in options.categories] or usual


def _drift(features: Floats, spec: FeatureSpec, strongest: npt.NDArray[np.intp]) -> parts.DriftPart:
    """Returns the training distribution of the strongest features, for the detection of drift."""
    names, edges, ranges = [], [], []
    for index in strongest:
        column = features[:, index]
        column = column[~np.isnan(column)]
        inner = np.unique(np.quantile(column, _DECILES)) if len(column) else column
        if spec.names[index] != "age" and len(inner) == len(_DECILES):
            names.append(spec.names[index])
            edges.append([float(edge) for edge in inner])
            ranges.append((float(column.min()), float(column.max())))
        if len(names) == _DRIFT_FEATURES:
            break
    return parts.DriftPart(features=names, edges=edges, ranges=ranges)


def _monotone_names(spec: FeatureSpec, monotone: Sequence[int]) -> list[str]:
    return [name if sign > 0 else f"-{name}" for name, sign in zip(spec.names, monotone, strict=False) if sign]


def _categories(spec: FeatureSpec, options: TrainingOptions) -> dict[str, parts.CategoryPart]:
    one_hot = {spec.names[index].rpartition(".")[0] for index in options.one_hot}
    return {
        name: parts.CategoryPart(words=list(words), encoding="one-hot" if name in one_hot else "ordered")
        for name, words in options.categories.items()
        if name in spec.queried
    }


def _regime_part(regimes: Regimes | None) -> parts.RegimePart | None:
    if regimes is None:
        return None
    deviation = [[None if np.isinf(each) else float(each) for each in row] for row in regimes.deviation]
    return parts.RegimePart(
        columns=list(regimes.columns),
        centers=regimes.centers.tolist(),
        scale=regimes.scale.tolist(),
        sensors=list(regimes.sensors),
        mean=regimes.mean.tolist(),
        deviation=deviation,
    )


def _wear_index_part(index: WearIndex | None) -> parts.WearIndexPart | None:
    if index is None:
        return None
    return parts.WearIndexPart(mean=index.mean.tolist(), weight=index.weight.tolist(), share=index.share.tolist())


def _age_blend_part(blend: AgeBlend | None) -> parts.AgeBlendPart | None:
    if blend is None:
        return None
    return parts.AgeBlendPart(weight=blend.weight, ages=blend.ages.tolist(), left=blend.left.tolist())


def _anomaly_part(fitted: AnomalyFit) -> parts.AnomalyPart:
    anomaly, scores = fitted.model, fitted.model.held_out
    return parts.AnomalyPart(
        columns=anomaly.columns.tolist(),
        mean=anomaly.mean.tolist(),
        scale=anomaly.scale.tolist(),
        components=anomaly.components.tolist(),
        distances=anomaly.distances.tolist(),
        paths=anomaly.paths.tolist(),
        greater=anomaly.greater.tolist(),
        held_out=scores
        and parts.HeldOutScoresPart(
            variances=scores.variances.tolist(),
            shares=scores.shares.tolist(),
            quantiles=scores.quantiles.tolist(),
            tails=scores.tails.tolist(),
            surprises=scores.surprises.tolist(),
            alarm_surprises=scores.alarm_surprises.tolist(),
            alarms_a_month=scores.alarms_a_month.tolist(),
            months=round(fitted.months, 3),
            blocks=fitted.blocks,
        ),
    )
