"""Sends the batches of a stream with numbers for series, which takes about a quarter of the bytes in a wide plant."""

import numpy as np

from aurum.readings.batch import Batch, Numbers, SeriesKey
from aurum.readings.batch_decoding import decode, parse_request
from aurum.readings.batch_layouts import first_series_bytes, read_head
from aurum.readings.series_numbers import MAX_NUMBERS
from aurum.runtime.errors import AurumError
from aurum.v1 import columns_pb2, ingestion_pb2

_LEAST_SERIES = 16  # of a batch, below which names take little
_MOST_READINGS = 4  # of a series, on average, above which names take little
_LONG_SERIES = 300  # bytes of the first series; a batch with more is sent as it is, without looking at the others
_END_OF_TIME = 2**62  # µs; the server checks the times


class NumberedBatches:
    """Gives numbers to the series of one stream, and writes its batches with them."""

    def __init__(self, most: int = MAX_NUMBERS) -> None:
        """Starts without numbers. most: How many numbers a stream may define."""
        self._most = most
        self._count = 0
        self._numbers: dict[str, dict[SeriesKey, int]] = {}  # by source

    def request_of(self, request: bytes) -> bytes:
        """Returns a serialized IngestRequest with numbers for series if that is shorter, else as it is."""
        try:
            parsed = parse_request(request)
            head = read_head(parsed.batch)
            if head is not None and first_series_bytes(parsed.batch, head) > _LONG_SERIES:
                return request
            batch = decode(parsed.batch, now=_END_OF_TIME)
        except AurumError:  # the server says what is wrong with it
            return request
        if len(batch.keys) < _LEAST_SERIES or batch.readings > _MOST_READINGS * len(batch.keys):
            return request
        numbers = self._numbers.setdefault(batch.source_id, {})
        new = [key for key in batch.keys.keys if key not in numbers]
        if self._count + len(new) > self._most:
            return request
        for key in new:
            numbers[key] = self._count
            self._count += 1
        message = _message(batch, np.array([numbers[key] for key in batch.keys.keys], np.int32))
        message.columns.defined = _definitions(numbers, new)
        whole = columns_pb2.BatchRequest(batch=message.SerializeToString(), traceparent=parsed.traceparent)
        return whole.SerializeToString()


def _message(batch: Batch, numbers: Numbers) -> columns_pb2.BatchColumns:
    """Returns a batch in columns."""
    rows = numbers if batch.readings == len(numbers) else np.repeat(numbers, batch.lengths)
    times = batch.timestamps[:1] if (batch.timestamps == batch.timestamps[0]).all() else batch.timestamps
    return columns_pb2.BatchColumns(
        source_id=batch.source_id,
        sequence=batch.sequence,
        owner=batch.owner,
        columns=columns_pb2.ReadingBlock(
            numbers=rows.astype("<u4").tobytes(),
            timestamps_us=times.astype("<i8", copy=False).tobytes(),
            values=batch.values.astype("<f8", copy=False).tobytes(),
        ),
    )


def _definitions(numbers: dict[SeriesKey, int], new: list[SeriesKey]) -> bytes:
    """Returns a serialized SeriesTable of new series."""
    table = ingestion_pb2.SeriesTable(
        series=[ingestion_pb2.NumberedSeries(number=numbers[key], machine_id=key[0], sensor=key[1]) for key in new]
    )
    return table.SerializeToString()
