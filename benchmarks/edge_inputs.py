"""What the gateway takes from MQTT and OPC UA into its spool on one core, beside what the client library alone takes.

Both read what has gathered while they were stopped: messages at QoS 1 in a broker, changes of 10,000 variables in an
OPC UA server, which have the other core. The library alone (paho-mqtt, asyncua) reads, decodes and acknowledges, and
does nothing with it; the gateway has each reading on its disk, by fsync, before it acknowledges.
"""

import argparse
import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import psutil
import yaml
from asyncua import Client, ua
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from tests.support.edge import input_counts, is_connected
from tests.support.mosquitto import Mosquitto
from tests.support.opcua_server import OpcuaServer
from tests.support.platform import Platform
from tests.support.waiting import wait_for

from benchmarks.harness import Goal, report, spread

VARIABLES = 10_000
IN_FLIGHT = 5000


@dataclass(frozen=True, slots=True)
class Taken:
    """By seconds of the clock, and by seconds of its core."""

    per_second: float
    per_core_second: float


# The library alone: each prints when it listens, and then how much it has had


def take_mqtt(port: int) -> None:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = IN_FLIGHT
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id="alone", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
    )
    had = 0

    def arrived(client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        nonlocal had
        had += 1
        client.ack(message.mid, 1)

    client.on_message = arrived
    client.on_connect = lambda client, *_: client.subscribe("plant/#", qos=1)
    client.on_subscribe = lambda *_: print("listens", flush=True)
    client.connect("127.0.0.1", port, 3600, properties=properties)
    while True:
        select.select([client.socket()], [], [], 1.0)
        start, before = had, -1
        while before != had:
            before = had
            client.loop_read()
        if client.want_write():
            client.loop_write()
        client.loop_misc()
        if had != start:
            print(had, flush=True)


async def take_opcua(endpoint: str) -> None:
    had = 0
    first = asyncio.Event()

    def arrived(result: ua.PublishResult) -> None:
        nonlocal had
        for notification in result.NotificationMessage.NotificationData or []:
            had += len(notification.MonitoredItems)  # type: ignore[attr-defined]
        if first.is_set():
            print(had - VARIABLES, flush=True)
        elif had >= VARIABLES:
            first.set()

    async with Client(endpoint, timeout=60, watchdog_intervall=3600) as client:  # it is stopped now and then
        parameters = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=100, RequestedLifetimeCount=100_000, RequestedMaxKeepAliveCount=1000,
            MaxNotificationsPerPublish=10_000, PublishingEnabled=True,
        )  # fmt: skip
        made = await client.uaclient.create_subscription(parameters, arrived)
        for start in range(0, VARIABLES, 1000):
            wanted = [
                ua.MonitoredItemCreateRequest(
                    ItemToMonitor=ua.ReadValueId(
                        NodeId=ua.NodeId(f"press-{number // 100}.s{number % 100}", 2), AttributeId=ua.AttributeIds.Value
                    ),
                    MonitoringMode=ua.MonitoringMode.Reporting,
                    RequestedParameters=ua.MonitoringParameters(ClientHandle=number, QueueSize=1000),
                )
                for number in range(start, start + 1000)
            ]
            await client.uaclient.create_monitored_items(
                ua.CreateMonitoredItemsParameters(made.SubscriptionId, ItemsToCreate=wanted)
            )
        await first.wait()
        print("listens", flush=True)
        await asyncio.Event().wait()


# What is there to be taken


def publish(port: int, count: int) -> None:
    """Messages of 100 machines with one value each, at QoS 1, as fast as the broker takes them."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(_packet(0x10, b"\x00\x04MQTT\x04\x02\x0e\x10" + _text("device")))
        assert connection.recv(4)[3] == 0
        answers = threading.Thread(target=_read, args=(connection, 4 * count))
        answers.start()
        began = time.time() - 1000
        for start in range(0, count, 1000):
            connection.sendall(
                b"".join(
                    _packet(
                        0x32,
                        _text(f"plant/pump-{number % 100}/state")
                        + (number % 60_000 + 1).to_bytes(2, "big")
                        + b'{"ts": %.3f, "vibration": %d.5}' % (began + number / 1000, number % 50),
                    )
                    for number in range(start, min(count, start + 1000))
                )
            )
        answers.join(120)
        assert not answers.is_alive(), "the broker has not taken all"


def _packet(kind: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([kind, len(body)]) + body


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def _read(connection: socket.socket, wanted: int) -> None:
    while wanted > 0:
        wanted -= len(connection.recv(65_536))


# Measuring


def drained(process: int, count: int, rounds: int, gather: Callable[[], None], taken: Callable[[], int]) -> Taken:
    """Stops a process, lets things gather for it, and measures how it takes them; so many times."""
    seconds = core_seconds = 0.0
    before = taken()
    for number in range(1, rounds + 1):
        os.kill(process, signal.SIGSTOP)
        try:
            gather()
        finally:
            spent, began = _cpu(process), time.perf_counter()
            os.kill(process, signal.SIGCONT)
        while taken() < before + number * count:
            assert time.perf_counter() - began < 300, "not all is taken"
            time.sleep(0.25)  # to ask costs the gateway something
        seconds += time.perf_counter() - began
        core_seconds += _cpu(process) - spent
    return Taken(rounds * count / seconds, rounds * count / core_seconds)


def _cpu(process: int) -> float:
    times = psutil.Process(process).cpu_times()
    return times.user + times.system


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """What starts in the block runs there."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[number % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def alone(count: int, rounds: int, gather: Callable[[], None], *arguments: str) -> Taken:
    with on_core(0):
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.edge_inputs", *arguments], stdout=subprocess.PIPE, text=True
        )
    try:
        assert process.stdout is not None
        lines = process.stdout
        assert lines.readline() == "listens\n"
        had = [0]
        threading.Thread(target=lambda: had.extend(map(int, lines)), daemon=True).start()
        return drained(process.pid, count, rounds, gather, lambda: had[-1])
    finally:
        process.kill()
        process.wait(10)


