"""The edge gateway: serves the IngestionService to devices, with a spool and an uplink behind it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Iterable
from typing import Any

from aurum.edge.inputs.common.configuration import InputsError, InputsFile, load_inputs
from aurum.edge.inputs.supervisor import start_inputs
from aurum.edge.settings import EdgeSettings
from aurum.edge.spool import Spool, SpoolOptions
from aurum.readings import metrics
from aurum.readings.decoding import decode_batch
from aurum.readings.series_numbers import SeriesNumbers
from aurum.readings.transport.ingest_stream import BatchServicer, Written, add_ingestion_service
from aurum.readings.transport.query_columns import query_method
from aurum.readings.transport.uplink import Uplink
from aurum.runtime.errors import AurumError, InvalidArgumentError, UnimplementedError
from aurum.runtime.grpc.client import TAKEN_UP, Dependency
from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.runtime.service import Service
from aurum.runtime.settings import SettingsError
from aurum.runtime.telemetry.tracing import traceparent
from aurum.security.rpc_authorizer import (
    may_see_machine,
    require_machines,
    require_subject,
    required_owner,
    rpc_authorizer,
    with_caller_as_owner,
    without_hidden_readings,
)
from aurum.security.source_limits import SourceLimits
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

_ENVELOPE_BYTES = 4096  # bytes that forwarding may add to a batch: its owner, its trace, the enclosing message


class EdgeServicer(BatchServicer):
    """Spools batches of devices, and passes all other calls on to ingestion."""

    def __init__(self, spool: Spool, upstream: Dependency, sources: SourceLimits, max_message_bytes: int) -> None:
        """Creates the servicer. `max_message_bytes` is the largest message that ingestion accepts."""
        super().__init__()
        self._max_batch_bytes = max_message_bytes - _ENVELOPE_BYTES
        self._spool = spool
        self._upstream = upstream
        self._sources = sources
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(upstream.channel)
        self._query = query_method(upstream.channel)

    async def RegisterMachine(  # noqa: N802
        self, request: ingestion_pb2.RegisterMachineRequest, context: Any
    ) -> ingestion_pb2.RegisterMachineResponse:
        """Registers a machine of the caller at ingestion."""
        require_machines([request.machine_id])
        request.owner = required_owner(request.owner)
        idempotent = bool(request.request_id)
        response = await self._upstream.unary(self._stub.RegisterMachine, request, idempotent=idempotent)
        return ingestion_pb2.RegisterMachineResponse(machine=without_hidden_readings(response.machine))

    async def GetMachine(  # noqa: N802
        self, request: ingestion_pb2.GetMachineRequest, context: Any
    ) -> ingestion_pb2.GetMachineResponse:
        """Returns a machine of the caller from ingestion."""
        require_machines([request.machine_id])
        return await self._upstream.unary(self._stub.GetMachine, request)

    async def ListMachines(  # noqa: N802
        self, request: ingestion_pb2.ListMachinesRequest, context: Any
    ) -> ingestion_pb2.ListMachinesResponse:
        """Lists the machines that the caller may see."""
        while True:
            response = await self._upstream.unary(self._stub.ListMachines, request)
            visible = _visible(response.machines)
            if visible or not response.next_page_token:
                break
            request.page_token = response.next_page_token  # an empty page would reveal that other machines exist
        # The token of a page is its last machine id, so the next page starts after the last visible machine
        token = visible[-1].machine_id if visible and response.next_page_token else ""
        return ingestion_pb2.ListMachinesResponse(machines=visible, next_page_token=token)

    async def RecordEvents(  # noqa: N802
        self, request: ingestion_pb2.RecordEventsRequest, context: Any
    ) -> ingestion_pb2.RecordEventsResponse:
        """Records events about machines of the caller at ingestion."""
        for event in request.events:
            require_subject(event.machine_id)
        return await self._upstream.unary(self._stub.RecordEvents, request)

    async def ListEvents(  # noqa: N802
        self, request: ingestion_pb2.ListEventsRequest, context: Any
    ) -> ingestion_pb2.ListEventsResponse:
        """Lists events about a machine of the caller."""
        require_subject(request.machine_id)
        return await self._upstream.unary(self._stub.ListEvents, request)

    async def Query(  # noqa: N802
        self, request: ingestion_pb2.QueryRequest, context: Any
    ) -> AsyncGenerator[Any]:
        """Yields readings of machines of the caller from ingestion."""
        require_machines(request.machine_ids)
        async for response in self._upstream.relay(self._query, request):
            yield response

    async def Integrate(  # noqa: N802
        self, request: ingestion_pb2.IntegrateRequest, context: Any
    ) -> AsyncGenerator[ingestion_pb2.IntegrateResponse]:
        """Yields what meters of the caller's machines measured, from ingestion."""
        require_machines(request.machine_ids)
        async for response in self._upstream.relay(self._stub.Integrate, request):
            yield response

    async def Watch(  # noqa: N802
        self, request: ingestion_pb2.WatchRequest, context: Any
    ) -> AsyncGenerator[ingestion_pb2.WatchResponse]:
        """Yields changes of the machines that the caller may see, until the call ends."""
        require_machines(request.machine_ids)
        await context.send_initial_metadata(TAKEN_UP)
        is_first = True
        async for response in self._upstream.endless(self._stub.Watch, request):
            visible = _visible(response.machines)
            published = [
                each
                for each in zip(response.predictions, response.published_us, strict=True)
                if may_see_machine(each[0].machine_id)
            ]
            if visible or published or is_first:  # an empty one later would reveal that other machines have changed
                yield ingestion_pb2.WatchResponse(
                    machines=visible,
                    predictions=[prediction for prediction, _ in published],
                    published_us=[at for _, at in published],
                )
            is_first = False

    async def Follow(  # noqa: N802
        self, request: ingestion_pb2.FollowRequest, context: Any
    ) -> AsyncGenerator[ingestion_pb2.FollowResponse]:
        """Raises UnimplementedError: the readings of all gateways are followed at ingestion."""
        raise UnimplementedError("a gateway has no readings to follow; call Follow of ingestion")
        yield  # makes this a stream

    async def PublishPredictions(  # noqa: N802
        self, request: ingestion_pb2.PublishPredictionsRequest, context: Any
    ) -> ingestion_pb2.PublishPredictionsResponse:
        """Publishes predictions of machines of the caller at ingestion."""
        require_machines(prediction.machine_id for prediction in request.predictions)
        return await self._upstream.unary(self._stub.PublishPredictions, request)

    async def _accept(
        self, data: bytes, field: str, transport: str, numbers: SeriesNumbers, *, wait: bool
    ) -> Awaitable[Written]:
        """Checks and spools a batch. The returned awaitable completes when the batch is durable."""
        started = time.perf_counter()
        try:
            self._require_forwardable(data, field)
            batch = with_caller_as_owner(await decode_batch(data, field, numbers))
            del data  # another copy may have been made for the owner
            self._require_forwardable(batch.data, field)
            await self._sources.admit(batch, wait=wait)
            writing = await self._spool.put(batch, traceparent(), wait=wait)
        except AurumError as error:
            metrics.track_ingestion_error(error.reason, transport)
            raise
        return asyncio.shield(asyncio.ensure_future(_track_write(writing, transport, started)))

    def _require_forwardable(self, data: bytes, field: str) -> None:
        """Raises InvalidArgumentError if a batch is larger than a message to ingestion may be."""
        if len(data) > self._max_batch_bytes:
            raise InvalidArgumentError.for_field(
                field, f"has {len(data)} bytes; at most {self._max_batch_bytes} can be forwarded to ingestion"
            )


