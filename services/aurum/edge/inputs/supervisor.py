"""Runs the inputs of a gateway independently, so that one with an unreachable peer does not affect the others."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import (
    FilesInput,
    InputsFile,
    ModbusInput,
    MqttInput,
    OpcuaInput,
    SparkplugInput,
)
from aurum.edge.inputs.common.connection_status import ConnectionStatus
from aurum.edge.inputs.common.deadband_check import find_warnings
from aurum.edge.inputs.common.input import Input
from aurum.edge.inputs.common.loss_check import find_losses
from aurum.edge.inputs.common.overview import MAX_SHOWN, describe_input
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.common.redelivery_cache import RedeliveryCache
from aurum.edge.inputs.common.series_owners import SeriesOwners
from aurum.edge.inputs.common.tags import Tags
from aurum.edge.inputs.common.unset_clock import wait_for_set_clock
from aurum.edge.settings import EdgeSettings
from aurum.edge.spool import Spool
from aurum.readings.batch import new_source_id
from aurum.runtime.service import Service
from aurum.security.source_limits import SourceLimits

if TYPE_CHECKING:
    from aurum.edge.inputs.modbus.connection import ModbusConnection

logger = logging.getLogger(__name__)

_GAUGE_INTERVAL = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class _RunningInput:
    """The parts of a running input that the gateway reports."""

    builder: BatchBuilder
    status: ConnectionStatus
    losses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InputSupervisor:
    """The running inputs of a gateway, by name."""

    inputs: dict[str, _RunningInput]

    def state(self) -> list[dict[str, Any]]:
        """Returns the state of each input for the admin server."""
        shown = max(1, MAX_SHOWN // max(1, len(self.inputs)))
        return [
            describe_input(name, running.builder, running.status.problem, running.losses, shown)
            for name, running in self.inputs.items()
        ]

    async def update_gauges(self) -> None:
        """Updates the gauges until cancelled."""
        while True:
            for name, running in self.inputs.items():
                devices = running.builder.devices
                metrics.edge_input_sources.labels(name).set(len(devices))
                metrics.edge_input_worst_quality.labels(name).set(devices.worst_quality)
                metrics.edge_input_contested.labels(name).set(running.builder.tags.contested())
                metrics.edge_input_clock_skew_seconds.labels(name).set(devices.largest_skew_seconds)
            await asyncio.sleep(_GAUGE_INTERVAL)


def start_inputs(
    file: InputsFile, service: Service[EdgeSettings], spool: Spool, limits: SourceLimits
) -> InputSupervisor:
    """Starts all inputs. Recoverable errors are retried with backoff; unexpected ones stop the service."""
    inputs: dict[str, _RunningInput] = {}
    losses = find_losses(file)
    for place, problem in losses:
        logger.warning("the inputs would lose data: %s: %s", ".".join(map(str, place)), problem)
    for place, problem in find_warnings(file):
        logger.warning("the inputs may lose data: %s: %s", ".".join(map(str, place)), problem)
    connections: dict[tuple[str, int], ModbusConnection] = {}
    owners = SeriesOwners()
    for number, options in enumerate(file.inputs):
        # Files often hold the past of what another input reads live
        shares = options.shared_series or isinstance(options, FilesInput)
        tags = Tags(options.rules, options.machines, options.name, SeriesOwners() if shares else owners)
        source_id = new_source_id(options.name)
        builder = BatchBuilder(options.name, source_id, spool, tags, options.clock, limits, earliest=options.earliest)
        status = ConnectionStatus(options.name)
        reconnector = Reconnector(service.name, options.name, service.policies, status)
        own_losses = tuple(f"{'.'.join(map(str, place[2:]))}: {text}" for place, text in losses if place[1] == number)
        inputs[options.name] = _RunningInput(builder, status, own_losses)
        created = _create_input(options, builder, reconnector, spool.folder / "inputs", connections)
        service.spawn(_run_with_set_clock(created, status), f"input:{options.name}")
    supervisor = InputSupervisor(inputs)
    service.spawn(supervisor.update_gauges(), "input-gauges")
    return supervisor


async def _run_with_set_clock(created: Input, status: ConnectionStatus) -> None:
    await wait_for_set_clock(status)
    await created.run()


def _create_input(
    options: MqttInput | SparkplugInput | OpcuaInput | ModbusInput | FilesInput,
    builder: BatchBuilder,
    reconnector: Reconnector,
    state_folder: Path,
    connections: "dict[tuple[str, int], ModbusConnection]",
) -> Input:
    """Creates an input.

    Args:
        options: Its description.
        builder: Gathers its values.
        reconnector: Keeps it connected.
        state_folder: The folder for its persistent state.
        connections: The Modbus connections by host and port, which inputs share.
    """
    # Each protocol's library is loaded only if an input uses it
    match options:
        case MqttInput():
            from aurum.edge.inputs.mqtt.input import Mqtt
            from aurum.edge.inputs.mqtt.retained_log import RetainedLog

            redeliveries = RedeliveryCache(state_folder / f"{options.name}.arrivals", options.broker.in_flight)
            retained = RetainedLog(state_folder / f"{options.name}.retained")
            return Mqtt(options, builder, reconnector, redeliveries, retained)
        case SparkplugInput():
            from aurum.edge.inputs.sparkplug.input import Sparkplug

            return Sparkplug(options, builder, reconnector)
        case OpcuaInput():
            from aurum.edge.inputs.opcua.input import Opcua

            return Opcua(options, builder, reconnector, state_folder)
        case ModbusInput():
            from aurum.edge.inputs.modbus.connection import ModbusConnection
            from aurum.edge.inputs.modbus.input import Modbus

            address = options.host, options.port
            if address not in connections:
                connections[address] = ModbusConnection(*address)
            return Modbus(options, builder, reconnector, connections[address])
        case FilesInput():
            from aurum.edge.inputs.files.input import Files

            return Files(options, builder, reconnector.status)
