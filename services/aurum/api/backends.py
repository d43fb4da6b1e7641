"""Clients of the services behind the API. The resilience policies apply to every call."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurum.readings.limits import MAX_EVENTS
from aurum.readings.transport.query_columns import integrate_method, query_method
from aurum.readings.transport.recorded_events import list_events_after
from aurum.readings.transport.watch_machines import watch_method
from aurum.readings.transport.write_call import SerializedSeries, write_method, write_request
from aurum.resilience.policy import FallbackSpec
from aurum.runtime import damage
from aurum.runtime.errors import UnavailableError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.rpc_methods import INGESTION_SERVICE, PREDICTION_SERVICE
from aurum.v1 import columns_pb2, ingestion_pb2, ingestion_pb2_grpc, prediction_pb2, prediction_pb2_grpc

_MAX_SEARCHED = 20_000  # events that are searched for those that a caller may see


class _Backend:
    """A client of a gRPC service with a health check."""

    def __init__(self, dependency: Dependency, service: str) -> None:
        self._dependency = dependency
        self._health = health_pb2_grpc.HealthStub(dependency.channel)
        self._service = service

    async def check_health(self) -> None:
        """Checks the service's health. Raises AurumError if it does not serve."""
        request = health_pb2.HealthCheckRequest(service=self._service)
        answer = await self._dependency.unary(self._health.Check, request)  # type: ignore[attr-defined]
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise UnavailableError(f"{self._service} reports that it is not serving")


class IngestionBackend(_Backend):
    """Client of the ingestion service."""

    def __init__(self, dependency: Dependency) -> None:
        super().__init__(dependency, INGESTION_SERVICE)
        self._query = query_method(dependency.channel)
        self._integrate = integrate_method(dependency.channel)
        self._watch = watch_method(dependency.channel)
        self._write = write_method(dependency.channel)
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(dependency.channel)

    async def write_batch(
        self, source_id: str, sequence: int, owner: str, series: SerializedSeries
    ) -> ingestion_pb2.WriteResponse:
        """Writes a batch. It is idempotent, since source and sequence identify the batch. Raises AurumError."""
        return await self._dependency.unary(self._write, write_request(source_id, sequence, owner, series))

    async def query_readings(self, request: ingestion_pb2.QueryRequest) -> list[columns_pb2.QueriedColumns]:
        """Returns the requested series. Raises AurumError."""
        responses = await self._dependency.stream(self._query, request)
        return [series for response in responses for series in response.series]

    async def integrate_meters(self, request: ingestion_pb2.IntegrateRequest) -> list[columns_pb2.MeterColumns]:
        """Returns what meters measured.

        The first, empty response comes when ingestion has begun. From then on the call takes as long as the readings
        need, which are as many as the meters have sent.

        Raises:
            AurumError: Ingestion did not answer.
        """
        async with contextlib.aclosing(self._dependency.relay(self._integrate, request)) as responses:
            return [meter async for response in responses for meter in response.meters]

    async def register_machine(self, request: ingestion_pb2.RegisterMachineRequest) -> ingestion_pb2.Machine:
        """Registers a machine. It is idempotent if the request has an id. Raises AurumError."""
        response = await self._dependency.unary(
            self._stub.RegisterMachine, request, idempotent=bool(request.request_id)
        )
        return response.machine

    async def get_machine(self, machine_id: str) -> ingestion_pb2.Machine:
        """Returns a machine with the latest reading of each sensor. Raises AurumError."""
        request = ingestion_pb2.GetMachineRequest(machine_id=machine_id)
        return (await self._dependency.unary(self._stub.GetMachine, request)).machine

    async def list_machines(self, request: ingestion_pb2.ListMachinesRequest) -> ingestion_pb2.ListMachinesResponse:
        """Lists machines, combining pages until the requested page size is reached. Raises AurumError."""
        page_size = request.page_size
        answer = await self._dependency.unary(self._stub.ListMachines, request)
        while answer.next_page_token and len(answer.machines) < page_size:
            rest = ingestion_pb2.ListMachinesRequest()
            rest.CopyFrom(request)
            rest.page_size, rest.page_token = page_size - len(answer.machines), answer.next_page_token
            more = await self._dependency.unary(self._stub.ListMachines, rest)
            answer.machines.extend(more.machines)
            answer.next_page_token = more.next_page_token
        return answer

    async def list_predictions(
        self, machine_id: str, start_us: int, end_us: int, limit: int
    ) -> list[prediction_pb2.PredictResponse]:
        """Returns the recorded predictions of a machine, the newest first. Unreadable ones are omitted.

        Args:
            machine_id: The machine.
            start_us: Start of the range in µs since 1970.
            end_us: End of the range in µs since 1970.
            limit: Maximum number of predictions.

        Raises:
            AurumError: Ingestion did not answer.
        """
        events = await self.list_events("prediction", machine_id, start_us, end_us, limit)
        decoded = (_decode_prediction(event) for event in events)
        return [prediction for prediction in decoded if prediction is not None]

    async def record_events(self, events: Sequence[ingestion_pb2.Event]) -> None:
        """Records events. It is idempotent, since kind, machine, time and id identify an event. Raises AurumError."""
        await self._dependency.unary(self._stub.RecordEvents, ingestion_pb2.RecordEventsRequest(events=events))

    async def list_events(  # noqa: PLR0917
        self,
        kind: str,
        machine_id: str,
        start_us: int,
        end_us: int,
        limit: int,
        selects: Callable[[ingestion_pb2.Event], bool] | None = None,
    ) -> list[ingestion_pb2.Event]:
        """Returns events in a time range, the newest first.

        Args:
            kind: The kind of the events.
            machine_id: The machine; empty for events of the whole plant.
            start_us: Start of the range in µs since 1970.
            end_us: End of the range in µs since 1970.
            limit: Maximum number of events.
            selects: Whether to return an event, applied to the newest _MAX_SEARCHED; None for all.

        Raises:
            AurumError: Ingestion did not answer.
        """
        request = ingestion_pb2.ListEventsRequest(
            kind=kind, machine_id=machine_id, start_us=max(0, start_us), end_us=end_us, limit=min(limit, MAX_EVENTS)
        )
        events: list[ingestion_pb2.Event] = []
        searched = 0
        while True:
            answer = await self._dependency.unary(self._stub.ListEvents, request)
            events += answer.events if selects is None else [event for event in answer.events if selects(event)]
            searched += len(answer.events)
            if not answer.next_page_token or len(events) >= limit or searched >= _MAX_SEARCHED:
                return events[:limit]
            request.page_token = answer.next_page_token
            request.limit = min(limit - len(events), MAX_EVENTS) if selects is None else MAX_EVENTS

    async def list_event_page(self, request: ingestion_pb2.ListEventsRequest) -> ingestion_pb2.ListEventsResponse:
        """Returns a page of events. Raises AurumError."""
        response: ingestion_pb2.ListEventsResponse = await self._dependency.unary(self._stub.ListEvents, request)
        return response

    async def list_events_after(self, kind: str, number: int, limit: int) -> list[ingestion_pb2.Event]:
        """Returns events after an event number; see aurum.readings.transport.recorded_events."""
        return await list_events_after(self._dependency, self._stub, kind, number, limit)

    def watch_machines(self, interval_ms: int, *, predictions: bool) -> AsyncIterator[columns_pb2.WatchedMachines]:
        """Streams the state of all machines, then their changes. Raises AurumError when the stream breaks.

        Args:
            interval_ms: The minimum time between two responses.
            predictions: Whether to stream the latest predictions too.
        """
        request = ingestion_pb2.WatchRequest(interval_ms=interval_ms, predictions=predictions)
        return self._dependency.endless(self._watch, request)


