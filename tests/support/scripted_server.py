"""A gRPC server whose answers a test scripts, and a client of it under a policy document, in one process."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from aurum.runtime.errors import AurumError
from aurum.runtime.faults import Faults
from aurum.runtime.grpc.client import TAKEN_UP, Dependency
from aurum.runtime.grpc.server import rpc_server
from aurum.runtime.health import Health
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings, load_settings
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.ports import free_port

Behaviour = Callable[[int, Any], Awaitable[None]]


class Scripted(ingestion_pb2_grpc.IngestionServiceServicer):
    """A server whose calls do what a test says. seen: the time of each call and the seconds that its caller waits."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = lambda number, context: asyncio.sleep(0)
        self.seen: list[tuple[float, float | None]] = []
        self.now = self.most = self.cancelled = 0

    async def GetMachine(self, request: Any, context: Any) -> ingestion_pb2.GetMachineResponse:  # noqa: N802
        await self._act(context)
        return ingestion_pb2.GetMachineResponse(machine=ingestion_pb2.Machine(machine_id=request.machine_id))

    async def RegisterMachine(self, request: Any, context: Any) -> ingestion_pb2.RegisterMachineResponse:  # noqa: N802
        await self._act(context)
        return ingestion_pb2.RegisterMachineResponse()

    async def Query(self, request: Any, context: Any) -> AsyncGenerator[ingestion_pb2.QueryResponse]:  # noqa: N802
        for _ in range(20):
            await self._act(context)
            yield ingestion_pb2.QueryResponse()

    async def Watch(self, request: Any, context: Any) -> AsyncGenerator[ingestion_pb2.WatchResponse]:  # noqa: N802
        await self._act(context)
        await context.send_initial_metadata(TAKEN_UP)
        yield ingestion_pb2.WatchResponse()
        await asyncio.Event().wait()

    async def _act(self, context: Any) -> None:
        self.seen.append((time.monotonic(), context.time_remaining()))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.behaviour(len(self.seen), context)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1


class Bench:
    """A scripted server, which can disappear and return, and a client of it under a policy document."""

    def __init__(self, folder: Path, policy: str, settings: Settings) -> None:
        path = folder / "policies.yaml"
        path.write_text(policy)
        self.path = path
        self.settings = settings
        self.policies = Policies("client", settings.model_copy(update={"policy_file": path}))
        self.server_policies = Policies("server", settings.model_copy(update={"policy_file": path}))
        self.server = Scripted()
        self.faults = Faults(True)
        self.port = free_port()
        self.dependency = Dependency("client", "server", f"127.0.0.1:{self.port}", self.policies, 1_000_000)
        self.stub = ingestion_pb2_grpc.IngestionServiceStub(self.dependency.channel)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        admission = self.server_policies.admission()
        async with rpc_server(
            lambda server: ingestion_pb2_grpc.add_IngestionServiceServicer_to_server(self.server, server),
            ["aurum.v1.IngestionService"],
            host="127.0.0.1",
            port=self.port,
            setting="PORT",
            settings=self.settings.model_copy(update={"shutdown_grace": 0.05}),
            health_state=Health(),
            limits=(admission, self.server_policies.stream_limit(100)),
            faults=self.faults,
            authorizer=None,
        ):
            yield

    async def get(self) -> ingestion_pb2.GetMachineResponse:
        return await self.dependency.unary(self.stub.GetMachine, ingestion_pb2.GetMachineRequest(machine_id="m"))

    async def register(self) -> ingestion_pb2.RegisterMachineResponse:
        request = ingestion_pb2.RegisterMachineRequest()
        return await self.dependency.unary(self.stub.RegisterMachine, request, idempotent=False)

    @property
    def breaker(self) -> str:
        breaker = self.dependency.pipeline("GetMachine").breaker
        assert breaker is not None
        return breaker.current_state


QUICK = "policies: [{target: client/server/*, %s}]"


ONCE = "retry: {maxAttempts: 1}"


@contextlib.asynccontextmanager
async def bench(folder: Path, policy: str = QUICK % ONCE, *, serving: bool = True) -> AsyncIterator[Bench]:
    made = Bench(folder, policy, load_settings(Settings, state_dir=folder))
    try:
        async with made.serving() if serving else contextlib.nullcontext():
            yield made
    finally:
        await made.dependency.close()


def failing(first: int, error: AurumError) -> Behaviour:
    """Fails the first so many calls."""

    async def behave(number: int, context: Any) -> None:
        if number <= first:
            raise error

    return behave


async def hang(number: int, context: Any) -> None:
    await asyncio.sleep(60)
