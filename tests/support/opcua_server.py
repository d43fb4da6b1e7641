"""An OPC UA server for tests that runs as a process, which can be killed.

All variables count up together. The variables of a machine are below ns=2;s=Plant.
"""

import argparse
import asyncio
import os
import signal
from pathlib import Path

from asyncua import Server, ua
from asyncua.crypto.permission_rules import SimpleRoleRuleset

from tests.support import processes
from tests.support.ports import free_port
from tests.support.waiting import wait_for


class OpcuaServer:
    """The process of a server. It keeps its port when it is restarted."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "opcua.log"
        self.process: processes.Handle | None = None

    @property
    def endpoint(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}/plant"

    def start(self, variables: int, period: float, *more: str) -> None:
        arguments = [str(self.port), str(variables), str(period), *more]
        before = self.count_in_log("ready")
        self.process = processes.start(arguments, os.environ, self.log, module="tests.support.opcua_server")
        wait_for(lambda: self.count_in_log("ready") > before, 60, f"the server is ready, see {self.log}")

    def count_in_log(self, word: str) -> int:
        """Returns how often a word is in the log."""
        return self.log.read_text().count(word) if self.log.exists() else 0

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(15)


async def serve(port: int, variables: int, period: float, certificates: Path | None) -> None:
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/plant")
    if certificates is not None:
        await server.set_application_uri("urn:aurumai:test-server")
        await server.load_certificate(str(certificates / "server.der"))
        await server.load_private_key(str(certificates / "server.pem"))
        server.set_security_policy(
            [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt], permission_ruleset=SimpleRoleRuleset()
        )
    else:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace("urn:aurumai:test")
    plant = await server.nodes.objects.add_object(ua.NodeId("Plant", index), f"{index}:Plant")
    nodes = []
    for number in range(variables):
        if number % 100 == 0:
            name = f"press-{number // 100}"
            machine = await plant.add_object(ua.NodeId(name, index), f"{index}:{name}")
        sensor = f"s{number % 100}"
        nodes.append(
            await machine.add_variable(ua.NodeId(f"press-{number // 100}.{sensor}", index), f"{index}:{sensor}", 0.0)
        )
    count = 0

    async def count_up() -> None:
        nonlocal count
        count += 1
        for node in nodes:
            await server.write_attribute_value(
                node.nodeid, ua.DataValue(ua.Variant(float(count), ua.VariantType.Double))
            )

    wanted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, wanted.set)
    async with server:
        print("ready", flush=True)  # noqa: T201 - who has started it waits for that
        while True:
            if period:
                await asyncio.sleep(period)
                await count_up()
                continue
            await wanted.wait()
            wanted.clear()
            await count_up()
            print("counted", flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("variables", type=int)
    parser.add_argument("period", type=float, help="seconds; 0: once for each SIGUSR1")
    parser.add_argument("--certificates", type=Path, help="folder with certificate and key; wants encryption then")
    given = parser.parse_args()
    asyncio.run(serve(given.port, given.variables, given.period, given.certificates))


if __name__ == "__main__":
    main()
