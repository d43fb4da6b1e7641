"""Scores prediction inputs with models, or with the fallback rules. Runs on the model thread."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from aurum.heuristics import LEAST_READINGS, assess
from aurum.prediction import metrics
from aurum.prediction.model.features import LEAST_STEPS, TIME, features_of_windows, steps_of, window_of
from aurum.prediction.model.model import Model, Predictions
from aurum.prediction.model.skill import UnknownReason
from aurum.prediction.serving.drift import DriftMonitor, FeatureDrift
from aurum.prediction.serving.inputs import PredictionInput
from aurum.runtime.errors import AurumError, FailedPreconditionError
from aurum.runtime.time_units import HOUR_US

T = TypeVar("T")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one machine or one row of features.

    Attributes:
        machine_id: The machine; empty for given features.
        machine_type: Its type.
        risk_score: The risk, from 0 to 1, or the value of a rule; None if it is unknown.
        anomaly_score: The anomaly score, from 0 to 1.
        model_version: The version of the model; empty if a rule answered.
        rul: Estimate, lower and upper bound of the RUL in `unit`; None if the model does not predict it.
        quantiles: Quantiles of the RUL at calibration.LEVELS; empty if the model does not predict it.
        cap: The RUL above which the model makes no statement.
        unit: The unit of the RUL.
        degraded_reason: Why the risk does not come from a model; empty if it does.
        as_of_us: Time of the latest reading, in µs since 1970.
        inputs_sha256: The beginning of a digest of the features.
        row: The features.
        horizon: The amount of life within which a failure counts for the risk; 0 without a model.
        life: The life counter, or hours since 1970 without one; None without a model.
        causes: The part of the risk that each failure mode accounts for, the greatest first.
        rule: The fallback rule that gave risk_score; empty if none did.
        risk_unknown: Why the risk is unknown; None if it is known or given by a rule.
        rul_unknown: Why the model withholds the RUL; None if it does not.
        without_skill: Why the model, which was activated by force, has no skill; empty otherwise.
        anomaly_threshold: The anomaly score from which the state counts as unusual; 0 if the model has no threshold.
        tail: Quantiles of the RUL at calibration.TAIL_LEVELS; empty like quantiles, and for models of earlier versions.
    """

    machine_id: str
    machine_type: str
    risk_score: float | None
    anomaly_score: float = 0.0
    model_version: str = ""
    rul: tuple[float, float, float] | None = None
    quantiles: Sequence[float] = ()
    cap: float = 0.0
    unit: str = ""
    degraded_reason: str = ""
    as_of_us: int = 0
    inputs_sha256: str = ""
    row: Floats | None = field(default=None, repr=False, compare=False)
    horizon: float = 0.0
    life: float | None = None
    causes: Sequence[tuple[str, float]] = ()
    rule: str = ""
    risk_unknown: UnknownReason | None = None
    rul_unknown: UnknownReason | None = None
    without_skill: str = ""
    anomaly_threshold: float = 0.0
    tail: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class FeatureContribution:
    """The contribution of one feature to a prediction."""

    feature: str
    sensor: str
    value: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """A prediction with its strongest factors and all features.

    Attributes:
        prediction: The prediction.
        factors: The factors, the strongest first.
        features: The value of each feature.
        step: Length of a time step, which features count, in `step_unit`; 0 if a rule has answered.
        step_unit: Its unit, such as hours or cycles.
    """

    prediction: Prediction
    factors: list[FeatureContribution]
    features: dict[str, float]
    step: float = 0.0
    step_unit: str = ""


