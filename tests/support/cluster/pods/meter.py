"""A meter behind Modbus TCP: the WORDS holding registers of device 1 have the seconds of the minute, plus OFFSET."""

import asyncio
import os
import time

from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

OFFSET = int(os.environ.get("OFFSET", "0"))


async def answer(code, start, address, count, registers, _):
    registers[address - start : address - start + count] = [OFFSET + int(time.time()) % 60] * count


async def serve():
    words = SimData(0, count=int(os.environ.get("WORDS", "10")), values=0, datatype=DataType.REGISTERS)
    await ModbusTcpServer(SimDevice(1, simdata=[words], action=answer), address=("", 5020)).serve_forever()


asyncio.run(serve())
