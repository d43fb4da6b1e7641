"""Reads events by their numbers from ingestion."""

from aurum.readings.limits import MAX_EVENTS
from aurum.runtime.grpc.client import Dependency
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

_OVERLAP = 5_000_000  # event numbers derive from clocks in µs; the clocks of a store's replicas may differ by so much


async def list_events_after(
    ingestion: Dependency, stub: "ingestion_pb2_grpc.IngestionServiceAsyncStub", kind: str, number: int, limit: int
) -> list[ingestion_pb2.Event]:
    """Returns events of the whole plant that were recorded after an event number, in the order of their numbers.

    The replicas of a shared store number events by their own clocks. Therefore some earlier events are returned as
    well.

    Args:
        ingestion: Ingestion.
        stub: Its stub.
        kind: The kind of the events.
        number: The number after which events are returned.
        limit: Maximum number of events. If there are more, the newest are returned.

    Raises:
        AurumError: Ingestion did not answer.
    """
    request = ingestion_pb2.ListEventsRequest(kind=kind, by_number=True, after_number=max(0, number - _OVERLAP))
    events: list[ingestion_pb2.Event] = []
    while True:
        request.limit = min(MAX_EVENTS, limit - len(events))
        answer = await ingestion.unary(stub.ListEvents, request)
        events += answer.events
        if not answer.next_page_token or len(events) >= limit:
            return events[::-1]
        request.page_token = answer.next_page_token
