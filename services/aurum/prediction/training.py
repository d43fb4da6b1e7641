"""Training a model for one machine type on run-to-failure histories. Splits are by machine, never by row."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from aurum import __version__
from aurum.prediction import card as parts
from aurum.prediction.anomaly import fit_anomaly
from aurum.prediction.calibration import (
    average_precision,
    calibrate_interval,
    calibrate_risk,
    expected_calibration_error,
)
from aurum.prediction.features import LEAST_STEPS, TIME, WINDOW, FeatureSpec, features_of, steps_of
from aurum.prediction.model import CARD, RISK, RUL, Model, assemble
from aurum.readings.history import AXES, HOUR_US, LABELS, Run, axis_of

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Progress = Callable[[float, str], None]

_FOLDS = 3
_MOST_ROWS = 20_000  # of a machine type; longer histories are thinned out evenly
_ROUNDS = 140
_LEAST_FAILURES = 6  # machines; fewer cannot be split
_CAP_OF_LIFE = 0.6  # RUL above this share of the median life is told as that: wear does not show yet
_HORIZON_OF_LIFE = 0.12
_HEALTHY_SHARE = 0.3  # of a life, from its beginning
_DRIFT_FEATURES = 8
_COVERAGE = 0.9
_DECILES = np.linspace(0, 1, 11)[1:-1]
_PARAMETERS = {
    "learning_rate": 0.06,
    "num_leaves": 24,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "max_bin": 127,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}


class TrainingDataError(ValueError):
    """The data cannot train a model; the message says what is missing and what would do."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """horizon and rul_cap: in units of the life axis; by default shares of the median life. threads: for the trees."""

    seed: int = 7
    horizon: float | None = None
    rul_cap: float | None = None
    threads: int = 2


@dataclass(frozen=True, slots=True)
class _Table:
    features: Floats
    rul: Floats  # uncapped
    share: Floats  # of the life that has passed
    group: npt.NDArray[np.intp]  # which run a row is of


def train(
    machine_type: str, runs: Sequence[Run], source: str, options: TrainingOptions, progress: Progress = lambda *_: None
) -> tuple[Model, dict[str, str]]:
    """A model, and its files' contents by name. Raises TrainingDataError."""
    failed = [run for run in runs if run.failed]
    if len(failed) < _LEAST_FAILURES:
        raise TrainingDataError(
            f"{machine_type}: {len(failed)} of {len(runs)} runs end in a failure, and at least {_LEAST_FAILURES} are "
            f"needed to train and check a model; add histories that do, with a fault column that is 1 at the failure"
        )
    spec, dropped = _specify(failed)
    progress(0.0, "features")
    table = _tabulate(failed, spec)
    lives = np.array([_life(run, spec) for run in failed])
    median_life = float(np.median(lives))
    cap = options.rul_cap or _round(_CAP_OF_LIFE * median_life)
    horizon = options.horizon or _round(_HORIZON_OF_LIFE * median_life)
    capped = np.minimum(table.rul, cap)
    soon: Bools = table.rul <= horizon
    if soon.all() or not soon.any():
        raise TrainingDataError(
            f"{machine_type}: with a horizon of {horizon:g} {spec.unit} {'all' if soon.all() else 'no'} rows are close "
            f"to a failure; choose another horizon"
        )
    folds = np.random.default_rng(options.seed).permutation(len(failed)) % _FOLDS
    fold_of_row = folds[table.group]
    rul_out, score_out = np.zeros(len(capped)), np.zeros(len(capped))
    for fold in range(_FOLDS):
        progress((fold + 0.1) / (_FOLDS + 1), "cross-validation")
        held_out = fold_of_row == fold
        rul_part = _fit(table.features[~held_out], capped[~held_out], "regression", options)
        risk_part = _fit(table.features[~held_out], soon[~held_out], "binary", options)
        rul_out[held_out] = np.clip(np.asarray(rul_part.predict(table.features[held_out])), 0, cap)
        score_out[held_out] = np.asarray(risk_part.predict(table.features[held_out], raw_score=True))
    progress(_FOLDS / (_FOLDS + 1), "final model")
    rul = _fit(table.features, capped, "regression", options)
    risk = _fit(table.features, soon, "binary", options)
    risk_calibration = calibrate_risk(score_out, soon)
    interval = calibrate_interval(rul_out, capped, _COVERAGE)
    usual = [index for index, name in enumerate(spec.names) if name.endswith((f".mean_{WINDOW}", f".std_{WINDOW}"))]
    anomaly = fit_anomaly(table.features[table.share <= _HEALTHY_SHARE], usual)
    files = {RISK: risk.model_to_string(), RUL: rul.model_to_string()}
    digest = _digest(failed)
    now = datetime.now(UTC)
    gain = risk.feature_importance("gain") / max(risk.feature_importance("gain").sum(), 1e-12)
    gain = gain + rul.feature_importance("gain") / max(rul.feature_importance("gain").sum(), 1e-12)
    strongest = np.argsort(-gain, kind="stable")
    card = parts.ModelCard(
        machine_type=machine_type,
        version=f"{now:%Y%m%d-%H%M%S}-{digest[:6]}",
        created=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        software={"aurum": __version__, "lightgbm": lgb.__version__, "numpy": np.__version__},
        data=parts.DataSummary(
            source=source,
            sha256=digest,
            machines=len({run.machine_id.split("/")[0] for run in runs}),
            runs=len(runs),
            failures=len(failed),
            rows=len(capped),
            dropped_columns=dropped,
        ),
        seed=options.seed,
        axis=spec.axis,
        unit=spec.unit,
        step=spec.step,
        sensors=list(spec.sensors),
        features=list(spec.names),
        importance={spec.names[index]: round(float(gain[index]) / 2, 5) for index in strongest[:20]},
        horizon=horizon,
        rul_cap=cap,
        metrics=_metrics(rul_out, score_out, capped, soon, fold_of_row),
        risk=parts.RiskPart(scores=list(risk_calibration.scores), probabilities=list(risk_calibration.probabilities)),
        interval=parts.IntervalPart(
            coverage=_COVERAGE, edges=list(interval.edges), lower=list(interval.lower), upper=list(interval.upper)
        ),
        anomaly=parts.AnomalyPart(
            columns=list(anomaly.columns),
            mean=anomaly.mean.tolist(),
            scale=anomaly.scale.tolist(),
            components=anomaly.components.tolist(),
            quantiles=anomaly.quantiles.tolist(),
        ),
        drift=_drift(table.features, spec, strongest),
        files={name: hashlib.sha256(content.encode()).hexdigest() for name, content in files.items()},
    )
    progress(1.0, "done")
    return assemble(card, risk, rul), {CARD: card.model_dump_json(indent=1), **files}


