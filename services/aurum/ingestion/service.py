"""The ingestion service: its store, its gRPC server, its readiness."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from aurum.ingestion.governed_store import GovernedStore
from aurum.ingestion.plant import Plant
from aurum.ingestion.servicer import IngestionServicer
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.readings.ingest_stream import SERVICE_NAME, add_ingestion_service
from aurum.runtime import metrics
from aurum.runtime.service import Service
from aurum.runtime.settings import Settings


@contextlib.asynccontextmanager
async def ingestion(service: Service) -> AsyncGenerator[None]:
    """Serves the store. At the end: first the calls in progress, then what they queued."""
    settings = service.settings
    store = await asyncio.to_thread(SqliteStore, _options(settings))
    await store.start()
    try:
        plant = Plant(settings.ingestion_max_machines, settings.ingestion_tail_readings, settings.ingestion_tail_bytes)
        plant.load(await store.machines(), await store.summaries())
        service.health.add_check("store", store.problem)
        metrics.ingestion_queue_bytes.set_function(lambda: store.waiting_bytes)
        servicer = IngestionServicer(GovernedStore(store, service.policies, service.faults), plant)
        service.health.on_change(lambda serving: None if serving else servicer.stop())
        async with service.rpc_server(
            lambda server: add_ingestion_service(servicer, server),
            [SERVICE_NAME],
            settings.ingestion_host,
            settings.ingestion_port,
            "AURUM_INGESTION_PORT",
        ):
            yield
    finally:
        await store.close()


def _options(settings: Settings) -> SqliteOptions:
    return SqliteOptions(
        settings.store_path,
        queue_bytes=settings.ingestion_queue_bytes,
        recent_bytes=settings.ingestion_recent_bytes,
        flush_seconds=settings.ingestion_flush_seconds,
        retention=settings.ingestion_retention_days,
        min_free_bytes=settings.ingestion_min_free_bytes,
        timeout=settings.timeout_db,
    )
