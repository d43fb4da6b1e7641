"""Repeats past predictions after late readings have arrived.

While a gateway is disconnected, predictions for its machines lack the latest readings. Once the backlog has arrived,
the prediction for the same moment is repeated and recorded in addition to the first one.
"""

import asyncio
import collections
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aurum.prediction import metrics
from aurum.prediction.serving.scoring import Prediction
from aurum.runtime.errors import AurumError

logger = logging.getLogger(__name__)

Predict = Callable[[Sequence[str], int], Awaitable[list[Prediction | AurumError]]]

_WAITING = 20_000  # predictions waiting for rescoring; beyond this the oldest are dropped
_SAME = 1e-9  # relative difference of features up to which they count as equal


@dataclass(frozen=True, slots=True)
class _Scheduled:
    """A prediction and the monotonic time in seconds at which it is repeated."""

    prediction: Prediction
    due: float


class Rescorer:
    """Repeats recorded predictions.

    Args:
        predict: Predicts machines as of a time.
        record: Called with a repeated prediction that differs.
        after: Seconds until a prediction is repeated.
        most: Maximum number of repetitions per second.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self,
        predict: Predict,
        record: Callable[[Prediction], None],
        after: float,
        most: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predict = predict
        self._record = record
        self._after = after
        self._pause = 1.0 / most
        self._clock = clock
        self._made: collections.deque[_Scheduled] = collections.deque()

    @property
    def has_capacity(self) -> bool:
        """Whether a prediction that is scheduled now is repeated in time."""
        return len(self._made) < self._after / self._pause

    def schedule(self, prediction: Prediction) -> None:
        """Schedules the repetition of a recorded prediction, unless it is by a rule or from given features."""
        if not prediction.machine_id or prediction.row is None:
            return
        if len(self._made) >= _WAITING:
            self._made.popleft()
            metrics.prediction_rescored_total.labels("skipped").inc()
        # A row may be a part of the features of many machines, which it would keep in memory
        kept = replace(prediction, row=prediction.row.copy())
        self._made.append(_Scheduled(kept, self._clock() + self._after))

    async def run(self) -> None:
        """Repeats predictions that are due. Runs until cancelled."""
        while True:
            await asyncio.sleep(self._pause)
            if self._made and self._made[0].due <= self._clock():
                await self._rescore(self._made.popleft().prediction)

    async def _rescore(self, before: Prediction) -> None:
        """Repeats one prediction, counts the outcome, and passes the new prediction on if it differs."""
        try:
            # Uses only readings up to the moment of the first prediction
            answer = (await self._predict([before.machine_id], before.as_of_us + 1))[0]
        except AurumError as error:
            answer = error
        if isinstance(answer, AurumError):
            metrics.prediction_rescored_total.labels("failed").inc()
            logger.info("rescoring a past prediction failed; its first result remains: %s", answer.message)
            return
        if answer.row is None or before.row is None or answer.model_version != before.model_version:
            metrics.prediction_rescored_total.labels("other_model").inc()
            return
        if np.allclose(answer.row, before.row, rtol=_SAME, atol=0, equal_nan=True):
            metrics.prediction_rescored_total.labels("same").inc()
            return
        metrics.prediction_rescored_total.labels("changed").inc()
        self._record(answer)
