"""Client side of Follow. The columns of a response are blocks of bytes; see columns.proto."""

from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Timestamps, Values
from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.v1 import columns_pb2, ingestion_pb2

SeriesNumbers = npt.NDArray[np.uint32]


def follow_method(channel: grpc.aio.Channel) -> Any:
    """Returns the client call of IngestionService.Follow, with FollowedReadings as responses."""
    return channel.unary_stream(
        f"/{INGESTION_SERVICE}/Follow",
        request_serializer=ingestion_pb2.FollowRequest.SerializeToString,
        response_deserializer=columns_pb2.FollowedReadings.FromString,
    )


def decode_readings(block: columns_pb2.ReadingBlock) -> tuple[SeriesNumbers, Timestamps, Values]:
    """Returns the columns of a response: the number of the series, the time in µs and the value of each reading.

    The arrays share the memory of the message and are read-only.

    Raises:
        ValueError: The columns have different lengths.
    """
    numbers = np.frombuffer(block.numbers, "<u4")
    timestamps = np.frombuffer(block.timestamps_us, "<i8")
    values = np.frombuffer(block.values, "<f8")
    if len(timestamps) == 1 < len(values):
        timestamps = np.broadcast_to(timestamps, len(values))
    if not len(numbers) == len(timestamps) == len(values):
        raise ValueError(f"{len(numbers)} numbers, {len(timestamps)} times and {len(values)} values do not match")
    return numbers, timestamps, values


def decode_definitions(block: columns_pb2.ReadingBlock) -> list[tuple[int, str, str]]:
    """Returns the number, machine and sensor of each series that a response defines."""
    table = ingestion_pb2.SeriesTable.FromString(block.defined)
    return [(each.number, each.machine_id, each.sensor) for each in table.series]


def decode_machines(response: columns_pb2.FollowedReadings) -> list[ingestion_pb2.Machine]:
    """Returns the machines of a response."""
    return [ingestion_pb2.Machine.FromString(each) for each in response.machines]


def decode_gateways(response: columns_pb2.FollowedReadings) -> list[ingestion_pb2.Gateway]:
    """Returns the gateways of a response."""
    return [ingestion_pb2.Gateway.FromString(each) for each in response.gateways]
