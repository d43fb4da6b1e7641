"""One Modbus connection for several units: turns, late answers, and a device that is away."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from aurum.edge.inputs.modbus.connection import ModbusConnection, Refusal
from aurum.edge.inputs.modbus.poll_plan import ReadRequest
from aurum.runtime.errors import UnavailableError
from tests.support.modbus_device import BUSY, GATEWAY_NO_RESPONSE, ILLEGAL_FUNCTION, ModbusDevice, Unit
from tests.support.ports import free_port

Start = Callable[..., ModbusDevice]


@pytest.fixture
def start() -> Iterator[Start]:
    devices: list[ModbusDevice] = []

    def started(
        units: dict[int, Unit], *, single: bool = False, numbers: bool = True, port: int | None = None
    ) -> ModbusDevice:
        devices.append(ModbusDevice(units, single=single, numbers=numbers, port=port))
        return devices[-1]

    yield started
    for device in devices:
        device.close()


def holding(address: int, count: int = 1) -> ReadRequest:
    return ReadRequest("holding", address, count, ())


def words(start: int, count: int) -> dict[int, int]:
    return {start + number: 100 * start + number for number in range(count)}


async def test_units_of_one_gateway_share_one_connection(start: Start) -> None:
    device = start({unit: Unit({0: unit}, delay=0.02) for unit in (1, 2, 3)}, single=True)
    connection = ModbusConnection("127.0.0.1", device.port)

    async def poll(unit: int) -> None:
        await connection.join()
        for _ in range(5):
            assert await connection.read(holding(0), unit, 5.0) == [unit]
        connection.leave()

    await asyncio.gather(*(poll(unit) for unit in (1, 2, 3)))
    assert (device.connections, device.refused) == (1, 0)
    assert [unit for unit, _, _ in device.asked[:9]] == [1, 2, 3] * 3, "they do not take turns"


async def test_silent_unit_does_not_starve_the_others(start: Start) -> None:
    device = start({1: Unit({0: 7}), 2: Unit(mute=True)}, single=True)
    connection = ModbusConnection("127.0.0.1", device.port)
    await connection.join()
    stop = asyncio.Event()
    silent = 0

    async def poll_silent() -> None:
        nonlocal silent
        while not stop.is_set():
            assert await connection.read(holding(0), 2, 0.05) is Refusal.NO_ANSWER
            silent += 1

    polling = asyncio.ensure_future(poll_silent())
    for _ in range(20):
        assert await connection.read(holding(0), 1, 5.0) == [7]
    stop.set()
    await polling
    assert 15 <= silent <= 22, "turns are not taken"
    connection.leave()


@pytest.mark.parametrize("numbers", [True, False])
async def test_late_answer_is_not_taken_for_the_next_one(start: Start, numbers: bool) -> None:
    slow = Unit({0: 111, 1: 222})
    device = start({1: slow}, numbers=numbers)
    connection = ModbusConnection("127.0.0.1", device.port)
    await connection.join()
    assert await connection.read(holding(0), 1, 5.0) == [111]
    slow.delay = 0.2
    assert await connection.read(holding(0), 1, 0.05) is Refusal.NO_ANSWER
    assert await connection.read(holding(1), 1, 5.0) == [222]
    connection.leave()


async def test_dead_connection_is_replaced_without_users_noticing(start: Start) -> None:
    unit = Unit({0: 1})
    device = start({1: unit})
    connection = ModbusConnection("127.0.0.1", device.port)
    await connection.join()
    assert await connection.read(holding(0), 1, 5.0) == [1]
    unit.mute = True
    for _ in range(3):
        assert await connection.read(holding(0), 1, 0.05) is Refusal.NO_ANSWER
    unit.mute = False
    assert await connection.read(holding(0), 1, 5.0) == [1]
    assert device.connections == 2
    connection.leave()


async def test_absent_device_is_not_called_again_at_once(start: Start) -> None:
    now = 0.0
    port = free_port()
    connection = ModbusConnection("127.0.0.1", port, clock=lambda: now)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await connection.join()
    device = start({1: Unit({0: 1})}, port=port)
    now = 0.4
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await connection.join()
    assert device.connections == 0
    now = 0.6
    await connection.join()
    connection.leave()


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (Unit(error=BUSY), Refusal.BUSY),
        (Unit(error=ILLEGAL_FUNCTION), Refusal.FUNCTION),
        (Unit(error=GATEWAY_NO_RESPONSE), Refusal.NO_ANSWER),
        (Unit(words(0, 3)), Refusal.ADDRESS),
        (Unit(words(0, 10), max_count=2), Refusal.ADDRESS),
        (Unit(words(0, 4)), [0, 1, 2, 3]),
    ],
)
async def test_answer_says_why_registers_are_refused(start: Start, unit: Unit, expected: list[int] | Refusal) -> None:
    device = start({1: unit})
    connection = ModbusConnection("127.0.0.1", device.port)
    await connection.join()
    assert await connection.read(holding(0, 4), 1, 5.0) == expected
    connection.leave()


async def test_coils_and_discrete_inputs_are_read_as_bits(start: Start) -> None:
    bits = {number: number % 3 == 0 for number in range(20)}
    device = start({1: Unit(bits=bits)})
    connection = ModbusConnection("127.0.0.1", device.port)
    await connection.join()
    for kind in ("coil", "discrete"):
        found = await connection.read(ReadRequest(kind, 3, 11, ()), 1, 5.0)
        assert found == [bits[number] for number in range(3, 14)]
    connection.leave()
