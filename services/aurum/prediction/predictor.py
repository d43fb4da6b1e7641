"""Predictions for machines: their latest readings, the features of these, the model of their type or the rule."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from aurum.prediction.drift import DriftMonitor
from aurum.prediction.features import LEAST_STEPS, TIME, features_of_windows, steps_of, window_of
from aurum.prediction.model import Model
from aurum.prediction.reader import MachineReadings, ReadingsReader
from aurum.prediction.registry import ModelRegistry
from aurum.rules import LEAST_READINGS, assess
from aurum.runtime import metrics
from aurum.runtime.errors import FAILURES, AurumError, FailedPreconditionError, InvalidArgumentError

T = TypeVar("T")
Floats = npt.NDArray[np.float64]

_LEAST_SENSORS = 0.5  # share of a model's sensors that a machine must have
_SEVERAL_AT_ONCE = 64  # machines in one query


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer. rul and its bounds in `unit`, None when no model took part; then degraded_reason says why."""

    machine_id: str
    machine_type: str
    risk_score: float
    anomaly_score: float = 0.0
    model_version: str = ""
    rul: tuple[float, float, float] | None = None
    unit: str = ""
    degraded_reason: str = ""
    as_of_us: int = 0


@dataclass(frozen=True, slots=True)
class Factor:
    feature: str
    sensor: str
    value: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    prediction: Prediction
    factors: list[Factor]
    features: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Case:
    """A machine to be predicted: by a model, or by the rule for the reason given; from readings or given features."""

    machine_id: str
    machine_type: str
    model: Model | None
    readings: MachineReadings | None = None
    features: Floats | None = None
    reason: str = ""

    @property
    def as_of_us(self) -> int:
        return self.readings.as_of_us if self.readings else 0


