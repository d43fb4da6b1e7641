"""The latest prediction of each machine, as scorers publish them, for those who watch."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from aurum.ingestion import metrics
from aurum.readings.batch import machine_id_problem
from aurum.v1 import prediction_pb2

_MAX_BYTES = 16_384  # of a prediction


def prediction_problem(prediction: prediction_pb2.PredictResponse) -> tuple[str, str] | None:
    """Returns the field of a prediction that is wrong and what is wrong with it, or None."""
    if problem := machine_id_problem(prediction.machine_id):
        return "machine_id", problem
    for field in ("risk_score", "anomaly_score"):
        if not 0 <= getattr(prediction, field) <= 1:
            return field, f"is {getattr(prediction, field)}; must be from 0 to 1"
    if prediction.as_of_us < 0:
        return "as_of_us", "is before 1970"
    if (size := prediction.ByteSize()) > _MAX_BYTES:
        return "machine_id", f"{prediction.machine_id} has a prediction of {size} bytes; {_MAX_BYTES} are allowed"
    return None


class Published(NamedTuple):
    """A published prediction.

    Attributes:
        machine_id: The machine.
        version: The version at which it was published.
        as_of_us: The time of the latest reading that it is based on.
        published_us: The time at which it was published.
        data: The serialized PredictResponse. A message would keep its whole request in memory.
    """

    machine_id: str
    version: int
    as_of_us: int
    published_us: int
    data: bytes


class PublishedPredictions:
    """Keeps the latest prediction of each machine.

    Attributes:
        version: A number that increases with each change.
    """

    def __init__(self) -> None:
        self._latest: OrderedDict[str, Published] = OrderedDict()  # the latest change last
        self.version = 0

    def publish(self, prediction: prediction_pb2.PredictResponse, now: int) -> None:
        """Keeps the prediction of a known machine, unless it is based on older readings than the one that is kept.

        Args:
            prediction: The prediction.
            now: The time in µs since the epoch.
        """
        machine_id = prediction.machine_id
        before = self._latest.get(machine_id)
        if before is not None and prediction.as_of_us < before.as_of_us:
            metrics.ingestion_predictions_ignored_total.labels("old").inc()
            return
        data = prediction.SerializeToString()
        if before is not None and data == before.data:
            return  # published again, for instance by two scorers that overlap
        self.version += 1
        self._latest[machine_id] = Published(machine_id, self.version, prediction.as_of_us, now, data)
        if before is None:
            metrics.ingestion_predictions.set(len(self._latest))
        else:
            self._latest.move_to_end(machine_id)

    def changed_since(self, version: int) -> Iterator[Published]:
        """Yields the predictions that changed after `version`, the latest first."""
        for each in reversed(self._latest.values()):
            if each.version <= version:
                return
            yield each
