"""Client side of Query and Integrate. The columns of an answer are blocks of bytes; see columns.proto."""

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import numpy as np

from aurum.readings.batch import Timestamps, Values
from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.v1 import columns_pb2, ingestion_pb2

TOO_MANY_SERIES = "TOO_MANY_SERIES"  # reason for refusing a Query that must be split


def query_method(channel: grpc.aio.Channel) -> Any:
    """Returns the client call of IngestionService.Query, with QueriedResponse as answers."""
    return channel.unary_stream(
        f"/{INGESTION_SERVICE}/Query",
        request_serializer=ingestion_pb2.QueryRequest.SerializeToString,
        response_deserializer=columns_pb2.QueriedResponse.FromString,
    )


def integrate_method(channel: grpc.aio.Channel) -> Any:
    """Returns the client call of IngestionService.Integrate, with IntegratedResponse as answers."""
    return channel.unary_stream(
        f"/{INGESTION_SERVICE}/Integrate",
        request_serializer=ingestion_pb2.IntegrateRequest.SerializeToString,
        response_deserializer=columns_pb2.IntegratedResponse.FromString,
    )


def decode_columns(
    series: Iterable[columns_pb2.QueriedColumns],
) -> Iterator[tuple[columns_pb2.QueriedColumns, Timestamps, Values]]:
    """Yields each series of one answer with its times and values.

    A message contains times only where they differ from those of the series before.
    """
    times: Timestamps = np.empty(0, np.int64)
    for each in series:
        if each.timestamps_us:
            times = np.frombuffer(each.timestamps_us, "<i8")
        yield each, times, decode_floats(each.values)


def decode_floats(column: bytes) -> Values:
    """Decodes a column of float64 values."""
    return np.frombuffer(column, "<f8")
