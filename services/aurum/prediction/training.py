"""Training a model for one machine type. Splits are by machine and by time, never by row."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from aurum import __version__
from aurum.prediction import card as parts
from aurum.prediction.anomaly import AnomalyModel, fit_anomaly
from aurum.prediction.calibrating import calibrate_interval, calibrate_risk
from aurum.prediction.calibration import COVERAGE, LEVELS
from aurum.prediction.columns import UnitChangeError, ages_of, check_units, select_columns
from aurum.prediction.features import MIDDLE, SHORT, TIME, FeatureSpec
from aurum.prediction.fitting import fit_trees, raw_scores
from aurum.prediction.model import CARD, FOREST, RISK, RUL, Model, assemble
from aurum.prediction.regimes import Regimes, find_settings, fit_regimes
from aurum.prediction.table import Bools, Floats, Indices, Outcomes, Table, outcomes_of, tabulate
from aurum.prediction.validation import FOLDS, HeldOut, evaluate_crosswise, folds_of, later_lives
from aurum.readings.history import AXES, Run, axis_of

Progress = Callable[[float, str], None]

_LEAST_FAILURES = 6  # machines or runs; fewer cannot be split
_LEAST_HEALTHY_STEPS = 50  # of machines that never failed
_CAP_OF_LIFE = 0.6  # RUL above this share of the median life is told as that: wear does not show yet
_HORIZON_OF_LIFE = 0.12
_HEALTHY_SHARE = 0.3  # of a life, from its beginning
_DRIFT_FEATURES = 8
_DECILES = np.linspace(0, 1, 11)[1:-1]
_SAME_WAY = 0.95  # share of lives in which a feature goes the same way, for wear to be monotone in it
_MOST_LOST = 1.02  # relative error that monotone constraints may cost on the first fold


class TrainingDataError(ValueError):
    """The data cannot train a model; the message says what is missing and what would do."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """horizon and rul_cap: in units of the life axis; by default shares of the median life. life: the sensor that
    counts life; by default known by its name. threads: for the trees. rows: about how many are fitted at most; longer
    histories are thinned out evenly. licence: of the data, for the card."""

    seed: int = 7
    horizon: float | None = None
    rul_cap: float | None = None
    life: str | None = None
    threads: int = 2
    rows: int = 20_000
    licence: str = "not declared"


@dataclass(frozen=True, slots=True)
class _Fit:
    """What came of fitting to a table with outcomes."""

    files: dict[str, str]
    risk: parts.RiskPart
    interval: parts.IntervalPart | None
    evaluation: parts.Evaluation
    gain: Floats
    monotone: tuple[int, ...]


def train(
    machine_type: str, runs: Sequence[Run], source: str, options: TrainingOptions, progress: Progress = lambda *_: None
) -> tuple[Model, dict[str, str]]:
    """A model, and its files' contents by name. Raises TrainingDataError."""
    runs = [run for run in runs if len(run.timestamps)]
    kind = _kind(machine_type, runs, options)
    progress(0.0, "columns")
    spec, dropped = _specify(runs, options)
    progress(0.05, "features")
    table = tabulate(runs, spec, options.rows)
    fitted = None
    later = None
    cap = horizon = 0.0
    if kind == "anomaly":
        if len(table) < _LEAST_HEALTHY_STEPS:
            raise TrainingDataError(
                f"{machine_type}: {len(table)} steps of {spec.step:g} {_unit(spec.axis)} of healthy machines, and at "
                f"least {_LEAST_HEALTHY_STEPS} are needed to know what is usual; add longer histories"
            )
        healthy = np.ones(len(table), dtype=bool)
    else:
        target = _outcomes(kind, runs, table, spec, options)
        cap, horizon = target.cap, target.horizon
        fitted = _fit(table, target, spec, options, progress)
        later = _judge_later_lives(runs, table, target, fitted.monotone, options)
        healthy = table.share <= _HEALTHY_SHARE if kind == "rul" else ~target.soon
    progress(0.9, "anomaly")
    usual = [index for index, name in enumerate(spec.names) if name.endswith((f".mean_{SHORT}", f".std_{MIDDLE}"))]
    anomaly, forest = fit_anomaly(table.features[healthy], usual, options.seed)
    files = {**(fitted.files if fitted else {}), FOREST: forest}
    gain = fitted.gain if fitted else np.array([float(index in usual) for index in range(len(spec.names))])
    digest = _digest(runs)
    now = datetime.now(UTC)
    strongest = np.argsort(-gain, kind="stable")
    card = parts.ModelCard(
        kind=kind,
        machine_type=machine_type,
        version=f"{now:%Y%m%d-%H%M%S}-{digest[:6]}",
        created=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        software={"aurum": __version__, "lightgbm": lgb.__version__, "numpy": np.__version__},
        data=parts.DataSummary(
            source=source,
            sha256=digest,
            machines=len({run.machine for run in runs}),
            runs=len(runs),
            failures=sum(run.failed for run in runs),
            rows=len(table),
            licence=options.licence,
            dropped_columns=dropped,
        ),
        seed=options.seed,
        axis=spec.axis,
        unit=_unit(spec.axis),
        step=spec.step,
        sensors=list(spec.sensors),
        features=list(spec.names),
        importance={spec.names[index]: round(float(gain[index]), 5) for index in strongest[:20]},
        horizon=horizon,
        rul_cap=cap,
        monotone=_monotone_names(spec, fitted.monotone if fitted else ()),
        regimes=_regime_part(spec.regimes),
        evaluation=fitted and fitted.evaluation,
        later_lives=later,
        risk=fitted and fitted.risk,
        interval=fitted and fitted.interval,
        anomaly=_anomaly_part(anomaly),
        drift=_drift(table.features, spec, strongest),
        files={name: hashlib.sha256(content.encode()).hexdigest() for name, content in files.items()},
    )
    progress(1.0, "done")
    return assemble(card, files), {CARD: card.model_dump_json(indent=1), **files}


