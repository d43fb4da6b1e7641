"""Connects an input to its peer, under the policies of edge/inputs, for as long as the input runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aurum.edge.inputs.common.connection_status import ConnectionStatus
from aurum.resilience import DeadlineExceededError, ErrorClassifier
from aurum.resilience.errors import CIRCUIT_OPEN, code_of
from aurum.runtime.errors import AurumError, UnavailableError, from_policy_error
from aurum.runtime.policy.policies import Policies
from aurum.runtime.telemetry.tracing import traced_operation

Connection = TypeVar("Connection")

METHOD = "Connect"
_MIN_PAUSE, _MAX_PAUSE = 0.5, 30.0  # seconds between two calls of the pipeline, each with its own retries


def _code(error: BaseException) -> str:
    return error.code.name if isinstance(error, AurumError) else code_of(error)


_ERRORS = ErrorClassifier(_code)


class Reconnector:
    """Keeps an input connected.

    Args:
        client: The name of this service.
        name: The name of the input. Each input has its own breaker, because one peer may fail while others work.
        policies: The policies of this process.
        status: The recorded connection state.
    """

    def __init__(self, client: str, name: str, policies: Policies, status: ConnectionStatus) -> None:
        self._client = client
        self._name = name
        self._policies = policies
        self.status = status

    async def run(
        self,
        connect: Callable[[float], Awaitable[Connection]],
        use: Callable[[Connection], Awaitable[None]],
        close: Callable[[Connection], Awaitable[None]],
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        """Connects, uses the connection, closes it when it is lost, and repeats until cancelled.

        Args:
            connect: Opens a connection within the given seconds. Raises UnavailableError.
            use: Uses the connection. Raises UnavailableError when it is lost.
            close: Closes it. Must not raise.
            prepare: Proves that the peer gives data, and may take longer than an attempt to connect. Raises
                UnavailableError. Only after it the input counts as connected, and the breaker counts its failure, so
                that a peer that accepts connections and answers nothing is noticed.
        """
        attempt = connect if prepare is None else _with_preparation(connect, prepare, close)
        while True:
            connection = await self._open(attempt, timed=prepare is None)
            try:
                await use(connection)
            except UnavailableError as error:
                self.status.mark_lost(error.message)
            finally:
                await close(connection)
            await asyncio.sleep(_MIN_PAUSE)  # avoids a busy loop if a peer accepts connections and closes them at once

    async def _open(self, connect: Callable[[float], Awaitable[Connection]], *, timed: bool) -> Connection:
        pause = _MIN_PAUSE
        while True:
            pipeline = self._policies.pipeline(self._client, "inputs", METHOD, _ERRORS, instance=self._name)
            try:
                with traced_operation("connect input", {"aurum.input": self._name}):
                    connection = await pipeline.call_async(connect, timed=timed)
            except Exception as error:
                failure = error if isinstance(error, AurumError) else from_policy_error(error)
                if failure is None:
                    raise
                self.status.mark_lost(failure.message, cause=failure.reason != CIRCUIT_OPEN)
            else:
                self.status.mark_connected()
                return connection
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(_MAX_PAUSE, pause * 2)


def _with_preparation(
    connect: Callable[[float], Awaitable[Connection]],
    prepare: Callable[[Connection], Awaitable[None]],
    close: Callable[[Connection], Awaitable[None]],
) -> Callable[[float], Awaitable[Connection]]:
    """Returns an attempt that connects within its timeout, and then prepares the connection without one."""

    async def attempt(timeout: float) -> Connection:
        try:
            async with asyncio.timeout(timeout):
                connection = await connect(timeout)
        except TimeoutError as error:
            raise DeadlineExceededError(f"no answer within {timeout:.3f} s") from error
        try:
            await prepare(connection)
        except BaseException:
            await close(connection)
            raise
        return connection

    return attempt