def _visible(machines: Iterable[ingestion_pb2.Machine]) -> list[ingestion_pb2.Machine]:
    """Returns the machines that the caller may see. Ingestion answers the gateway, which may see all."""
    return [machine for machine in machines if may_see_machine(machine.machine_id)]


async def _track_write(writing: Awaitable[Written], transport: str, started: float) -> Written:
    written = await writing
    metrics.track_ingestion(written.accepted, time.perf_counter() - started, transport, written.duplicate)
    return written


@contextlib.asynccontextmanager
async def gateway(
    service: Service[EdgeSettings],
    upstream_target: str | None = None,
    inputs: InputsFile | None = None,
    name: str = "",
) -> AsyncGenerator[EdgeServicer]:
    """Runs a gateway during the block: its spool, its uplinks, its gRPC server and its inputs.

    Args:
        service: The service.
        upstream_target: Where batches are sent; by default what the settings name.
        inputs: The inputs, if there are any.
        name: The name of the gateway; by default that of the settings.
    """
    settings = service.settings
    spool = await asyncio.to_thread(Spool, _spool_options(settings))
    await spool.start()
    try:
        upstream = service.dependency("ingestion", upstream_target or settings.uplink_target)
        name = name or settings.gateway_name
        lanes = {"live": Uplink(spool.live, upstream, name)}
        if settings.edge_live_first:
            lanes["backlog"] = Uplink(spool.backlog, upstream, name)
        service.health.add_check("spool", spool.problem)
        service.describe(
            "uplink_problem", lambda: next((lane.problem for lane in lanes.values() if lane.problem), None)
        )
        service.describe("gateway", lambda: name)
        limits = SourceLimits(settings)
        if inputs is not None:
            supervisor = start_inputs(inputs, service, spool, limits)
            service.describe("inputs", supervisor.state)
        servicer = EdgeServicer(spool, upstream, limits, settings.rpc_max_message_bytes)
        service.health.on_change(lambda serving: None if serving else servicer.stop())
        tasks = [
            *(service.spawn(lane.run(), f"uplink-{name}") for name, lane in lanes.items()),
            service.spawn(spool.run_expiry(), "spool-expiry"),
            service.spawn(spool.run_maintenance(), "spool-gauges"),
        ]
        try:
            async with service.rpc_server(
                lambda server: add_ingestion_service(servicer, server),
                [INGESTION_SERVICE],
                settings.edge_host,
                settings.edge_port,
                setting="AURUM_EDGE_PORT",
                authorizer=rpc_authorizer(settings, settings.edge_host, "AURUM_EDGE_HOST"),
            ):
                yield servicer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await spool.close()


def _spool_options(settings: EdgeSettings) -> SpoolOptions:
    return SpoolOptions(
        settings.spool_path,
        max_bytes=settings.edge_spool_max_bytes,
        max_age=settings.edge_spool_max_age,
        drop_oldest=settings.edge_spool_when_full == "drop_oldest",
        drain_bytes=settings.edge_drain_bytes,
        live_first=settings.edge_live_first,
        min_free_bytes=settings.edge_spool_min_free_bytes,
        dead_letter_bytes=settings.edge_dead_letter_max_bytes,
    )


@contextlib.asynccontextmanager
async def edge(service: Service[EdgeSettings]) -> AsyncGenerator[None]:
    """Runs the edge service."""
    path = service.settings.edge_inputs
    try:
        inputs = load_inputs(path) if path is not None else None
    except InputsError as error:
        raise SettingsError(f"AURUM_EDGE_INPUTS: {error}") from error
    async with gateway(service, inputs=inputs):
        yield
