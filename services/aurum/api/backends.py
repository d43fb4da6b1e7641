"""The services behind the API, as plain coroutines: every call is under the resilience policies."""

from collections.abc import AsyncIterator, Callable, Sequence

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurum.readings.queried import query_method
from aurum.resilience.policy import FallbackSpec
from aurum.runtime import damage
from aurum.runtime.errors import UnavailableError
from aurum.runtime.rpc_client import Dependency
from aurum.v1 import columns_pb2, ingestion_pb2, ingestion_pb2_grpc, prediction_pb2, prediction_pb2_grpc

_PAGE = 1000  # events
_OVERLAP = 5_000_000  # numbers, in µs, by which the clocks of a store's replicas may differ
_MOST_SEARCHED = 20_000  # events, for those that a caller may see


class _Backend:
    def __init__(self, dependency: Dependency, service: str) -> None:
        self._dependency = dependency
        self._health = health_pb2_grpc.HealthStub(dependency.channel)
        self._service = service

    async def check(self) -> None:
        """Raises AurumError if the service does not answer that it serves."""
        request = health_pb2.HealthCheckRequest(service=self._service)
        answer = await self._dependency.unary(self._health.Check, request)  # type: ignore[attr-defined]
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise UnavailableError(f"{self._service} does not serve at the moment")


class IngestionBackend(_Backend):
    def __init__(self, dependency: Dependency) -> None:
        super().__init__(dependency, "aurum.v1.IngestionService")
        self._query = query_method(dependency.channel)
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(dependency.channel)

    async def write(self, batch: ingestion_pb2.Batch) -> ingestion_pb2.WriteResponse:
        """Safe to repeat: the store knows the batch by its source and sequence."""
        return await self._dependency.unary(self._stub.Write, ingestion_pb2.WriteRequest(batch=batch))

    async def query(self, request: ingestion_pb2.QueryRequest) -> list[columns_pb2.QueriedColumns]:
        responses = await self._dependency.stream(self._query, request)
        return [series for response in responses for series in response.series]

    async def register(self, request: ingestion_pb2.RegisterMachineRequest) -> ingestion_pb2.Machine:
        response = await self._dependency.unary(
            self._stub.RegisterMachine, request, idempotent=bool(request.request_id)
        )
        return response.machine

    async def machine(self, machine_id: str) -> ingestion_pb2.Machine:
        request = ingestion_pb2.GetMachineRequest(machine_id=machine_id)
        return (await self._dependency.unary(self._stub.GetMachine, request)).machine

    async def machines(self, request: ingestion_pb2.ListMachinesRequest) -> ingestion_pb2.ListMachinesResponse:
        """As many machines as are asked for, if there are so many."""
        wanted = request.page_size
        answer = await self._dependency.unary(self._stub.ListMachines, request)
        while answer.next_page_token and len(answer.machines) < wanted:
            rest = ingestion_pb2.ListMachinesRequest()
            rest.CopyFrom(request)
            rest.page_size, rest.page_token = wanted - len(answer.machines), answer.next_page_token
            more = await self._dependency.unary(self._stub.ListMachines, rest)
            answer.machines.extend(more.machines)
            answer.next_page_token = more.next_page_token
        return answer

    async def predictions(
        self, machine_id: str, start_us: int, end_us: int, limit: int
    ) -> list[prediction_pb2.PredictResponse]:
        """What was predicted of a machine, the newest first."""
        events = await self.events("prediction", machine_id, start_us, end_us, limit)
        read = (_prediction(event) for event in events)
        return [prediction for prediction in read if prediction is not None]

    async def record(self, events: Sequence[ingestion_pb2.Event]) -> None:
        """Safe to repeat: an event is known by its kind, machine, time and id."""
        await self._dependency.unary(self._stub.RecordEvents, ingestion_pb2.RecordEventsRequest(events=events))

    async def events(  # noqa: PLR0917
        self,
        kind: str,
        machine_id: str,
        start_us: int,
        end_us: int,
        limit: int,
        wanted: Callable[[ingestion_pb2.Event], bool] | None = None,
    ) -> list[ingestion_pb2.Event]:
        """As many as are asked for, the newest first; of those that are wanted, within the newest _MOST_SEARCHED."""
        request = ingestion_pb2.ListEventsRequest(
            kind=kind, machine_id=machine_id, start_us=max(0, start_us), end_us=end_us, limit=limit
        )
        events: list[ingestion_pb2.Event] = []
        searched = 0
        while True:
            answer = await self._dependency.unary(self._stub.ListEvents, request)
            events += answer.events if wanted is None else [event for event in answer.events if wanted(event)]
            searched += len(answer.events)
            if not answer.next_page_token or len(events) >= limit or searched >= _MOST_SEARCHED:
                return events[:limit]
            request.page_token = answer.next_page_token
            request.limit = limit - len(events) if wanted is None else _PAGE

    async def events_after(self, kind: str, number: int, most: int) -> list[ingestion_pb2.Event]:
        """Events of the plant as a whole recorded after that of a number, in their order; the newest if there are more
        than `most`. Some from before may be among them, since replicas of a shared store number by their own clocks."""
        request = ingestion_pb2.ListEventsRequest(kind=kind, by_number=True, after_number=max(0, number - _OVERLAP))
        events: list[ingestion_pb2.Event] = []
        while True:
            request.limit = min(_PAGE, most - len(events))
            answer = await self._dependency.unary(self._stub.ListEvents, request)
            events += answer.events
            if not answer.next_page_token or len(events) >= most:
                return events[::-1]
            request.page_token = answer.next_page_token

    def watch(self, interval_ms: int) -> AsyncIterator[ingestion_pb2.WatchResponse]:
        """The state of all machines, then what changes, without end. Raises AurumError when the stream breaks."""
        request = ingestion_pb2.WatchRequest(interval_ms=interval_ms)
        return self._dependency.endless(self._stub.Watch, request)


