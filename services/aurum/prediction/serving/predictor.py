"""Makes predictions for machines from their latest readings, with the model of their type or the fallback rule."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.model import Model, Predictions
from aurum.prediction.serving.batching import BatchLimits, MicroBatcher
from aurum.prediction.serving.drift import FeatureDrift
from aurum.prediction.serving.inputs import InputReader, PredictionInput
from aurum.prediction.serving.readings_client import ReadingsClient
from aurum.prediction.serving.registry import ModelRegistry
from aurum.prediction.serving.scoring import Explanation, Prediction, Scorer
from aurum.runtime.errors import AurumError, InvalidArgumentError

T = TypeVar("T")
R = TypeVar("R")
Floats = npt.NDArray[np.float64]


class Predictor:
    """Reads the inputs of predictions, and scores them in batches, one at a time; all but short ones on a thread.

    Attributes:
        scorer: Scores the inputs. Only `compute` and the batcher use it, one at a time.
    """

    def __init__(self, reader: ReadingsClient, registry: ModelRegistry, limits: BatchLimits | None = None) -> None:
        self._cases = InputReader(reader, registry)
        self._registry = registry
        self.scorer = Scorer()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._exclusive = threading.Lock()  # held while the scorer computes
        self._limits = limits
        self._batcher: MicroBatcher[PredictionInput, Prediction | AurumError] = self.batcher(self.scorer.score)
        for machine_type in registry.types:
            if model := registry.active(machine_type):
                self.scorer.monitor_for(model)

    def close(self) -> None:
        """Stops the batching and waits for the call of the model in progress."""
        self._batcher.close()
        self._thread.shutdown(wait=True)

    async def predict(self, machine_ids: Sequence[str], end_us: int = 0) -> list[Prediction | AurumError]:
        """Predicts machines.

        Args:
            machine_ids: The machines.
            end_us: Uses only readings before this time in µs since 1970; 0 for the latest.

        Returns:
            For each machine its prediction, or the error why there is none.

        Raises:
            AurumError: Ingestion did not answer.
        """
        inputs = await self._cases.read_inputs(machine_ids, end_us)
        answers = iter(await self._batcher([each for each in inputs if isinstance(each, PredictionInput)]))
        return [next(answers) if isinstance(each, PredictionInput) else each for each in inputs]

    async def predict_features(self, machine_type: str, features: Mapping[str, float]) -> Prediction:
        """Predicts from features by name. Raises InvalidArgumentError, or FailedPreconditionError without a model."""
        answer = (await self._batcher([self._cases.input_from_features(machine_type, features)]))[0]
        if isinstance(answer, AurumError):
            raise answer
        return answer

    async def predict_rows(
        self, machine_type: str, features: Sequence[str], values: Floats
    ) -> tuple[Model, Predictions]:
        """Predicts from values[row, feature]. Returns the model as well. Raises the errors of `predict_features`."""
        model = self._cases.model(machine_type)
        names = model.spec.names
        if tuple(features) != names:
            values = values[:, _column_order(model, features)]
        if not len(values):
            raise InvalidArgumentError.for_field("rows.values", "has no row")
        if np.isinf(values).any():
            row, column = np.argwhere(np.isinf(values))[0]
            raise InvalidArgumentError.for_field(
                "rows.values", f"is infinite in row {row + 1}, feature {names[column]}"
            )
        return model, await self.compute(lambda: self.scorer.score_rows(model, values))

    async def explain(self, machine_id: str, top: int) -> Explanation:
        """Explains the prediction of a machine by its `top` strongest factors. Raises AurumError."""
        prediction_input = (await self._cases.read_inputs([machine_id]))[0]
        if isinstance(prediction_input, AurumError):
            raise prediction_input
        return await self.compute(lambda: self.scorer.explain(prediction_input, top))

    async def explain_features(self, machine_type: str, features: Mapping[str, float], top: int) -> Explanation:
        """Explains the prediction from features by name. Raises AurumError."""
        prediction_input = self._cases.input_from_features(machine_type, features)
        return await self.compute(lambda: self.scorer.explain(prediction_input, top))

    async def drift_of(self, machine_type: str, version: str) -> list[FeatureDrift]:
        """Returns the drift of a champion's features, as measured by this process; empty for any other version."""
        return await self.compute(lambda: self.scorer.drift_of(machine_type, version))

    def batcher(self, work: Callable[[Sequence[T]], list[R]]) -> MicroBatcher[T, R]:
        """Returns a batcher of calls of `work`, which are made in turn with everything else on the model thread."""
        return MicroBatcher(work, self._thread, self._limits, self._exclusive)

    async def compute(self, work: Callable[[], T]) -> T:
        """Runs a function on the model thread, in turn with predictions, and returns its result."""

        def work_alone() -> T:
            with self._exclusive:
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._thread, work_alone)


def _column_order(model: Model, features: Sequence[str]) -> list[int]:
    """Returns the index of each of the model's features among the given ones.

    Raises:
        InvalidArgumentError: A feature is unknown, repeated or missing. The error names it.
    """
    named = f"model {model.card.machine_type} {model.card.version}"
    position = {name: index for index, name in enumerate(features)}
    for index, name in enumerate(features):
        if name not in model.spec.names:
            raise InvalidArgumentError.for_field(
                f"rows.features[{index}]", f"{name[:80]!r} is not a feature of {named}"
            )
        if position[name] != index:
            raise InvalidArgumentError.for_field(f"rows.features[{index}]", f"{name!r} is repeated")
    for name in model.spec.names:
        if name not in position:
            raise InvalidArgumentError.for_field("rows.features", f"lacks {name!r}, which {named} needs")
    return [position[name] for name in model.spec.names]