def _kind(machine_type: str, runs: Sequence[Run], options: TrainingOptions) -> parts.Kind:
    """What the histories can teach. Raises TrainingDataError if nothing."""
    readings = sum(len(run.timestamps) for run in runs)
    if not runs or readings < _LEAST_HEALTHY_STEPS:
        raise TrainingDataError(
            f"{machine_type}: the data has {readings} rows of {len(runs)} runs; a model of healthy machines needs at "
            f"least {_LEAST_HEALTHY_STEPS} rows, and one of failures at least {_LEAST_FAILURES} runs until a failure"
        )
    failed = [run for run in runs if run.failed]
    if not failed:
        return "anomaly"
    machines = len({run.machine for run in failed})
    if len(failed) < _LEAST_FAILURES:
        raise TrainingDataError(
            f"{machine_type}: {len(failed)} of {len(runs)} runs end in a failure, and at least {_LEAST_FAILURES} are "
            f"needed to train and check a model; add histories that do, with a column `fault` that is 1 at the "
            f"failure, or leave out those that fail to learn what is usual of healthy machines alone"
        )
    followed = [run for run in failed if len(run.timestamps) > 1 or run.left > 0]
    if len(followed) >= _LEAST_FAILURES:
        return "rul"
    healthy = len(runs) - len(failed)
    if healthy < _LEAST_FAILURES:
        raise TrainingDataError(
            f"{machine_type}: all {len(runs)} machines ({machines} of them once each) are in one class, failed; at "
            f"least {_LEAST_FAILURES} that did not fail, or more than one reading of each life, are needed"
        )
    return "classification"


def _specify(runs: Sequence[Run], options: TrainingOptions) -> tuple[FeatureSpec, dict[str, str]]:
    """Which columns take part and how steps are counted, and why the other columns do not."""
    common = set.intersection(*(set(run.columns) for run in runs))
    if options.life is not None and options.life not in common:
        raise TrainingDataError(f"no column {options.life!r} counts life: there are {', '.join(sorted(common))}")
    axis = options.life or axis_of(common) or TIME
    selection = select_columns(runs, axis)
    if not selection.sensors:
        reasons = "; ".join(f"{name} {reason}" for name, reason in list(selection.dropped.items())[:5])
        raise TrainingDataError(f"no sensor is left to learn from: {reasons or 'there are no columns'}")
    spacings = np.concatenate([np.diff(ages_of(run, axis)) for run in runs])
    spacings = spacings[spacings > 0]
    if len(spacings):
        life = float(np.median([np.nanmax(ages_of(run, axis)) for run in runs]))
        step = max(float(np.median(spacings)), _round(life / 1000))
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
            f"is a setting: it tells the {len(regimes.centers)} operating regimes, to which sensors are related"
        )
        dropped |= dict.fromkeys(settings, "is constant in each operating regime")
        dropped |= dict.fromkeys(regimes.columns, of_regimes)
        silent = [name for index, name in enumerate(regimes.sensors) if np.isinf(regimes.deviation[:, index]).all()]
        dropped |= dict.fromkeys(silent, "is constant in each operating regime")
        sensors = tuple(name for name in regimes.sensors if name not in silent)
        if not sensors:
            raise TrainingDataError("no sensor is left to learn from: all are constant in each operating regime")
    else:
        try:
            check_units(runs, sensors)
        except UnitChangeError as error:
            raise TrainingDataError(str(error)) from error
    return FeatureSpec(axis, step, sensors, regimes), dropped