def gateway(count: int, rounds: int, gather: Callable[[], None], options: dict[str, Any]) -> Taken:
    """options: of its input, which is called plant."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.yaml"
        inputs.write_text(yaml.safe_dump({"inputs": [{"name": "plant", **options}]}))
        platform = Platform(Path(folder), extra={"AURUM_EDGE_INPUTS": str(inputs), "AURUM_LOG_LEVEL": "ERROR"})

        def taken() -> int:
            return int(input_counts(platform, "plant").get("accepted", 0))

        try:
            with on_core(0):
                process = platform.start("edge")
            wait_for(lambda: is_connected(platform, "plant"), 60, "the gateway listens")
            if options["protocol"] == "opcua":
                wait_for(lambda: taken() >= VARIABLES, 60, "first values")
            return drained(process.popen.pid, count, rounds, gather, taken)
        finally:
            platform.stop()


def compare_mqtt(folder: Path, count: int, runs: int) -> dict[str, list[Taken]]:
    found: dict[str, list[Taken]] = {"paho": [], "gateway": []}
    topics = [{"pattern": "plant/{machine}/state", "timestamp": "ts"}]
    for run in range(runs):
        for name, taken in found.items():
            with on_core(1):
                broker = Mosquitto(folder / f"{name}-{run}", persistent=False)

            def gather(port: int = broker.port) -> None:
                with on_core(1):
                    publish(port, count)

            where = {"host": "127.0.0.1", "port": broker.port, "keepalive": 3600, "in_flight": IN_FLIGHT}
            try:
                taken.append(
                    alone(count, 1, gather, "--mqtt", str(broker.port))
                    if name == "paho"
                    else gateway(count, 1, gather, {"protocol": "mqtt", "topics": topics, "broker": where})
                )
            finally:
                broker.close()
            print(f"mqtt, {name}: {taken[-1]}")
    return found


def compare_opcua(folder: Path, rounds: int, runs: int) -> dict[str, list[Taken]]:
    """Each round, every variable changes once: the least that a notification can save."""
    found: dict[str, list[Taken]] = {"asyncua": [], "gateway": []}
    options = {"protocol": "opcua", "browse": [{"root": "ns=2;s=Plant"}], "publishing": 0.1, "queue": 1000}
    for _ in range(runs):
        for name, taken in found.items():
            server = OpcuaServer(folder)
            with on_core(1):
                server.start(VARIABLES, 0)

            def gather(server: OpcuaServer = server) -> None:
                assert server.process is not None
                before = server.count_in_log("counted")
                server.process.send_signal(signal.SIGUSR1)
                wait_for(lambda: server.count_in_log("counted") > before, 60, "the variables have counted up")

            try:
                taken.append(
                    alone(VARIABLES, rounds, gather, "--opcua", server.endpoint)
                    if name == "asyncua"
                    else gateway(VARIABLES, rounds, gather, {**options, "endpoint": server.endpoint})
                )
            finally:
                server.stop()
            print(f"opcua, {name}: {taken[-1]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--mqtt", metavar="PORT", type=int, help="be the library alone")
    parser.add_argument("--opcua", metavar="ENDPOINT", help="be the library alone")
    given = parser.parse_args()
    if given.mqtt:
        take_mqtt(given.mqtt)
    if given.opcua:
        asyncio.run(take_opcua(given.opcua))
    runs = 1 if given.quick else 3
    with tempfile.TemporaryDirectory() as folder:
        by_mqtt = compare_mqtt(Path(folder), 50_000 if given.quick else 200_000, runs)
        by_opcua = compare_opcua(Path(folder), 5 if given.quick else 20, runs)
    details = {
        f"{protocol}_{name}_{measure}": spread([getattr(each, measure) for each in taken])
        for protocol, found in (("mqtt", by_mqtt), ("opcua", by_opcua))
        for name, taken in found.items()
        for measure in ("per_second", "per_core_second")
    }

    def median(name: str) -> float:
        return details[f"{name}_per_core_second"]["median"]

    report(
        "edge_inputs",
        {
            "mqtt_messages_per_core_second": Goal(median("mqtt_gateway"), 20_000),
            "opcua_changes_per_core_second": Goal(median("opcua_gateway"), 100_000),
        },
        {
            **details,
            "mqtt_of_paho": median("mqtt_gateway") / median("mqtt_paho"),
            "opcua_of_asyncua": median("opcua_gateway") / median("opcua_asyncua"),
        },
    )


if __name__ == "__main__":
    main()
