"""Simulated meters behind a Modbus server."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from aurum_sim import metrics
from aurum_sim.peers.peer import Sample


class ModbusPeer:
    """A server with each sensor as a float32 in consecutive holding registers."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._addresses: dict[tuple[str, str], int] = {}
        self._registers: list[int] = []
        self._server: Any = None

    async def open(self, sensors: Mapping[str, Sequence[str]]) -> None:
        """Starts the server, with two registers for each sensor."""
        for machine, names in sensors.items():
            for name in names:
                self._addresses[machine, name] = 2 * len(self._addresses)
        self._registers = [0] * (2 * len(self._addresses))

        async def answer(code: int, start: int, address: int, count: int, registers: list[int], _: Any) -> None:
            registers[address - start : address - start + count] = self._registers[address : address + count]

        words = SimData(0, count=len(self._registers), values=0, datatype=DataType.REGISTERS)
        device = SimDevice(1, simdata=[words], action=answer)
        self._server = ModbusTcpServer(device, address=(self._host, self._port))
        await self._server.serve_forever(background=True)

    async def send(self, samples: Sequence[Sample]) -> None:
        """Writes samples to the registers."""
        for sample in samples:
            for name, value in sample.values.items():
                address = self._addresses[sample.machine_id, name]
                self._registers[address : address + 2] = struct.unpack(">2H", struct.pack(">f", value))
            metrics.simulator_readings_total.labels("made").inc(len(sample.values))

    async def close(self) -> None:
        """Stops the server."""
        if self._server is not None:
            await self._server.shutdown()

    def inputs(self) -> dict[str, Any]:
        """Returns the matching input of a gateway's inputs file."""
        return {
            "name": "simulated",
            "protocol": "modbus",
            "host": self._host,
            "port": self._port,
            "registers": [
                {"address": address, "type": "float32", "machine": machine, "sensor": name}
                for (machine, name), address in self._addresses.items()
            ],
        }