def _outcomes(
    kind: parts.Kind, runs: Sequence[Run], table: Table, spec: FeatureSpec, options: TrainingOptions
) -> Outcomes:
    if kind == "classification":
        return outcomes_of(table, kind, 0.0, 0.0)
    lives = [float(np.nanmax(ages_of(run, spec.axis))) + run.left for run in runs if run.failed]
    median_life = float(np.median(lives))
    cap = options.rul_cap or _round(_CAP_OF_LIFE * median_life)
    horizon = options.horizon or _round(_HORIZON_OF_LIFE * median_life)
    outcomes = outcomes_of(table, kind, cap, horizon)
    soon = outcomes.soon
    if soon[outcomes.known].all() or not soon.any():
        raise TrainingDataError(
            f"with a horizon of {horizon:g} {_unit(spec.axis)} {'no' if not soon.any() else 'all'} "
            f"rows are close to a failure, so there is one class only; choose another horizon, or add longer histories"
        )
    return outcomes


def _fit(table: Table, target: Outcomes, spec: FeatureSpec, options: TrainingOptions, progress: Progress) -> _Fit:
    group = table.group if len(np.unique(table.group)) >= FOLDS else table.run
    by = "machine" if group is table.group else "run, since there are fewer than five machines"
    fold = folds_of(group, options.seed)
    monotone = _monotone(table, target, spec, fold, options)
    score = np.zeros(len(table))
    rul = np.zeros(len(table))
    for each in range(int(fold.max()) + 1):
        progress(0.15 + 0.6 * each / (fold.max() + 1), "cross-validation")
        test = fold == each
        risk_part, rul_part = _fit_both(table, target, ~test, monotone, options)
        score[test] = raw_scores(risk_part, table.features[test])
        if rul_part is not None:
            rul[test] = np.clip(raw_scores(rul_part, table.features[test]), 0, target.cap)
    progress(0.8, "final model")
    everything = np.ones(len(table), dtype=bool)
    risk, life = _fit_both(table, target, everything, monotone, options)
    held_out = _held_out(table, target, score, rul, rows=target.known, group=group)
    protocol = f"{fold.max() + 1}-fold cross-validation by {by}; each fold's calibration is made from the others"
    calibration = calibrate_risk(held_out.score, held_out.soon)
    interval = None
    files = {RISK: risk.model_to_string()}
    gain = _gain(risk)
    if life is not None and target.left is not None:
        known = ~np.isnan(target.left)
        found = calibrate_interval(rul[known], target.left[known], target.cap)
        interval = parts.IntervalPart(
            coverage=COVERAGE,
            levels=LEVELS.round(4).tolist(),
            edges=found.edges.tolist(),
            residuals=found.residuals.tolist(),
        )
        files[RUL] = life.model_to_string()
        gain = (gain + _gain(life)) / 2
    return _Fit(
        files,
        parts.RiskPart(scores=calibration.scores.tolist(), probabilities=calibration.probabilities.tolist()),
        interval,
        evaluate_crosswise(held_out, fold[target.known], protocol, target.cap),
        gain,
        monotone,
    )


def _held_out(table: Table, target: Outcomes, score: Floats, rul: Floats, *, rows: Bools, group: Indices) -> HeldOut:
    lives = target.left is not None
    return HeldOut(
        score[rows],
        target.soon[rows],
        rul[rows] if lives else None,
        target.left[rows] if target.left is not None else None,
        group[rows],
        table.run[rows],
        table.failed[rows],
    )


def _fit_both(
    table: Table, target: Outcomes, rows: Bools, monotone: Sequence[int], options: TrainingOptions
) -> tuple[lgb.Booster, lgb.Booster | None]:
    """Of risk, and of RUL if there are lives."""
    seed, threads = options.seed, options.threads
    of_risk = rows & target.known
    risk = fit_trees(
        table.features[of_risk],
        target.soon[of_risk],
        "binary",
        seed=seed,
        threads=threads,
        monotone=[-each for each in monotone],
    )
    if target.left is None:
        return risk, None
    of_life = rows & ~np.isnan(target.left)
    features, left = table.features[of_life], target.left[of_life]
    return risk, fit_trees(features, left, "regression", seed=seed, threads=threads, monotone=monotone)