class Predictor:
    def __init__(self, reader: ReadingsReader, registry: ModelRegistry) -> None:
        self._reader = reader
        self._registry = registry
        self._drift: dict[str, tuple[Model, DriftMonitor]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        for machine_type in registry.types:
            if model := registry.active(machine_type):
                self._monitor(model)

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    async def predict(self, machine_ids: Sequence[str]) -> list[Prediction | AurumError]:
        """A prediction for each machine, or why it has none. Raises AurumError if ingestion could not be asked."""
        cases = await self._cases(machine_ids)
        known = [case for case in cases if isinstance(case, _Case)]
        answers = iter(await self._compute(lambda: self._answer(known)))
        return [next(answers) if isinstance(case, _Case) else case for case in cases]

    async def predict_features(self, machine_type: str, features: Mapping[str, float]) -> Prediction:
        """A prediction from features given by name. Raises InvalidArgumentError, FailedPreconditionError."""
        case = self._given(machine_type, features)
        return _raised((await self._compute(lambda: self._answer([case])))[0])

    async def explain(self, machine_id: str, top: int) -> Explanation:
        """What moved the prediction of a machine. Raises AurumError."""
        case = (await self._cases([machine_id]))[0]
        if isinstance(case, AurumError):
            raise case
        return await self._compute(lambda: self._explain(case, top))

    async def explain_features(self, machine_type: str, features: Mapping[str, float], top: int) -> Explanation:
        """The same for features given by name."""
        case = self._given(machine_type, features)
        return await self._compute(lambda: self._explain(case, top))

    async def _compute(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _cases(self, machine_ids: Sequence[str]) -> list[_Case | AurumError]:
        types = await self._reader.machine_types(machine_ids)
        cases: dict[str, _Case | AurumError] = {}
        by_type: dict[str, list[str]] = {}
        for machine_id, machine_type in zip(machine_ids, types, strict=True):
            if isinstance(machine_type, AurumError) and not isinstance(machine_type, FAILURES):
                cases[machine_id] = machine_type
            elif isinstance(machine_type, BaseException):
                raise machine_type
            else:
                by_type.setdefault(machine_type, []).append(machine_id)
        for machine_type, members in by_type.items():
            model = self._registry.active(machine_type)
            for start in range(0, len(members), _SEVERAL_AT_ONCE):
                part = members[start : start + _SEVERAL_AT_ONCE]
                cases |= await self._cases_of_type(part, machine_type, model)
        return [cases[machine_id] for machine_id in machine_ids]

    async def _cases_of_type(self, machine_ids: list[str], machine_type: str, model: Model | None) -> dict[str, _Case]:
        readings = await self._reader.latest(machine_ids, model.spec if model else None)
        nothing = {machine_id: MachineReadings(machine_id, {}) for machine_id in machine_ids}
        if model is None:
            named = f"machine type {machine_type!r}" if machine_type else "a machine that was never registered"
            reason = f"there is no model for {named}; the rule for such machines answered"
            return {
                machine_id: _Case(machine_id, machine_type, None, found, reason=reason)
                for machine_id, found in (nothing | readings).items()
            }
        unfit = {
            machine_id: f"model {machine_type} {model.card.version} needs sensors that this machine lacks, such as "
            f"{missing}; the rule for machines without a model answered"
            for machine_id, found in (nothing | readings).items()
            if (missing := _missing_sensor(model, found))
        }
        if unfit:
            readings |= await self._reader.latest(list(unfit), None)
        return {
            machine_id: _Case(
                machine_id,
                machine_type,
                None if machine_id in unfit else model,
                found,
                reason=unfit.get(machine_id, ""),
            )
            for machine_id, found in (nothing | readings).items()
        }

    def _given(self, machine_type: str, features: Mapping[str, float]) -> _Case:
        model = self._registry.active(machine_type)
        if model is None:
            raise FailedPreconditionError(
                f"there is no model for machine type {machine_type!r}; there are models for "
                f"{', '.join(self._registry.types) or 'no type'}: train one with `aurum train`",
                reason="MODEL_NOT_FOUND",
            )
        names = model.spec.names
        unknown = sorted(set(features) - set(names))
        if unknown:
            raise InvalidArgumentError.of(
                f"features.{unknown[0]}", f"is no feature of model {machine_type} {model.card.version}"
            )
        row = np.array([features.get(name, np.nan) for name in names], dtype=np.float64)
        if np.isnan(row).all():
            raise InvalidArgumentError.of("features", "has no value that is a number")
        if np.isinf(row).any():
            raise InvalidArgumentError.of(f"features.{names[int(np.isinf(row).argmax())]}", "is infinite")
        return _Case("", machine_type, model, features=row)

    def _answer(self, cases: Sequence[_Case]) -> list[Prediction | AurumError]:
        """On the model's thread."""
        answers: dict[int, Prediction | AurumError] = {}
        by_model: dict[int, list[int]] = {}
        for index, case in enumerate(cases):
            if case.model is None:
                answers[index] = _by_rule(case)[0]
            else:
                by_model.setdefault(id(case.model), []).append(index)
        for indices in by_model.values():
            model = cases[indices[0]].model
            if model is not None:
                answers |= self._answer_by(model, {index: cases[index] for index in indices})
        return [answers[index] for index in range(len(cases))]

    def _answer_by(self, model: Model, cases: dict[int, _Case]) -> dict[int, Prediction | AurumError]:
        answers: dict[int, Prediction | AurumError] = {}
        started = time.perf_counter()
        rows: dict[int, Floats] = {}
        for index, case in cases.items():
            row = _features(model, case)
            if isinstance(row, AurumError):
                answers[index] = row
            else:
                rows[index] = row
        if not rows:
            return answers
        features = np.stack(list(rows.values()))
        result = model.predict(features)
        self._monitor(model).add(features)
        seconds = (time.perf_counter() - started) / len(rows)
        for row_index, index in enumerate(rows):
            case, risk = cases[index], float(result.risk[row_index])
            answers[index] = Prediction(
                case.machine_id,
                case.machine_type,
                risk,
                float(result.anomaly[row_index]),
                model.card.version,
                (float(result.rul[row_index]), float(result.lower[row_index]), float(result.upper[row_index])),
                model.card.unit,
                as_of_us=case.as_of_us,
            )
            metrics.track_prediction(case.machine_type, model.card.version, seconds, risk)
        return answers

    def _explain(self, case: _Case, top: int) -> Explanation:
        """On the model's thread."""
        if case.model is None:
            prediction, shifts = _by_rule(case)
            total = sum(abs(shift) for _, shift in shifts.values()) or 1.0
            known = _raised(prediction)
            factors = [
                Factor(sensor, sensor, value, known.risk_score * shift / total)
                for sensor, (value, shift) in list(shifts.items())[:top]
            ]
            return Explanation(known, factors, {sensor: value for sensor, (value, _) in shifts.items()})
        known = _raised(self._answer([case])[0])
        row = _raised(_features(case.model, case))
        names = case.model.spec.names
        contributions = case.model.contributions(row[None, :])
        strongest = np.argsort(-np.abs(contributions), kind="stable")[:top]
        return Explanation(
            known,
            [
                Factor(
                    names[index],
                    names[index].rpartition(".")[0] or names[index],
                    float(row[index]),
                    float(contributions[index]),
                )
                for index in strongest
            ],
            dict(zip(names, row.tolist(), strict=True)),
        )

    def _monitor(self, model: Model) -> DriftMonitor:
        known = self._drift.get(model.card.machine_type)
        if known is None or known[0] is not model:
            known = self._drift[model.card.machine_type] = (model, DriftMonitor(model))
            of_card = model.card.metrics
            metrics.track_model(model.card.machine_type, of_card.risk_ece, of_card.interval_coverage)
        return known[1]


def _missing_sensor(model: Model, readings: MachineReadings) -> str | None:
    """A sensor without which the model cannot say anything of this machine, or None."""
    columns = readings.columns
    if not columns:
        return None  # no readings at all, which is said otherwise
    if model.spec.axis != TIME and model.spec.axis not in columns:
        return model.spec.axis
    there = sum(sensor in columns for sensor in model.spec.sensors)
    if there < _LEAST_SENSORS * len(model.spec.sensors):
        return next(sensor for sensor in model.spec.sensors if sensor not in columns)
    return None


def _features(model: Model, case: _Case) -> Floats | AurumError:
    """The row of features of a case, or why there is none."""
    if case.features is not None:
        return case.features
    steps = steps_of(case.readings.columns if case.readings else {}, model.spec)
    if len(steps.ages) < LEAST_STEPS:
        return _too_few(case.machine_id, f"{LEAST_STEPS} steps of {model.spec.step:g} {model.spec.unit}")
    row: Floats = features_of_windows([window_of(steps)])[0]
    return row


def _by_rule(case: _Case) -> tuple[Prediction | AurumError, dict[str, tuple[float, float]]]:
    """The rule's answer and the shifts that it saw."""
    result = assess(case.machine_type, case.readings.columns if case.readings else {})
    if result is None:
        return _too_few(case.machine_id, f"{LEAST_READINGS} readings of one sensor"), {}
    metrics.track_prediction(case.machine_type or "unknown", "rule", 0.0, result.risk, degraded=True)
    prediction = Prediction(
        case.machine_id,
        case.machine_type,
        result.risk,
        result.risk,
        degraded_reason=case.reason,
        as_of_us=case.as_of_us,
    )
    return prediction, result.shifts


def _raised(value: T | AurumError) -> T:
    if isinstance(value, AurumError):
        raise value
    return value


def _too_few(machine_id: str, needed: str) -> AurumError:
    return FailedPreconditionError(
        f"machine {machine_id} has too few readings for a prediction, which needs {needed}; try again with more",
        reason="NOT_ENOUGH_READINGS",
        metadata={"machine_id": machine_id},
    )
