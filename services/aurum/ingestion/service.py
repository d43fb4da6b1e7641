"""The ingestion service: its store, its gRPC server and its readiness check."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from aurum.ingestion import metrics
from aurum.ingestion.follow_feed import FollowFeed
from aurum.ingestion.governed_store import GovernedStore
from aurum.ingestion.machine_state import MachineStates
from aurum.ingestion.plant_limits import PlantLimits
from aurum.ingestion.servicer import IngestionServicer
from aurum.ingestion.settings import IngestionSettings
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.store import Store
from aurum.ingestion.stored_gateways import StoredGateways
from aurum.readings.batch import Batch, now_us
from aurum.readings.transport.ingest_stream import add_ingestion_service
from aurum.runtime.errors import AurumError
from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.runtime.service import Service
from aurum.storage.ranks import Rank

if TYPE_CHECKING:
    from aurum.ingestion.cassandra.store import CassandraStore

from aurum.security.rpc_authorizer import rpc_authorizer
from aurum.security.source_limits import SourceLimits

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 1.0  # seconds between two reads of the changes by other replicas
_CHANGES_AT_ONCE = 500


@contextlib.asynccontextmanager
async def ingestion(service: Service[IngestionSettings]) -> AsyncGenerator[None]:
    """Serves the store. At the end, calls in progress finish first, then the batches that they queued."""
    settings = service.settings
    store = await asyncio.to_thread(open_store, settings)
    await store.start()
    try:
        feed = FollowFeed(settings.ingestion_feed_bytes, store.series)
        machine_states = MachineStates(
            PlantLimits(
                settings.ingestion_max_machines,
                settings.ingestion_max_sensors_per_machine,
                settings.ingestion_max_sensors_per_site,
            ),
            settings.ingestion_tail_readings,
            settings.ingestion_tail_bytes,
            shared=store.shared,
            on_registration=feed.note_machine,
            series=store.series,
        )
        governed = GovernedStore(store, service.policies, service.faults)
        stored_gateways = StoredGateways(governed, feed.gateways)
        await _load_states(store, machine_states, feed)
        feed.gateways.restore(await store.gateways())
        service.health.add_check("store", store.problem)
        metrics.ingestion_queue_bytes.set_function(lambda: store.waiting_bytes)
        servicer = IngestionServicer(
            governed,
            machine_states,
            SourceLimits(settings),
            settings.rpc_max_message_bytes,
            feed,
        )
        if store.shared:
            service.spawn(_follow_changes(store, machine_states), "store-changes")
        service.spawn(stored_gateways.run(), "stored-gateways")
        service.health.on_change(lambda serving: None if serving else servicer.stop())
        async with service.rpc_server(
            lambda server: add_ingestion_service(servicer, server),
            [INGESTION_SERVICE],
            settings.ingestion_host,
            settings.ingestion_port,
            setting="AURUM_INGESTION_PORT",
            authorizer=rpc_authorizer(settings, settings.ingestion_host, "AURUM_INGESTION_HOST"),
        ):
            yield
    finally:
        await store.close()


def open_store(settings: IngestionSettings) -> "SqliteStore | CassandraStore":
    """Opens the store that the settings name. Raises the errors of its class."""
    if settings.store_url and settings.store_url.startswith("cassandra://"):
        from aurum.ingestion.cassandra.session import parse_url  # noqa: PLC0415 - its driver is an extra
        from aurum.ingestion.cassandra.store import CassandraStore  # noqa: PLC0415

        password = settings.store_password.get_secret_value() if settings.store_password else None
        options = parse_url(
            settings.store_url,
            timeout=settings.timeout_db,
            username=settings.store_username,
            password=password,
            ca_file=settings.store_ca_file,
        )
        return CassandraStore(
            options,
            settings.ingestion_queue_bytes,
            settings.ingestion_retention_days,
            settings.ingestion_open_bytes,
        )
    local = SqliteOptions(
        settings.store_path,
        queue_bytes=settings.ingestion_queue_bytes,
        recent_bytes=settings.ingestion_recent_bytes,
        flush_seconds=settings.ingestion_flush_seconds,
        retention=settings.ingestion_retention_days,
        min_free_bytes=settings.ingestion_min_free_bytes,
        timeout=settings.timeout_db,
    )
    return SqliteStore(local)


async def _load_states(store: Store, machine_states: MachineStates, feed: FollowFeed) -> None:
    """Loads the states of all machines, and applies what other replicas store from now on to them and to the feed."""
    missed: list[tuple[Batch, Rank]] = []  # while the states are loaded

    def apply(batch: Batch, rank: Rank) -> None:
        machine_states.apply_batch(batch, now_us(), rank)
        feed.append_batch(batch)

    store.follow(lambda batch, rank: missed.append((batch, rank)))
    summaries = await store.summaries()
    machine_states.load(await store.list_machines(), summaries)  # listed last, so that no machine is missing
    store.follow(apply)
    for batch, rank in missed:
        apply(batch, rank)


async def _follow_changes(store: Store, machine_states: MachineStates) -> None:
    """Applies the changes by other replicas to the machine states, for as long as it runs."""
    while True:
        await asyncio.sleep(_FOLLOW_SECONDS)
        try:
            changes = await store.changes()
            for start in range(0, len(changes), _CHANGES_AT_ONCE):
                machine_states.apply_changes(changes[start : start + _CHANGES_AT_ONCE])
                await asyncio.sleep(0)  # gives other tasks a turn
        except AurumError as error:
            logger.warning("reading the changes by other replicas failed and is retried: %s", error.message)
