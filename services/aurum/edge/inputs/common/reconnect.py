"""Connects an input to its peer, under the policies of edge/inputs, for as long as the input runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aurum.edge.inputs.common.connection_status import ConnectionStatus
from aurum.resilience import ErrorClassifier
from aurum.resilience.errors import CIRCUIT_OPEN, code_of
from aurum.runtime.errors import AurumError, UnavailableError, from_policy_error
from aurum.runtime.policy.policies import Policies
from aurum.runtime.telemetry.tracing import traced_operation

Connection = TypeVar("Connection")

METHOD = "Connect"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between two calls of the pipeline, each with its own retries


def _code(error: BaseException) -> str:
    return error.code.name if isinstance(error, AurumError) else code_of(error)


_ERRORS = ErrorClassifier(_code)


class Reconnector:
    """Keeps an input connected.

    Args:
        client: The name of this service.
        name: The name of the input. Each input has its own breaker, because one peer may fail while others work.
        policies: The policies of this process.
        reach: Where the connection state is recorded.
    """

    def __init__(self, client: str, name: str, policies: Policies, reach: ConnectionStatus) -> None:
        self._client = client
        self._name = name
        self._policies = policies
        self.reach = reach

    async def keep(
        self,
        attempt: Callable[[float], Awaitable[Connection]],
        use: Callable[[Connection], Awaitable[None]],
        close: Callable[[Connection], Awaitable[None]],
    ) -> None:
        """Opens a connection, uses it, closes it when it is lost, and repeats.

        Args:
            attempt: Opens a connection within the given seconds. Raises UnavailableError.
            use: Uses the connection. Raises UnavailableError when it is lost.
            close: Closes it. Must not raise.
        """
        while True:
            connection = await self._open(attempt)
            try:
                await use(connection)
            except UnavailableError as error:
                self.reach.lost(error.message)
            finally:
                await close(connection)
            await asyncio.sleep(_FIRST_PAUSE)  # avoids a busy loop if a peer accepts connections and ends them

    async def _open(self, attempt: Callable[[float], Awaitable[Connection]]) -> Connection:
        pause = _FIRST_PAUSE
        while True:
            pipeline = self._policies.pipeline(self._client, "inputs", METHOD, _ERRORS, instance=self._name)
            try:
                with traced_operation("connect input", {"aurum.input": self._name}):
                    connection = await pipeline.call_async(attempt)
            except Exception as error:
                found = error if isinstance(error, AurumError) else from_policy_error(error)
                if found is None:
                    raise
                self.reach.lost(found.message, cause=found.reason != CIRCUIT_OPEN)
            else:
                self.reach.found()
                return connection
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(_LONGEST_PAUSE, pause * 2)
