"""Both ends of Query's answers: a column travels as one piece of memory, see columns.proto."""

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import numpy as np

from aurum.readings.batch import Timestamps, Values
from aurum.v1 import columns_pb2, ingestion_pb2

TOO_MANY_SERIES = "TOO_MANY_SERIES"  # why a Query is refused that would be answered in several


def query_method(channel: grpc.aio.Channel) -> Any:
    """Query of the IngestionService, answered by QueriedResponse."""
    return channel.unary_stream(
        "/aurum.v1.IngestionService/Query",
        request_serializer=ingestion_pb2.QueryRequest.SerializeToString,
        response_deserializer=columns_pb2.QueriedResponse.FromString,
    )


def columns(
    series: Iterable[columns_pb2.QueriedColumns],
) -> Iterator[tuple[columns_pb2.QueriedColumns, Timestamps, Values]]:
    """Each series of one answer with its times, which are in the message only where they change, and its values."""
    times: Timestamps = np.empty(0, np.int64)
    for each in series:
        if each.timestamps_us:
            times = np.frombuffer(each.timestamps_us, "<i8")
        yield each, times, floats(each.values)


def floats(column: bytes) -> Values:
    """The numbers of a column."""
    return np.frombuffer(column, "<f8")
