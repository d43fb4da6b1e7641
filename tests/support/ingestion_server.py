"""The ingestion service in the process of a test: a real store, servicer and gRPC server."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from aurum.ingestion.follow_feed import FollowFeed
from aurum.ingestion.machine_state import MachineStates
from aurum.ingestion.plant_limits import PlantLimits
from aurum.ingestion.servicer import IngestionServicer
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.readings.batch import Series, encode
from aurum.readings.transport.follow_columns import follow_method
from aurum.readings.transport.ingest_stream import add_ingestion_service
from aurum.resilience import ConcurrencyLimit
from aurum.runtime.faults import Faults
from aurum.runtime.grpc.server import rpc_server
from aurum.runtime.health import Health
from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.runtime.settings import Settings
from aurum.security.settings import SenderSettings
from aurum.security.source_limits import SourceLimits
from aurum.v1 import columns_pb2, ingestion_pb2, ingestion_pb2_grpc


@dataclass
class IngestionServer:
    """A running service and a client of it."""

    servicer: IngestionServicer
    channel: grpc.aio.Channel
    sequence: int = 0

    @property
    def stub(self) -> "ingestion_pb2_grpc.IngestionServiceAsyncStub":
        return ingestion_pb2_grpc.IngestionServiceStub(self.channel)  # type: ignore[return-value]

    async def write(self, series: Sequence[Series]) -> None:
        self.sequence += 1
        await self.stub.Write(ingestion_pb2.WriteRequest(batch=encode("source", self.sequence, series)))

    def follow(
        self, position: str = "", members: Sequence[str] = (), member: str = "", heartbeat_ms: int = 0
    ) -> "grpc.aio.UnaryStreamCall[ingestion_pb2.FollowRequest, columns_pb2.FollowedReadings]":
        request = ingestion_pb2.FollowRequest(
            members=members, member=member, position=position, interval_ms=50, heartbeat_ms=heartbeat_ms
        )
        call: grpc.aio.UnaryStreamCall[ingestion_pb2.FollowRequest, columns_pb2.FollowedReadings]
        call = follow_method(self.channel)(request)
        return call


@contextlib.asynccontextmanager
async def ingestion_server(
    folder: Path, feed_bytes: int = 1_000_000, max_message_bytes: int = 4_000_000
) -> AsyncIterator[IngestionServer]:
    store = SqliteStore(SqliteOptions(folder / "store.db", min_free_bytes=0))
    await store.start()
    feed = FollowFeed(feed_bytes)
    machines = MachineStates(PlantLimits(), 16, 1_000_000, on_registration=feed.note_machine)
    machines.load(await store.list_machines(), await store.summaries())
    servicer = IngestionServicer(store, machines, SourceLimits(SenderSettings()), max_message_bytes, feed)
    health = Health()
    health.on_change(lambda serving: None if serving else servicer.stop())
    try:
        async with (
            rpc_server(
                lambda server: add_ingestion_service(servicer, server),
                [INGESTION_SERVICE],
                host="127.0.0.1",
                port=0,
                setting="X",
                settings=Settings(shutdown_grace=0.2),
                health_state=health,
                limits=(ConcurrencyLimit("calls", 64), ConcurrencyLimit("streams", 64)),
                faults=Faults(False),
                authorizer=None,
            ) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield IngestionServer(servicer, channel)
            servicer.stop()
    finally:
        await store.close()
