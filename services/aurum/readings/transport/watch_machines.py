"""Client side of Watch. Each machine and prediction of a response is parsed by itself.

A message that is kept would otherwise keep the whole response in memory.
"""

from collections.abc import Iterator
from typing import Any

import grpc

from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.v1 import columns_pb2, ingestion_pb2, prediction_pb2


def watch_method(channel: grpc.aio.Channel) -> Any:
    """Returns the client call of IngestionService.Watch, with WatchedMachines as responses."""
    return channel.unary_stream(
        f"/{INGESTION_SERVICE}/Watch",
        request_serializer=ingestion_pb2.WatchRequest.SerializeToString,
        response_deserializer=columns_pb2.WatchedMachines.FromString,
    )


def watched_machines(response: columns_pb2.WatchedMachines) -> Iterator[ingestion_pb2.Machine]:
    """Yields the machines of a response."""
    return map(ingestion_pb2.Machine.FromString, response.machines)


def watched_predictions(
    response: columns_pb2.WatchedMachines,
) -> Iterator[tuple[prediction_pb2.PredictResponse, int]]:
    """Yields the predictions of a response with the times at which they were published, in µs since the epoch.

    Raises:
        ValueError: Not every prediction has a time.
    """
    return zip(map(prediction_pb2.PredictResponse.FromString, response.predictions), response.published_us, strict=True)
