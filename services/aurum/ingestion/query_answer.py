"""The messages that answer a Query. A message has several small series, each whole. All sizes are bounded."""

import numpy as np

from aurum.ingestion.store import Points
from aurum.readings.batch import Timestamps, Values
from aurum.runtime.errors import InvalidArgumentError
from aurum.v1 import columns_pb2

_READINGS_PER_MESSAGE = 4000  # after which a message is full
_ENVELOPE = 1024  # bytes of a message besides its series


class QueryAnswer:
    """Collects the series of an answer into messages.

    Args:
        max_readings: The limit on readings in the whole answer.
        max_message_bytes: The largest message that the caller accepts.
    """

    def __init__(self, max_readings: int, max_message_bytes: int) -> None:
        self._max_readings = max_readings
        self._max_series_bytes = max_message_bytes - _ENVELOPE
        self._readings = 0
        self._begin_message()

    def _begin_message(self) -> None:
        self._message = columns_pb2.QueriedResponse()
        self._held = 0
        self._times: Timestamps | None = None  # times of the previous series in the message

    def add_series(self, machine_id: str, sensor: str, points: Points) -> None:
        """Adds a series to the message. Raises InvalidArgumentError if the answer or the series is too large."""
        count = len(points.timestamps)
        if not count:
            return
        self._readings += count
        if self._readings > self._max_readings:
            raise InvalidArgumentError.for_field(
                "points",
                f"the answer has more than {self._max_readings} readings; ask for fewer sensors, a shorter range, or "
                f"fewer points",
            )
        same = self._times is not None and np.array_equal(self._times, points.timestamps)
        series = _series_message(machine_id, sensor, points, with_times=not same)
        if series.ByteSize() > self._max_series_bytes:
            raise InvalidArgumentError.for_field(
                "points",
                f"{count} readings of machine {machine_id}, sensor {sensor} do not fit into {self._max_series_bytes} "
                f"bytes; ask for a shorter range, or fewer points",
            )
        self._message.series.append(series)
        self._times = points.timestamps
        self._held += count

    @property
    def full(self) -> bool:
        """Whether the message is large enough to be sent."""
        return self._held >= _READINGS_PER_MESSAGE

    def take_message(self) -> columns_pb2.QueriedResponse | None:
        """Returns the message, or None if it is empty, and begins the next."""
        message = self._message if self._held else None
        self._begin_message()
        return message


def _series_message(machine_id: str, sensor: str, points: Points, *, with_times: bool) -> columns_pb2.QueriedColumns:
    message = columns_pb2.QueriedColumns(machine_id=machine_id, sensor=sensor, values=_bytes(points.values))
    if with_times:
        message.timestamps_us = points.timestamps.astype("<i8", copy=False).tobytes()
    if points.minima is not None and points.maxima is not None and points.counts is not None:
        message.minima = _bytes(points.minima)
        message.maxima = _bytes(points.maxima)
        message.counts.extend(points.counts.tolist())
    return message


def _bytes(values: Values) -> bytes:
    return values.astype("<f8", copy=False).tobytes()