class PredictionBackend(_Backend):
    def __init__(self, dependency: Dependency) -> None:
        super().__init__(dependency, "aurum.v1.PredictionService")
        self._stub = prediction_pb2_grpc.PredictionServiceStub(dependency.channel)

    @property
    def fallback(self) -> FallbackSpec:
        """What may answer in place of a prediction, by the policy in force."""
        return self._dependency.pipeline("Predict").policy.fallback

    async def predict(self, request: prediction_pb2.PredictRequest) -> prediction_pb2.PredictResponse:
        return await self._dependency.unary(self._stub.Predict, request)

    async def predict_batch(self, machine_ids: Sequence[str]) -> list[prediction_pb2.PredictBatchItem]:
        request = prediction_pb2.PredictBatchRequest(
            requests=[prediction_pb2.PredictRequest(machine_id=machine_id) for machine_id in machine_ids]
        )

        async def requests() -> AsyncIterator[prediction_pb2.PredictBatchRequest]:
            yield request

        responses = await self._dependency.stream(self._stub.PredictBatch, requests)
        return [item for response in responses for item in response.items]

    async def models(self) -> list[prediction_pb2.Model]:
        response = await self._dependency.unary(self._stub.ListModels, prediction_pb2.ListModelsRequest())
        return list(response.models)

    async def explain(self, request: prediction_pb2.ExplainRequest) -> prediction_pb2.ExplainResponse:
        return await self._dependency.unary(self._stub.Explain, request)


def _prediction(event: ingestion_pb2.Event) -> prediction_pb2.PredictResponse | None:
    """The prediction that was recorded; None if it cannot be read."""
    try:
        return prediction_pb2.PredictResponse.FromString(event.content)
    except DecodeError as error:
        name = f"prediction {event.id} of machine {event.machine_id} at {event.at_us}"
        damage.report("event", name, str(error), "it is left out of the history")
        return None
