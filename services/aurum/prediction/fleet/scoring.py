"""Scores machines of the fleet in slices, with the model of their type or by the fallback rule.

The answers are the same as those to requests, from the same readings.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from aurum.prediction import metrics as prediction_metrics
from aurum.prediction.fleet import metrics
from aurum.prediction.fleet.fleet import Fleet
from aurum.prediction.fleet.machine_table import BY_MODEL, Indices
from aurum.prediction.fleet.model_group import ModelGroup, same_features
from aurum.prediction.fleet.step_locator import Flags
from aurum.prediction.model.features import TIME, Matrix
from aurum.prediction.model.model import Model, Predictions
from aurum.prediction.serving.inputs import LEAST_SENSORS, PredictionInput, missing_sensor, rule_reason
from aurum.prediction.serving.readings_client import MachineReadings
from aurum.prediction.serving.registry import ModelRegistry
from aurum.prediction.serving.scoring import Prediction, Scorer, predict_by_rule, prediction_of
from aurum.runtime.errors import AurumError

_DRIFT_ROWS = 64  # that are compared with the training data at a time
_DRIFT_SECONDS = 2.0  # between two comparisons of a machine type


@dataclass(frozen=True, slots=True)
class ScoredMachine:
    """A prediction of the fleet.

    Attributes:
        prediction: The prediction.
        dirty_since: When the first reading that it is new for arrived (monotonic seconds).
    """

    prediction: Prediction
    dirty_since: float


class FleetScoring:
    """Scores slices of machines. It is used on the model thread only."""

    def __init__(
        self, fleet: Fleet, registry: ModelRegistry, scorer: Scorer, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """scorer: It monitors the drift of each champion."""
        self._fleet = fleet
        self._registry = registry
        self._scorer = scorer
        self._clock = clock
        self._observed: dict[str, float] = {}  # machine type → when its drift was last measured

    def score(self, machines: Sequence[int]) -> list[ScoredMachine]:
        """Scores machines that are due and scored in the same way. Those that cannot be scored are counted."""
        table = self._fleet.table
        still = np.array(machines, np.intp)
        still = still[table.dirty_since[still] > 0]
        if not len(still):
            return []
        since = table.dirty_since[still].copy()
        table.dirty_since[still], table.scored_at[still] = 0.0, self._clock()
        group = self._fleet.group_of(int(still[0])) if table.mode[still[0]] == BY_MODEL else None
        if group is None:
            predictions = [self._by_rule(machine) for machine in still.tolist()]
        else:
            predictions = [*self._by_model(group, still[table.mode[still] == BY_MODEL])]
        waited = dict(zip(still.tolist(), since.tolist(), strict=True))
        scored = []
        for machine, prediction in filter(None, predictions):
            self._note(machine, prediction)
            scored.append(ScoredMachine(prediction, waited[machine]))
        metrics.prediction_fleet_scored_total.inc(len(scored))
        return scored

    def answer(self, machine_ids: Sequence[str]) -> list[Prediction | None]:
        """Predicts machines on request from their windows, whether they have new readings or not.

        Returns:
            For each machine the prediction that its readings in the store would give; None if this has to be found out
            from the store, because no model scores the machine here, or not the present champion.
        """
        table = self._fleet.table
        answers: list[Prediction | None] = [None] * len(machine_ids)
        by_type: dict[str, dict[int, list[int]]] = {}  # machine type → row → indices of the answer
        for index, machine_id in enumerate(machine_ids):
            machine = table.ids.find(machine_id)
            if machine >= 0 and table.mode[machine] == BY_MODEL:
                rows_of_type = by_type.setdefault(table.type_of(machine), {})
                rows_of_type.setdefault(int(table.row[machine]), []).append(index)
        for machine_type, indices in by_type.items():
            group = self._fleet.groups.get(machine_type)
            if group is None or not self._answers_requests(group, machine_type):
                continue
            rows = np.fromiter(indices, np.intp, len(indices))
            for row, prediction in self._predict_rows(group, rows[_fits(group, rows)], observe=False):
                for index in indices[row]:
                    answers[index] = prediction
        return answers

    def _answers_requests(self, group: ModelGroup, machine_type: str) -> bool:
        """Whether windows hold all that a request of machines of a type needs, also for its shadow model."""
        model, shadow = group.model, self._registry.shadow(machine_type)
        return (
            model.risk is not None
            and model is self._registry.active(machine_type)
            and (shadow is None or same_features(shadow.spec, model.spec))
        )

    def note(self, machine_id: str, prediction: Prediction) -> None:
        """Notes a prediction that was made from a query."""
        machine = self._fleet.table.ids.find(machine_id)
        if machine >= 0:
            self._note(machine, prediction)

    def _note(self, machine: int, prediction: Prediction) -> None:
        """Notes a prediction for the alarm rules, which take those of models only. What is unknown is NaN."""
        table = self._fleet.table
        table.predicted_us[machine] = prediction.as_of_us
        by_model = bool(prediction.model_version)
        known = not prediction.degraded_reason and prediction.risk_score is not None
        table.risk[machine] = prediction.risk_score if known else np.nan
        table.anomaly[machine] = prediction.anomaly_score if by_model else np.nan
        table.threshold[machine] = prediction.anomaly_threshold
        table.rul[machine] = prediction.rul[0] if prediction.rul else np.nan

    def _by_rule(self, machine: int) -> tuple[int, Prediction] | None:
        prediction_input = self._input(machine, None)
        model = self._registry.active(prediction_input.machine_type)
        readings = prediction_input.readings
        if model and readings and readings.columns and missing_sensor(model.spec, readings.columns) is None:
            self._fleet.refill([machine], "new_sensor")  # the model fits now
        answer, _ = predict_by_rule(prediction_input)
        if isinstance(answer, AurumError):
            metrics.prediction_fleet_errors_total.labels("too_few_readings").inc()
            return None
        return machine, answer

    def _by_model(self, group: ModelGroup, machines: Indices) -> list[tuple[int, Prediction]]:
        rows = self._fit(group, self._fleet.table.row[machines])
        predicted = self._predict_rows(group, rows, observe=True)
        if len(predicted) < len(rows):
            metrics.prediction_fleet_errors_total.labels("too_few_readings").inc(len(rows) - len(predicted))
        return [(int(group.machine_of[row]), prediction) for row, prediction in predicted]

    def _predict_rows(self, group: ModelGroup, rows: Indices, *, observe: bool) -> list[tuple[int, Prediction]]:
        """Returns the row and the prediction of each of the rows that has steps.

        Args:
            group: The machines and their model.
            rows: The rows.
            observe: Whether the drift is measured, which needs a sample of all machines.
        """
        if not len(rows):
            return []
        started = time.perf_counter()
        rows, features = group.windows.features(rows)
        if not len(rows):
            return []
        model = group.model
        result = model.predict(features)
        if observe:
            self._observe(model, features)
        as_of = group.windows.as_of(rows).tolist()
        predictions = []
        for position, row in enumerate(rows.tolist()):
            prediction_input = self._input(int(group.machine_of[row]), model)
            predictions.append(
                (row, prediction_of(model, prediction_input, result, position, features[position], as_of[position]))
            )
        risks = [prediction.risk_score for _, prediction in predictions]
        seconds = (time.perf_counter() - started) / len(rows)
        if model.tells_risk:
            told = [risk for risk in risks if risk is not None]
            prediction_metrics.track_predictions(model.card.machine_type, model.card.version, seconds, told)
        else:
            for risk in risks:
                prediction_metrics.track_prediction(
                    model.card.machine_type, model.card.version, seconds, risk, degraded=True
                )
        self._compare_with_shadow(model, features, result)
        return predictions

    def _fit(self, group: ModelGroup, rows: Indices) -> Indices:
        """Returns the rows whose machines have the sensors that the model needs. Others are filled for the rule."""
        fits = _fits(group, rows)
        if not fits.all():
            self._fleet.refill(group.machine_of[rows[~fits]].tolist(), "missing_sensors")
        fitting: Indices = rows[fits]
        return fitting

    def _input(self, machine: int, model: Model | None) -> PredictionInput:
        """Returns the input of a prediction; with readings only if a rule needs them."""
        table = self._fleet.table
        machine_type = table.type_of(machine)
        readings = None
        if model is None or not model.predicts_risk:
            readings = MachineReadings(table.ids.names[machine], self._fleet.recent.columns(machine))
        reason = "" if model else self._fleet.reasons.get(machine) or rule_reason(machine_type)
        return PredictionInput(table.ids.names[machine], machine_type, model, readings, reason=reason)

    def _observe(self, model: Model, features: Matrix) -> None:
        """Measures the drift with a sample of machines, from time to time."""
        now = self._clock()
        if now - self._observed.get(model.card.machine_type, -_DRIFT_SECONDS) < _DRIFT_SECONDS:
            return
        self._observed[model.card.machine_type] = now
        self._scorer.monitor_for(model).observe(features[:_DRIFT_ROWS])

    def _compare_with_shadow(self, model: Model, features: Matrix, result: Predictions) -> None:
        shadow = self._registry.shadow(model.card.machine_type)
        if shadow is None or result.risk is None or not same_features(shadow.spec, model.spec):
            return
        risk = shadow.predict(features).risk
        if risk is not None:
            for difference in np.abs(risk - result.risk).tolist():
                prediction_metrics.track_shadow(model.card.machine_type, difference)


def _fits(group: ModelGroup, rows: Indices) -> Flags:
    """Returns which of the rows are of machines with the sensors that the model needs."""
    spec = group.model.spec
    present = group.windows.present(rows)
    fits: Flags = present[:, : len(spec.sensors)].sum(axis=1) >= LEAST_SENSORS * len(spec.sensors)
    if spec.axis != TIME:
        fits &= present[:, -1]
    return fits