class Scorer:
    """Scores and explains prediction inputs, and monitors the drift of each champion."""

    def __init__(self) -> None:
        self._drift: dict[str, tuple[Model, DriftMonitor]] = {}

    def monitor_for(self, model: Model) -> DriftMonitor:
        """Returns the drift monitor of a champion. A new champion gets a new monitor."""
        monitored = self._drift.get(model.card.machine_type)
        if monitored is None or monitored[0] is not model:
            monitored = self._drift[model.card.machine_type] = (model, DriftMonitor(model))
            if model.card.evaluation is not None:
                measured = model.card.evaluation.metrics
                coverage = measured.interval_coverage
                metrics.track_model(
                    model.card.machine_type, measured.risk_ece, float("nan") if coverage is None else coverage
                )
        return monitored[1]

    def drift_of(self, machine_type: str, version: str) -> list[FeatureDrift]:
        """Returns the drift of a champion's features; empty for any other version."""
        monitored = self._drift.get(machine_type)
        return monitored[1].feature_drift() if monitored is not None and monitored[0].card.version == version else []

    def score(self, inputs: Sequence[PredictionInput]) -> list[Prediction | AurumError]:
        """Returns a prediction for each input, or the error why there is none."""
        answers: dict[int, Prediction | AurumError] = {}
        by_model: dict[int, list[int]] = {}
        for index, prediction_input in enumerate(inputs):
            if prediction_input.model is None:
                answers[index] = predict_by_rule(prediction_input)[0]
            else:
                by_model.setdefault(id(prediction_input.model), []).append(index)
        for indices in by_model.values():
            model = inputs[indices[0]].model
            if model is not None:
                answers |= self._score_with(model, {index: inputs[index] for index in indices})
        return [answers[index] for index in range(len(inputs))]

    def score_rows(self, model: Model, rows: Floats) -> Predictions:
        """Predicts from computed features, one row for each machine."""
        started = time.perf_counter()
        result = model.predict(rows)
        self.monitor_for(model).observe(rows)
        seconds = time.perf_counter() - started
        if result.risk is not None:
            metrics.track_predictions(model.card.machine_type, model.card.version, seconds, result.risk)
        else:
            for _ in rows:
                metrics.track_prediction(model.card.machine_type, model.card.version, seconds, None, degraded=True)
        return result

    def explain(self, prediction_input: PredictionInput, top: int) -> Explanation:
        """Explains a prediction by its `top` strongest factors. Raises AurumError if there is no prediction."""
        if prediction_input.model is None or not prediction_input.model.predicts_risk:
            answer, shifts = predict_by_rule(prediction_input)
            total = sum(abs(shift) for _, shift in shifts.values()) or 1.0
            prediction = _value_or_raise(answer)
            factors = [
                FeatureContribution(sensor, sensor, value, (prediction.risk_score or 0.0) * shift / total)
                for sensor, (value, shift) in list(shifts.items())[:top]
            ]
            return Explanation(prediction, factors, {sensor: value for sensor, (value, _) in shifts.items()})
        prediction = _value_or_raise(self.score([prediction_input])[0])
        row = (
            prediction.row
            if prediction.row is not None
            else _value_or_raise(features_of_input(prediction_input.model, prediction_input))
        )
        names = prediction_input.model.spec.names
        step = prediction_input.model.spec.step, prediction_input.model.card.unit
        if not prediction_input.model.tells_risk:
            return Explanation(prediction, [], dict(zip(names, row.tolist(), strict=True)), *step)
        contributions = prediction_input.model.contributions(row)
        strongest = np.argsort(-np.abs(contributions), kind="stable")[:top]
        return Explanation(
            prediction,
            [
                FeatureContribution(
                    names[index],
                    names[index].rpartition(".")[0] or names[index],
                    float(row[index]),
                    float(contributions[index]),
                )
                for index in strongest
            ],
            dict(zip(names, row.tolist(), strict=True)),
            *step,
        )

    def _score_with(self, model: Model, inputs: dict[int, PredictionInput]) -> dict[int, Prediction | AurumError]:
        """Scores inputs with one model. Returns for each index the prediction, or the error why there is none."""
        answers: dict[int, Prediction | AurumError] = {}
        started = time.perf_counter()
        rows: dict[int, Floats] = {}
        for index, prediction_input in inputs.items():
            row = features_of_input(model, prediction_input)
            if isinstance(row, AurumError):
                answers[index] = row
            else:
                rows[index] = row
        if not rows:
            return answers
        features = np.stack(list(rows.values()))
        result = model.predict(features)
        self.monitor_for(model).observe(features)
        seconds = (time.perf_counter() - started) / len(rows)
        for position, (index, row) in enumerate(rows.items()):
            answer = prediction_of(model, inputs[index], result, position, row, inputs[index].as_of_us)
            answers[index] = answer
            metrics.track_prediction(
                inputs[index].machine_type,
                model.card.version,
                seconds,
                answer.risk_score,
                degraded=bool(answer.degraded_reason),
            )
        _compare_with_shadow(result, inputs, list(rows))
        return answers


def features_of_input(model: Model, prediction_input: PredictionInput) -> Floats | AurumError:
    """Returns the row of features of an input, or the error if there are too few readings."""
    if prediction_input.features is not None:
        return prediction_input.features
    steps = steps_of(prediction_input.readings.columns if prediction_input.readings else {}, model.spec)
    if len(steps.ages) < LEAST_STEPS:
        return _too_few_readings(
            prediction_input.machine_id, f"{LEAST_STEPS} steps of {model.spec.step:g} {model.card.unit}", {}
        )
    row: Floats = features_of_windows([window_of(steps)])[0]
    return row


def predict_by_rule(
    prediction_input: PredictionInput,
) -> tuple[Prediction | AurumError, dict[str, tuple[float, float]]]:
    """Returns the answer of the fallback rule, and the shift of each sensor as (value, shift)."""
    result = assess(
        prediction_input.machine_type, prediction_input.readings.columns if prediction_input.readings else {}
    )
    if result is None:
        return _too_few_readings_of_one_sensor(prediction_input), {}
    metrics.track_prediction(prediction_input.machine_type or "unknown", "rule", 0.0, result.risk, degraded=True)
    prediction = Prediction(
        prediction_input.machine_id,
        prediction_input.machine_type,
        result.risk,
        result.risk,
        degraded_reason=prediction_input.reason
        or "its model has seen no failures; the rule for such machines answered",
        as_of_us=prediction_input.as_of_us,
        rule=result.rule,
    )
    return prediction, result.shifts


