"""Inputs of predictions: machines with their latest readings, or given features."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.features import TIME, FeatureSpec
from aurum.prediction.model.model import Model
from aurum.prediction.serving.readings_client import MachineReadings, ReadingsClient
from aurum.prediction.serving.registry import ModelRegistry
from aurum.runtime.errors import FAILURES, AurumError, FailedPreconditionError, InvalidArgumentError

Floats = npt.NDArray[np.float64]

LEAST_SENSORS = 0.5  # share of a model's sensors that a machine must have


@dataclass(frozen=True, slots=True)
class PredictionInput:
    """A machine or a row of features to predict.

    Attributes:
        machine_id: The machine; empty for given features.
        machine_type: Its type.
        model: The model; None if the fallback rule answers.
        readings: The machine's readings; None for given features.
        features: Given features; None if they are computed from the readings.
        reason: Why the fallback rule answers; empty if the model does.
        shadow: The shadow model, which scores the input as well for comparison.
    """

    machine_id: str
    machine_type: str
    model: Model | None
    readings: MachineReadings | None = None
    features: Floats | None = None
    reason: str = ""
    shadow: Model | None = None

    @property
    def as_of_us(self) -> int:
        """The time of the latest reading in µs since 1970; 0 without readings."""
        return self.readings.as_of_us if self.readings else 0


class InputReader:
    """Assembles prediction inputs from readings and models."""

    def __init__(self, reader: ReadingsClient, registry: ModelRegistry) -> None:
        self._reader = reader
        self._registry = registry

    async def read_inputs(self, machine_ids: Sequence[str], end_us: int = 0) -> list[PredictionInput | AurumError]:
        """Reads the inputs for machines.

        Args:
            machine_ids: The machines.
            end_us: Uses only readings before this time in µs since 1970; 0 for the latest.

        Returns:
            For each machine its input, or the error why there is none.

        Raises:
            AurumError: Ingestion did not answer.
        """
        types = await self._reader.machine_types(machine_ids)
        cases: dict[str, PredictionInput | AurumError] = {}
        by_type: dict[str, list[str]] = {}
        for machine_id, machine_type in zip(machine_ids, types, strict=True):
            if isinstance(machine_type, AurumError) and not isinstance(machine_type, FAILURES):
                cases[machine_id] = machine_type
            elif isinstance(machine_type, BaseException):
                raise machine_type
            else:
                by_type.setdefault(machine_type, []).append(machine_id)
        for machine_type, members in by_type.items():
            cases |= await self._of_type(members, machine_type, self._registry.active(machine_type), end_us)
        return [cases[machine_id] for machine_id in machine_ids]

    async def _of_type(
        self, machine_ids: list[str], machine_type: str, model: Model | None, end_us: int
    ) -> dict[str, PredictionInput]:
        readings = await self._reader.latest(machine_ids, model.spec if model else None, end_us)
        nothing = {machine_id: MachineReadings(machine_id, {}) for machine_id in machine_ids}
        if model is None:
            reason = rule_reason(machine_type)
            return {
                machine_id: PredictionInput(machine_id, machine_type, None, found, reason=reason)
                for machine_id, found in (nothing | readings).items()
            }
        unfit = {
            machine_id: rule_reason(machine_type, model, missing)
            for machine_id, found in (nothing | readings).items()
            if (missing := _missing_sensor(model, found))
        }
        if unfit:
            readings |= await self._reader.latest(list(unfit), None, end_us)
        shadow = self._registry.shadow(machine_type)
        return {
            machine_id: PredictionInput(
                machine_id,
                machine_type,
                None if machine_id in unfit else model,
                found,
                reason=unfit.get(machine_id, ""),
                shadow=None if machine_id in unfit else shadow,
            )
            for machine_id, found in (nothing | readings).items()
        }

    def model(self, machine_type: str) -> Model:
        """Returns the champion of a type. Raises FailedPreconditionError if there is none."""
        model = self._registry.active(machine_type)
        if model is None:
            raise FailedPreconditionError(
                f"there is no model for machine type {machine_type!r}; there are models for "
                f"{', '.join(self._registry.types) or 'no type'}: train one with `aurum train`",
                reason="MODEL_NOT_FOUND",
            )
        return model

    def input_from_features(self, machine_type: str, features: Mapping[str, float]) -> PredictionInput:
        """Makes an input from features by name; missing ones are NaN.

        Raises:
            InvalidArgumentError: A feature is unknown or infinite, or none has a value.
            FailedPreconditionError: The type has no model.
        """
        model = self.model(machine_type)
        names = model.spec.names
        unknown = sorted(set(features) - set(names))
        if unknown:
            raise InvalidArgumentError.for_field(
                f"features.{unknown[0]}", f"is no feature of model {machine_type} {model.card.version}"
            )
        row = np.array([features.get(name, np.nan) for name in names], dtype=np.float64)
        if np.isnan(row).all():
            raise InvalidArgumentError.for_field("features", "has no value that is a number")
        if np.isinf(row).any():
            raise InvalidArgumentError.for_field(f"features.{names[int(np.isinf(row).argmax())]}", "is infinite")
        return PredictionInput("", machine_type, model, features=row)


def rule_reason(machine_type: str, model: Model | None = None, missing: str = "") -> str:
    """Returns why the fallback rule answers for machines of a type.

    Args:
        machine_type: The type; empty without a registration.
        model: The model that does not fit; None if there is none.
        missing: A sensor that the model needs.
    """
    if model is not None:
        return (
            f"model {machine_type} {model.card.version} needs sensors that this machine lacks, such as {missing}; the "
            f"rule for machines without a model answered"
        )
    named = f"machine type {machine_type!r}" if machine_type else "a machine that was never registered"
    return f"there is no model for {named}; the rule for such machines answered"


def _missing_sensor(model: Model, readings: MachineReadings) -> str | None:
    """Returns a missing sensor because of which the model cannot predict a machine, or None if it can."""
    columns = readings.columns
    if not columns:
        return None  # the lack of any readings is reported separately
    return missing_sensor(model.spec, columns)


def missing_sensor(spec: FeatureSpec, present: Collection[str]) -> str | None:
    """Returns a missing sensor because of which a model cannot predict a machine with these sensors, or None."""
    if spec.axis != TIME and spec.axis not in present:
        return spec.axis
    if sum(sensor in present for sensor in spec.sensors) < LEAST_SENSORS * len(spec.sensors):
        return next(sensor for sensor in spec.sensors if sensor not in present)
    return None
