"""A gRPC server of the platform for a servicer of a test: admission and limits of streams, and nothing else."""

import contextlib
from collections.abc import AsyncGenerator, Callable

import grpc

from aurum.runtime.faults import Faults
from aurum.runtime.grpc.server import rpc_server
from aurum.runtime.health import Health
from aurum.runtime.policy.policies import Policies
from aurum.runtime.rpc_methods import INGESTION_SERVICE
from aurum.runtime.settings import Settings


@contextlib.asynccontextmanager
async def bare_server(
    add: Callable[[grpc.aio.Server], None], port: int, settings: Settings, policies: Policies, streams: int = 100
) -> AsyncGenerator[None]:
    """Serves what `add` registers, of the ingestion service. streams: The places for streams."""
    async with rpc_server(
        add,
        [INGESTION_SERVICE],
        host="127.0.0.1",
        port=port,
        setting="PORT",
        settings=settings,
        health_state=Health(),
        limits=(policies.admission(), policies.stream_limit(streams)),
        faults=Faults(False),
        authorizer=None,
    ):
        yield