def _monotone(
    table: Table, target: Outcomes, spec: FeatureSpec, fold: Indices, options: TrainingOptions
) -> tuple[int, ...]:
    """By feature: 1 where the life left may only rise with it, -1 where it may only fall, else 0.

    Means that go the same way in nearly all lives show wear, which does not heal. They are constrained unless that
    makes predictions worse.
    """
    if target.left is None:
        return ()
    signs = np.zeros(len(spec.names), dtype=int)
    lives = [np.flatnonzero(table.run == run) for run in np.unique(table.run[table.failed])]
    lives = [rows[len(rows) // 2 :] for rows in lives if len(rows) >= 8]
    for index, name in enumerate(spec.names):
        if not name.endswith((f".mean_{SHORT}", f".mean_{MIDDLE}")) or len(lives) < _LEAST_FAILURES:
            continue
        ways = [_way(table.features[rows, index], table.left[rows]) for rows in lives]
        agreed = float(np.mean(ways))
        if abs(agreed) >= 2 * _SAME_WAY - 1:
            signs[index] = int(np.sign(agreed))
    if not signs.any():
        return ()
    test = fold == 0
    known = ~np.isnan(target.left)
    errors = []
    for constraints in ((), signs.tolist()):
        rows = known & ~test
        booster = fit_trees(
            table.features[rows],
            target.left[rows],
            "regression",
            seed=options.seed,
            threads=options.threads,
            monotone=constraints,
        )
        told = np.clip(raw_scores(booster, table.features[test & known]), 0, target.cap)
        errors.append(float(np.sqrt(np.mean((told - target.left[test & known]) ** 2))))
    return tuple(signs.tolist()) if errors[1] <= _MOST_LOST * errors[0] else ()


def _way(values: Floats, left: Floats) -> float:
    """1 if the values rise with the life left, -1 if they fall, 0 if they do neither."""
    there = ~np.isnan(values)
    if there.sum() < 8:
        return 0.0
    values, left = values[there], left[there]
    return float(np.sign(((values - values.mean()) * (left - left.mean())).sum()))


def _judge_later_lives(
    runs: Sequence[Run], table: Table, target: Outcomes, monotone: Sequence[int], options: TrainingOptions
) -> parts.Evaluation | None:
    """Fits to lives that ended early, and judges by those that began later; half of the latter calibrate, crosswise."""
    split = later_lives([int(run.timestamps[0]) for run in runs], [int(run.timestamps[-1]) for run in runs])
    if split is None:
        return None
    before, after = (np.isin(table.run, part) for part in split)
    soon = target.soon[before & target.known]
    if not soon.any() or soon.all() or not target.soon[after].any():
        return None
    risk, life = _fit_both(table, target, before, monotone, options)
    score = np.zeros(len(table))
    rul = np.zeros(len(table))
    score[after] = raw_scores(risk, table.features[after])
    if life is not None:
        rul[after] = np.clip(raw_scores(life, table.features[after]), 0, target.cap)
    rows = after & target.known
    halves = table.run[rows] % 2
    if len(np.unique(halves)) < 2 or any(not target.soon[rows][halves == half].any() for half in (0, 1)):
        return None
    held_out = _held_out(table, target, score, rul, rows=rows, group=table.run)
    return evaluate_crosswise(
        held_out,
        halves,
        f"fitted to {len(split[0])} lives that had ended before the other {len(split[1])} began",
        target.cap,
    )


def _gain(booster: lgb.Booster) -> Floats:
    """The share of each feature in what the trees gained."""
    gain = np.asarray(booster.feature_importance("gain"), dtype=np.float64)
    share: Floats = gain / max(float(gain.sum()), 1e-12)
    return share


def _drift(features: Floats, spec: FeatureSpec, strongest: npt.NDArray[np.intp]) -> parts.DriftPart:
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


def _anomaly_part(anomaly: AnomalyModel) -> parts.AnomalyPart:
    return parts.AnomalyPart(
        columns=anomaly.columns.tolist(),
        mean=anomaly.mean.tolist(),
        scale=anomaly.scale.tolist(),
        components=anomaly.components.tolist(),
        distances=anomaly.distances.tolist(),
        paths=anomaly.paths.tolist(),
        greater=anomaly.greater.tolist(),
    )


def _unit(axis: str) -> str:
    return AXES.get(axis, "h" if axis == TIME else axis)


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
