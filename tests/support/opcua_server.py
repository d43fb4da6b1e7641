"""An OPC UA server for tests that runs as a process, which can be killed.

All variables count up together. The variables of a machine are below s=Plant, whose namespace has index 2 unless others
come before it. These have nodes with the same identifiers, and their value is 999.
"""

import argparse
import asyncio
import os
import signal
from pathlib import Path
from typing import Any

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


async def add_decoys(server: Server, uri: str) -> None:
    """Adds a namespace with nodes that have the identifiers of the server's own ones."""
    index = await server.register_namespace(uri)
    plant = await server.nodes.objects.add_object(ua.NodeId("Plant", index), f"{index}:Plant")
    machine = await plant.add_object(ua.NodeId("press-0", index), f"{index}:press-0")
    for number in range(10):
        await machine.add_variable(ua.NodeId(f"press-0.s{number}", index), f"{index}:s{number}", 999.0)


async def set_limit(server: Server, limit: int) -> None:
    """Makes the server refuse calls with more operations, as small controllers do."""
    ids = ua.ObjectIds
    for number in (
        ids.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
        ids.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
    ):
        await server.get_node(ua.NodeId(number)).write_value(ua.Variant(limit, ua.VariantType.UInt32))
    service = server.iserver.subscription_service
    create = service.create_monitored_items

    async def limited(parameters: Any, *more: Any, **named: Any) -> Any:
        if len(parameters.ItemsToCreate) > limit:
            print("refused", flush=True)  # noqa: T201 - counted by the test
            raise ua.UaStatusCodeError(ua.StatusCodes.BadTooManyOperations)
        return await create(parameters, *more, **named)

    service.create_monitored_items = limited


async def set_security(server: Server, certificates: Path | None) -> None:
    if certificates is not None:
        await server.set_application_uri("urn:aurumai:test-server")
        await server.load_certificate(str(certificates / "server.der"))
        await server.load_private_key(str(certificates / "server.pem"))
        server.set_security_policy(
            [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt], permission_ruleset=SimpleRoleRuleset()
        )
    else:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])


async def serve(given: argparse.Namespace) -> None:
    port, variables, period, certificates = given.port, given.variables, given.period, given.certificates
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/plant")
    await set_security(server, certificates)
    for uri in given.before:
        await add_decoys(server, uri)
    if given.limit:
        await set_limit(server, given.limit)
    index = await server.register_namespace(given.uri)
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
        if given.uncertain:
            uncertain = ua.StatusCode(ua.StatusCodes.UncertainLastUsableValue)
            await server.write_attribute_value(
                nodes[0].nodeid, ua.DataValue(ua.Variant(float(count), ua.VariantType.Double), uncertain)
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
    parser.add_argument("--uri", default="urn:aurumai:test", help="of the namespace of the variables")
    parser.add_argument("--before", action="append", default=[], help="URI of a namespace that comes before that")
    parser.add_argument("--limit", type=int, default=0, help="operations that a call may have; 0: any number")
    parser.add_argument("--uncertain", action="store_true", help="the first variable has a status that is not good")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