def digest_of(row: Floats) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of a row of features."""
    return hashlib.sha256(row.astype("<f8").tobytes()).hexdigest()[:16]


def prediction_of(  # noqa: PLR0917
    model: Model, prediction_input: PredictionInput, result: Predictions, position: int, row: Floats, as_of_us: int
) -> Prediction:
    """Returns the prediction at `position` of the model's result.

    Args:
        model: The model.
        prediction_input: The input; its readings are used only if the model has seen no failures.
        result: The result of the model.
        position: The index of the input in the result.
        row: The features of the input.
        as_of_us: The time of its latest reading.
    """
    anomaly = float(result.anomaly[position])
    reason = rule_name = ""
    unknown: UnknownReason | None = None
    risk: float | None = None
    if result.risk is not None:
        risk = float(result.risk[position])
    elif "risk" in model.withheld:
        unknown = model.withheld["risk"]
        reason = f"the risk is unknown: {unknown}"
    else:
        rule = assess(
            prediction_input.machine_type, prediction_input.readings.columns if prediction_input.readings else {}
        )
        reason = f"model {prediction_input.machine_type} {model.card.version} has seen no failures"
        if rule is not None:
            risk, rule_name = rule.risk, rule.rule
            reason += f"; the value is that of the fallback rule by {rule.rule}"
        else:
            unknown = UnknownReason("NO_FAILURES_SEEN", reason)
            reason += ", so the risk is unknown"
    rul = None
    quantiles: Sequence[float] = ()
    if result.rul is not None and result.quantiles is not None:
        quantiles = result.quantiles[position].tolist()
        rul = float(result.rul[position]), quantiles[0], quantiles[-1]
    return Prediction(
        prediction_input.machine_id,
        prediction_input.machine_type,
        risk,
        anomaly,
        model.card.version,
        rul,
        quantiles,
        model.card.rul_cap,
        model.card.unit,
        reason,
        as_of_us,
        digest_of(row),
        row,
        model.card.horizon,
        _life_of(model, row, as_of_us),
        _causes_of(model, result, position),
        rule_name,
        unknown,
        model.withheld.get("rul"),
        model.without_skill,
        model.anomaly_threshold,
        [] if result.tail is None else result.tail[position].tolist(),
    )


def _causes_of(model: Model, result: Predictions, position: int) -> list[tuple[str, float]]:
    """Returns the part of the risk that each failure mode accounts for, the greatest first."""
    if model.causes is None or result.causes is None:
        return []
    causes = zip(model.causes.modes, result.causes[position].tolist(), strict=True)
    return sorted(causes, key=lambda cause: -cause[1])


def _life_of(model: Model, row: Floats, as_of_us: int) -> float | None:
    """Returns the life counter of a row of features, or hours since 1970 if the model uses time."""
    age = float(row[0])
    if not np.isnan(age):
        return age
    return as_of_us / HOUR_US if model.card.axis == TIME and as_of_us else None


def _compare_with_shadow(result: Predictions, inputs: dict[int, PredictionInput], indices: Sequence[int]) -> None:
    """Scores the same readings with the shadow model and records the difference in risk."""
    if result.risk is None:
        return
    for position, index in enumerate(indices):
        shadow = inputs[index].shadow
        if shadow is None or inputs[index].readings is None:
            continue
        row = features_of_input(shadow, inputs[index])
        if isinstance(row, AurumError):
            continue
        shadow_risk = shadow.predict(row[None, :]).risk
        if shadow_risk is not None:
            metrics.track_shadow(inputs[index].machine_type, abs(float(shadow_risk[0]) - float(result.risk[position])))


def _value_or_raise(value: T | AurumError) -> T:
    """Returns the value, or raises it if it is an error."""
    if isinstance(value, AurumError):
        raise value
    return value


def _too_few_readings_of_one_sensor(prediction_input: PredictionInput) -> AurumError:
    columns = prediction_input.readings.columns if prediction_input.readings else {}
    most = max((int(np.count_nonzero(~np.isnan(values))) for _, values in columns.values()), default=0)
    # A life counter or label with enough readings is no measurement, so it does not count
    present = min(most, LEAST_READINGS - 1)
    numbers = {"present": str(present), "needed": str(LEAST_READINGS)}
    return _too_few_readings(
        prediction_input.machine_id, f"{LEAST_READINGS} readings of one sensor and has {present}", numbers
    )


def _too_few_readings(machine_id: str, needed: str, numbers: dict[str, str]) -> AurumError:
    """Returns the error for a machine with too few readings.

    Args:
        machine_id: The machine.
        needed: What is needed at least.
        numbers: Numbers for the texts of programs.
    """
    return FailedPreconditionError(
        f"machine {machine_id} has too few readings for a prediction, which needs {needed}; try again with more",
        reason="NOT_ENOUGH_READINGS",
        metadata={"machine_id": machine_id, **numbers},
    )
