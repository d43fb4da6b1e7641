"""Simulated machines behind an OPC UA server."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from asyncua import Server, ua

from aurum_sim import metrics
from aurum_sim.peers.peer import Sample


class OpcuaPeer:
    """A server with an object for each machine and a variable for each sensor."""

    def __init__(self, host: str, port: int) -> None:
        self._endpoint = f"opc.tcp://{host}:{port}/plant"
        self._nodes: dict[tuple[str, str], Any] = {}
        self._server: Any = None

    async def open(self, sensors: Mapping[str, Sequence[str]]) -> None:
        """Starts the server, with a variable for each sensor."""
        self._server = Server()
        await self._server.init()
        self._server.set_endpoint(self._endpoint)
        self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        index = await self._server.register_namespace("urn:aurumai:iot-sim")
        plant = await self._server.nodes.objects.add_object(ua.NodeId(ua.String("Plant"), index), f"{index}:Plant")
        for machine, names in sensors.items():
            node = await plant.add_object(ua.NodeId(ua.String(machine), index), f"{index}:{machine}")
            for name in names:
                identifier = ua.NodeId(ua.String(f"{machine}.{name}"), index)
                self._nodes[machine, name] = await node.add_variable(identifier, f"{index}:{name}", 0.0)
        await self._server.start()

    async def send(self, samples: Sequence[Sample]) -> None:
        """Writes samples to the variables."""
        for sample in samples:
            at = ua.DateTime.fromtimestamp(sample.at_us / 1e6, UTC)
            for name, value in sample.values.items():
                node = self._nodes[sample.machine_id, name]
                data = ua.DataValue(ua.Variant(value, ua.VariantType.Double), SourceTimestamp=at, ServerTimestamp=at)
                await self._server.write_attribute_value(node.nodeid, data)
            metrics.simulator_readings_total.labels("made").inc(len(sample.values))

    async def close(self) -> None:
        """Stops the server."""
        if self._server is not None:
            await self._server.stop()

    def inputs(self) -> dict[str, Any]:
        """Returns the matching input of a gateway's inputs file."""
        return {
            "name": "simulated",
            "protocol": "opcua",
            "endpoint": self._endpoint,
            "browse": [{"root": "ns=2;s=Plant", "path": "{machine}/{sensor}"}],
            "queue": 100,
        }
