"""The ingestion service: its store, its gRPC server, its readiness."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from aurum.ingestion.governed_store import GovernedStore
from aurum.ingestion.plant import Plant
from aurum.ingestion.servicer import IngestionServicer
from aurum.ingestion.sqlite_store import SqliteStore
from aurum.runtime import metrics
from aurum.runtime.service import Service
from aurum.v1 import ingestion_pb2_grpc

SERVICE_NAME = "aurum.v1.IngestionService"


@contextlib.asynccontextmanager
async def ingestion(service: Service) -> AsyncGenerator[None]:
    """Serves the store. At the end: first the calls in progress, then what they queued."""
    settings = service.settings
    store = await asyncio.to_thread(
        SqliteStore, settings.store_path, settings.ingestion_queue_bytes, settings.timeout_db
    )
    await store.start()
    try:
        plant = Plant(settings.ingestion_max_machines, settings.ingestion_tail_readings)
        plant.load(await store.machines(), await store.summaries())
        service.health.add_check("store", store.problem)
        metrics.ingestion_queue_bytes.set_function(lambda: store.waiting_bytes)
        servicer = IngestionServicer(GovernedStore(store, service.policies, service.faults), plant)
        service.health.on_change(lambda serving: None if serving else servicer.stop())
        async with service.rpc_server(
            lambda server: ingestion_pb2_grpc.add_IngestionServiceServicer_to_server(servicer, server),
            [SERVICE_NAME],
            settings.ingestion_host,
            settings.ingestion_port,
            "AURUM_INGESTION_PORT",
        ):
            yield
    finally:
        await store.close()