def save(root: Path, model: Model, files: dict[str, str]) -> Path:
    """Writes a model below `root` and makes it the active one of its type; another process never sees half of it."""
    folder = root / model.card.machine_type / model.card.version
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        half = Path(scratch) / model.card.version
        half.mkdir()
        for name, content in files.items():
            (half / name).write_text(content, encoding="utf-8")
        os.replace(half, folder)
    activate(root, model.card.machine_type, model.card.version)
    return folder


def activate(root: Path, machine_type: str, version: str) -> None:
    """Makes a version the active one of its type."""
    path = root / machine_type / "active.json"
    half = path.with_suffix(".writing")
    half.write_text(json.dumps({"version": version}) + "\n", encoding="utf-8")
    os.replace(half, path)


def _fit(features: Floats, target: npt.NDArray[np.generic], objective: str, options: TrainingOptions) -> lgb.Booster:
    data = lgb.Dataset(features, target, free_raw_data=True)
    parameters = {**_PARAMETERS, "objective": objective, "seed": options.seed, "num_threads": options.threads}
    return lgb.train(parameters, data, num_boost_round=_ROUNDS)


def _specify(runs: Sequence[Run]) -> tuple[FeatureSpec, dict[str, str]]:
    """Which columns take part, and why the others do not."""
    columns = set.intersection(*(set(run.columns) for run in runs))
    axis = axis_of(columns)
    dropped = dict.fromkeys(set.union(*(set(run.columns) for run in runs)) - columns, "not in every run")
    sensors = []
    for name in sorted(columns):
        values = np.concatenate([run.columns[name] for run in runs])
        if name == axis:
            continue
        if name.lower() in LABELS:
            dropped[name] = "tells the outcome"
        elif name in AXES:
            dropped[name] = "counts life"
        elif np.isnan(values).all() or np.nanmax(values) == np.nanmin(values):
            dropped[name] = "is constant"
        else:
            sensors.append(name)
    if not sensors:
        raise TrainingDataError("no sensor is left to learn from: all columns are constant, counters or labels")
    spacings = np.concatenate([np.diff(_ages(run, axis)) for run in runs])
    spacings = spacings[spacings > 0]
    if not len(spacings):
        raise TrainingDataError("all readings of each run are at one point of its life; at least 2 are needed")
    life = float(np.median([np.nanmax(_ages(run, axis)) for run in runs]))
    step = max(float(np.median(spacings)), _round(life / 1000))
    return FeatureSpec(axis or TIME, step, tuple(sensors)), dropped


