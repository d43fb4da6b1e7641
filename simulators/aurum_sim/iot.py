"""iot-sim: the devices of a simulated plant, which send to a gateway or directly to ingestion."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from aurum.readings.batch import new_source_id, now_us
from aurum.readings.transport.uplink import Uplink
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.service import Body, Service
from aurum.runtime.settings import Settings
from aurum.runtime.telemetry.tracing import traced_operation
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from aurum_sim.fleet import Fleet
from aurum_sim.outbox import MemoryOutbox
from aurum_sim.past_import import PastImport, PastOptions
from aurum_sim.peers.peer import Peer, Sample

logger = logging.getLogger(__name__)

_BUFFER_BATCHES = 2000
_MAX_REGISTRATIONS = 16
_MAX_CATCH_UP = 30  # readings that are sent at once after the process was delayed


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Options of a simulated fleet.

    Attributes:
        machines: Number of machines.
        rate: Readings per second and sensor.
        speed_up: Seconds of machine life per second.
        seed: Seed of all random numbers.
        site: The site under which the machines are registered.
        prefix: Prefix of the machine ids.
        backfill: Readings of each sensor that are generated for the time before the start, if the store has none.
        types: The machine types; all if empty.
        past: The past that the machines get in an empty store; None for none.
    """

    machines: int = 40
    rate: float = 1.0
    speed_up: float = 600.0
    seed: int = 7
    site: str = "plant-a"
    prefix: str = ""
    backfill: int = 120
    types: tuple[str, ...] = field(default=())
    past: PastOptions | None = None


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How devices send instead of by gRPC.

    Attributes:
        peer: The implementation of the protocol.
        inputs: File to which the matching gateway configuration is written.
    """

    peer: Peer
    inputs: Path | None = None


@contextlib.asynccontextmanager
async def devices(
    service: Service[Settings], target: Dependency, options: FleetOptions, peer_options: PeerOptions | None = None
) -> AsyncGenerator[Fleet]:
    """Runs the devices of a fleet during the block. The machines are registered at the target for each protocol.

    Args:
        service: The service that runs the devices.
        target: The gateway or ingestion.
        options: Options of the fleet.
        peer_options: The protocol; None for gRPC.

    Raises:
        ValueError: If an option is invalid.
    """
    source_id = new_source_id(service.name)
    fleet = Fleet(options.machines, options.seed, source_id, options.prefix, options.types)
    if peer_options is not None:
        await peer_options.peer.open(fleet.sensors)
        if peer_options.inputs is not None:
            peer_options.inputs.write_text(
                yaml.safe_dump({"inputs": [peer_options.peer.inputs()]}, sort_keys=False), encoding="utf-8"
            )
        past = _past_of(service, fleet, options)
        service.spawn(_send_by_peer(fleet, peer_options.peer, target, options, past), "devices")
        try:
            yield fleet
        finally:
            await peer_options.peer.close()
        return
    outbox = MemoryOutbox(_BUFFER_BATCHES)
    uplink = Uplink(outbox, target)
    service.health.add_check("uplink", lambda: uplink.problem)
    service.spawn(uplink.run(), "device-uplink")
    past = _past_of(service, fleet, options)
    service.spawn(_produce(fleet, outbox, target, options, past), "devices")
    yield fleet


def _past_of(service: Service[Settings], fleet: Fleet, options: FleetOptions) -> PastImport | None:
    """Returns the import of the past, which the service waits for before it is ready; None if there is none."""
    if options.past is None:
        return None
    ingestion = service.dependency("ingestion", service.settings.ingestion_target)
    past = PastImport(service.name, fleet, options.site, options.seed, options.past, ingestion)
    service.health.add_check("past", lambda: None if past.ended else "the past of the plant is imported")
    return past


async def _produce(
    fleet: Fleet, outbox: MemoryOutbox, target: Dependency, options: FleetOptions, past: PastImport | None
) -> None:
    if past is not None:
        await past.run()
    hours = options.speed_up / options.rate / 3600
    period_us = int(1e6 / options.rate)
    unregistered, newest_us = await _register(fleet.machines, target, options.site)
    registering: asyncio.Task[None] | None = None
    if unregistered:
        registering = asyncio.create_task(_register_rest(unregistered, target, options.site))
    else:
        _backfill(fleet, outbox, options, hours, newest_us)
    next_us = now_us()
    pause = 0.0
    while True:
        due = min(_MAX_CATCH_UP, max(1, (now_us() - next_us) // period_us + 1))
        times_us = [next_us + index * period_us for index in range(due)]
        batches = 0
        for batch in fleet.advance(hours, times_us):
            outbox.put(batch.message, batch.readings)
            batches += 1
            await asyncio.sleep(pause)
        pause = 0.8 / options.rate / batches  # spreads the batches over the period
        next_us = max(times_us[-1] + period_us, now_us() - _MAX_CATCH_UP * period_us)
        await asyncio.sleep(max(0.0, (next_us - now_us()) / 1e6))
        if registering and registering.done():
            registering.result()
            registering = None


async def _send_by_peer(
    fleet: Fleet, peer: Peer, target: Dependency, options: FleetOptions, past: PastImport | None
) -> None:
    """Sends readings by another protocol than gRPC. There is no backfill, since such devices keep no history."""
    if past is not None:
        await past.run()
    hours = options.speed_up / options.rate / 3600
    registering = asyncio.create_task(_register_rest(fleet.machines, target, options.site))
    due = time.monotonic()
    while True:
        for batch in fleet.advance(hours, [now_us()]):
            await peer.send(_samples(batch.message))
        due = max(due + 1 / options.rate, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        if registering.done():
            registering.result()


def _samples(batch: ingestion_pb2.Batch) -> list[Sample]:
    values_by_sample: dict[tuple[str, int], dict[str, float]] = {}
    for series in batch.series:
        for at, value in zip(series.timestamps_us, series.values, strict=True):
            values_by_sample.setdefault((series.machine_id, at), {})[series.sensor] = value
    return [Sample(machine, at, values) for (machine, at), values in values_by_sample.items()]


def _backfill(fleet: Fleet, outbox: MemoryOutbox, options: FleetOptions, hours: float, newest_us: int) -> None:
    period_us = int(1e6 / options.rate)
    now = now_us()
    count = min(options.backfill, max(0, (now - newest_us) // period_us - 1))
    times_us = [now - (count - index) * period_us for index in range(count)]
    if times_us:
        for batch in fleet.advance(hours, times_us):
            outbox.put(batch.message, batch.readings)


async def _register(
    machines: list[tuple[str, str]], target: Dependency, site: str
) -> tuple[list[tuple[str, str]], int]:
    """Registers machines. Returns those for which it failed, and the time of the newest reading of the others in µs."""
    stub = ingestion_pb2_grpc.IngestionServiceStub(target.channel)
    gate = asyncio.Semaphore(_MAX_REGISTRATIONS)
    errors: list[AurumError] = []

    async def register(machine_id: str, machine_type: str) -> int | None:
        request = ingestion_pb2.RegisterMachineRequest(
            machine_id=machine_id, machine_type=machine_type, site=site, request_id=f"simulated-{machine_id}"
        )
        try:
            async with gate:
                response = await target.unary(stub.RegisterMachine, request)
        except AurumError as error:
            errors.append(error)
            return None
        return response.machine.last_seen_us

    with traced_operation("register machines", {"aurum.machines": len(machines)}):
        seen = await asyncio.gather(*(register(*machine) for machine in machines))
        failed = [machine for machine, last_seen in zip(machines, seen, strict=True) if last_seen is None]
        logger.info("%d of %d machines are registered", len(machines) - len(failed), len(machines))
        if errors:
            logger.warning("the registration of the others failed and is retried: %s", errors[0].message)
    return failed, max((last_seen for last_seen in seen if last_seen is not None), default=0)


async def _register_rest(machines: list[tuple[str, str]], target: Dependency, site: str) -> None:
    while machines:
        machines, _ = await _register(machines, target, site)
        await asyncio.sleep(2.0)


def iot_sim(
    options: FleetOptions, server: str, address: str, peer_options: PeerOptions | None = None
) -> Body[Settings]:
    """Returns the body of the iot-sim service.

    Args:
        options: Options of the fleet.
        server: "edge" or "ingestion".
        address: The host:port of the server.
        peer_options: The protocol; None for gRPC.
    """

    @contextlib.asynccontextmanager
    async def body(service: Service[Settings]) -> AsyncGenerator[None]:
        async with devices(service, service.dependency(server, address), options, peer_options):
            yield

    return body
