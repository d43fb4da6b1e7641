"""Runs the inputs of a gateway independently, so that one with an unreachable peer does not affect the others."""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
from aurum.edge.inputs.common.device_stats import DeviceState
from aurum.edge.inputs.common.input import Input
from aurum.edge.inputs.common.reconnect import Reconnector
from aurum.edge.inputs.common.redelivery_cache import RedeliveryCache
from aurum.edge.inputs.common.tags import Tags
from aurum.edge.settings import EdgeSettings
from aurum.edge.spool import Spool
from aurum.runtime.service import Service
from aurum.security.source_limits import SourceLimits

_GAUGES_EVERY = 1.0  # seconds
_SHOWN = 10  # worst sources shown for each input


@dataclass(frozen=True, slots=True)
class _Heard:
    """The parts of a running input: its collector and its connection state."""

    collector: BatchBuilder
    reach: ConnectionStatus


@dataclass(frozen=True, slots=True)
class InputSupervisor:
    """The running inputs of a gateway, by name."""

    inputs: dict[str, _Heard]

    def state(self) -> list[dict[str, Any]]:
        """Returns the state of each input for the gateway's overview."""
        return [
            {
                "name": name,
                "problem": each.reach.problem,
                "sources": len(each.collector.sources),
                "worst_quality": round(each.collector.sources.worst_quality, 4),
                "clock_skew_seconds": round(each.collector.sources.largest_skew, 6),
                "worst": [_described(*source) for source in each.collector.sources.worst(_SHOWN)],
            }
            for name, each in self.inputs.items()
        ]

    async def observe(self) -> None:
        """Updates the gauges until cancelled."""
        while True:
            for name, each in self.inputs.items():
                sources = each.collector.sources
                metrics.edge_input_sources.labels(name).set(len(sources))
                metrics.edge_input_worst_quality.labels(name).set(sources.worst_quality)
                metrics.edge_input_clock_skew_seconds.labels(name).set(sources.largest_skew)
            await asyncio.sleep(_GAUGES_EVERY)


def start_inputs(
    file: InputsFile, service: Service[EdgeSettings], spool: Spool, limits: SourceLimits
) -> InputSupervisor:
    """Starts all inputs. Recoverable errors are retried with backoff; unexpected ones stop the service."""
    begun = time.time_ns() // 1_000_000
    inputs: dict[str, _Heard] = {}
    for options in file.inputs:
        source_id = f"{options.name}-{begun:x}"  # sequences start again at 1, so the source must be new
        collector = BatchBuilder(options.name, source_id, spool, Tags(options.rules), options.clock, limits)
        reach = ConnectionStatus(options.name)
        connector = Reconnector(service.name, options.name, service.policies, reach)
        inputs[options.name] = _Heard(collector, reach)
        service.spawn(_make(options, collector, connector, spool.folder / "inputs").run(), f"input:{options.name}")
    listening = InputSupervisor(inputs)
    service.spawn(listening.observe(), "input-gauges")
    return listening


def _described(source: str, state: DeviceState) -> dict[str, Any]:
    return {
        "source": source,
        "quality": round(state.quality, 4),
        "clock_skew_seconds": round(state.skew_us / 1e6, 6),
        "seen": datetime.fromtimestamp(state.seen_us / 1e6, UTC).isoformat(timespec="milliseconds"),
    }


def _make(
    options: MqttInput | SparkplugInput | OpcuaInput | ModbusInput | FilesInput,
    collector: BatchBuilder,
    connector: Reconnector,
    kept: Path,
) -> Input:
    """Creates an input. `kept` is the folder for its persistent state."""
    # Each protocol's library is loaded only if an input uses it
    match options:
        case MqttInput():
            from aurum.edge.inputs.mqtt.input import Mqtt

            arrivals = RedeliveryCache(kept / f"{options.name}.arrivals", options.broker.in_flight)
            return Mqtt(options, collector, connector, arrivals)
        case SparkplugInput():
            from aurum.edge.inputs.sparkplug.input import Sparkplug

            return Sparkplug(options, collector, connector)
        case OpcuaInput():
            from aurum.edge.inputs.opcua.input import Opcua

            return Opcua(options, collector, connector)
        case ModbusInput():
            from aurum.edge.inputs.modbus.input import Modbus

            return Modbus(options, collector, connector)
        case FilesInput():
            from aurum.edge.inputs.files.input import Files

            return Files(options, collector, connector.reach)