def _ages(run: Run, axis: str | None) -> Floats:
    if axis is not None:
        return run.columns[axis]
    ages: Floats = (run.timestamps - run.timestamps[0]) / HOUR_US
    return ages


def _life(run: Run, spec: FeatureSpec) -> float:
    return float(np.nanmax(_ages(run, None if spec.axis == TIME else spec.axis)))


def _tabulate(runs: Sequence[Run], spec: FeatureSpec) -> _Table:
    features, ruls, shares, groups = [], [], [], []
    total = sum(len(run.timestamps) for run in runs)
    stride = max(1, -(-total // _MOST_ROWS))
    for index, run in enumerate(runs):
        columns = {name: (run.timestamps, run.columns[name]) for name in spec.queried}
        steps = steps_of(columns, spec)
        if len(steps.ages) < LEAST_STEPS:
            continue
        rows = np.arange(LEAST_STEPS - 1 + index % stride, len(steps.ages), stride)
        features.append(features_of(steps)[rows])
        ages = steps.ages[rows]
        end = steps.ages[-1]
        ruls.append(end - ages)
        shares.append((ages - steps.ages[0]) / max(end - steps.ages[0], spec.step))
        groups.append(np.full(len(rows), index))
    if not features:
        raise TrainingDataError(f"no run has {LEAST_STEPS} steps of {spec.step:g} {spec.unit}")
    return _Table(np.vstack(features), np.concatenate(ruls), np.concatenate(shares), np.concatenate(groups))


def _metrics(
    rul_out: Floats, score_out: Floats, capped: Floats, soon: Bools, fold_of_row: npt.NDArray[np.intp]
) -> parts.Metrics:
    """Calibrations are judged on folds that they were not made from."""
    probabilities = np.zeros(len(soon))
    inside = np.zeros(len(soon), dtype=bool)
    for fold in range(_FOLDS):
        test = fold_of_row == fold
        probabilities[test] = calibrate_risk(score_out[~test], soon[~test])(score_out[test])
        lower, upper = calibrate_interval(rul_out[~test], capped[~test], _COVERAGE)(rul_out[test])
        inside[test] = (capped[test] >= lower) & (capped[test] <= upper)
    return parts.Metrics(
        rul_rmse=round(float(np.sqrt(np.mean((rul_out - capped) ** 2))), 4),
        rul_mae=round(float(np.abs(rul_out - capped).mean()), 4),
        interval_coverage=round(float(inside.mean()), 4),
        risk_brier=round(float(np.mean((probabilities - soon) ** 2)), 5),
        risk_ece=round(expected_calibration_error(probabilities, soon), 5),
        risk_average_precision=round(average_precision(score_out, soon), 4),
        risk_base_rate=round(float(soon.mean()), 4),
    )


def _drift(features: Floats, spec: FeatureSpec, strongest: npt.NDArray[np.intp]) -> parts.DriftPart:
    names, edges, ranges = [], [], []
    for index in strongest:
        column = features[:, index]
        inner = (
            np.unique(np.nanquantile(column[~np.isnan(column)], _DECILES)) if not np.isnan(column).all() else column[:0]
        )
        if spec.names[index] != "age" and len(inner) == 9:
            names.append(spec.names[index])
            edges.append([float(edge) for edge in inner])
            ranges.append((float(np.nanmin(column)), float(np.nanmax(column))))
        if len(names) == _DRIFT_FEATURES:
            break
    return parts.DriftPart(features=names, edges=edges, ranges=ranges)


def _digest(runs: Sequence[Run]) -> str:
    """Identifies the data, whatever the order of its columns."""
    digest = hashlib.sha256()
    for run in runs:
        digest.update(run.machine_id.encode())
        digest.update(run.timestamps.astype("<i8").tobytes())
        for name in sorted(run.columns):
            digest.update(name.encode())
            digest.update(run.columns[name].astype("<f8").tobytes())
    return digest.hexdigest()


def _round(value: float) -> float:
    """To two significant digits, so that a card reads well."""
    if value <= 0:
        return value
    digits = 1 - int(np.floor(np.log10(value)))
    return float(round(value, digits))