class PredictionBackend(_Backend):
    """Client of the prediction service."""

    def __init__(self, dependency: Dependency) -> None:
        super().__init__(dependency, PREDICTION_SERVICE)
        self._stub = prediction_pb2_grpc.PredictionServiceStub(dependency.channel)

    @property
    def fallback_spec(self) -> FallbackSpec:
        """The fallback specification of the policy in force."""
        return self._dependency.pipeline("Predict").policy.fallback

    async def predict(self, request: prediction_pb2.PredictRequest) -> prediction_pb2.PredictResponse:
        """Returns the prediction for a machine or for given features. Raises AurumError."""
        return await self._dependency.unary(self._stub.Predict, request)

    async def list_models(self) -> prediction_pb2.ListModelsResponse:
        """Returns all model versions, and how far the training of the first ones is. Raises AurumError."""
        return await self._dependency.unary(self._stub.ListModels, prediction_pb2.ListModelsRequest())

    async def explain(self, request: prediction_pb2.ExplainRequest) -> prediction_pb2.ExplainResponse:
        """Returns a prediction with the features that contributed most. Raises AurumError."""
        return await self._dependency.unary(self._stub.Explain, request)


def _decode_prediction(event: ingestion_pb2.Event) -> prediction_pb2.PredictResponse | None:
    """Decodes a recorded prediction. Returns None and reports the damage if it cannot be read."""
    try:
        return prediction_pb2.PredictResponse.FromString(event.content)
    except DecodeError as error:
        name = f"prediction {event.id} of machine {event.machine_id} at {event.at_us}"
        damage.report("event", name, str(error), "it is left out of the history")
        return None
