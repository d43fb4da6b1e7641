"""The client side of Write. A batch is serialized once, in the form that the store's log keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from aurum.readings.batch import Series, encode_series
from aurum.v1 import columns_pb2, ingestion_pb2


@dataclass(frozen=True, slots=True)
class SerializedSeries:
    """The series of a batch whose source is not decided yet.

    Attributes:
        machine_ids: The machines of the readings, each once.
        data: The serialized series, as the field `series` of the message aurum.v1.Batch.
    """

    machine_ids: tuple[str, ...]
    data: bytes

    @classmethod
    def from_series(cls, series: Sequence[Series]) -> "SerializedSeries":
        """Serializes series."""
        return cls(tuple(dict.fromkeys(each.machine_id for each in series)), encode_series(series))


def write_request(source_id: str, sequence: int, owner: str, series: SerializedSeries) -> bytes:
    """Returns a serialized WriteRequest.

    Args:
        source_id: The source of the batch.
        sequence: The number of the batch within its source.
        owner: The owner of the source.
        series: The readings. They are copied as they are, since fields of a message may be serialized separately.
    """
    identity = columns_pb2.BatchColumns(source_id=source_id, sequence=sequence).SerializeToString()
    batch = b"".join([identity, series.data, columns_pb2.BatchColumns(owner=owner).SerializeToString()])
    return columns_pb2.BatchRequest(batch=batch).SerializeToString()


def write_method(channel: grpc.aio.Channel) -> Any:
    """Returns the client call of IngestionService.Write, which takes serialized requests."""
    return channel.unary_unary(
        "/aurum.v1.IngestionService/Write",
        request_serializer=None,
        response_deserializer=ingestion_pb2.WriteResponse.FromString,
    )
