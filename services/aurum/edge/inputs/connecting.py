"""Connecting to what an input listens to, under the policies of edge/inputs, until it succeeds."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aurum.resilience import ErrorView
from aurum.resilience.errors import code_of
from aurum.runtime import metrics
from aurum.runtime.errors import CIRCUIT_OPEN, AurumError, UnavailableError, from_policy_error
from aurum.runtime.policies import Policies
from aurum.runtime.tracing import traced_operation

logger = logging.getLogger(__name__)

Connection = TypeVar("Connection")

METHOD = "Connect"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between two calls of the policies' retries


def _code(error: BaseException) -> str:
    return error.code.name if isinstance(error, AurumError) else code_of(error)


_ERRORS = ErrorView(_code)


class Connector:
    """client: the service. name: of the input, whose breaker is its own: one broker may be away and others not."""

    def __init__(self, client: str, name: str, policies: Policies) -> None:
        self._client = client
        self._name = name
        self._policies = policies
        self._lost = False
        self.problem: str | None = "is not connected yet"
        self._caused = False
        self._connected = metrics.edge_input_connected.labels(name)

    async def connect(self, attempt: Callable[[float], Awaitable[Connection]]) -> Connection:
        """attempt: takes the seconds that it has; raises UnavailableError."""
        self._connected.set(0)
        pause = _FIRST_PAUSE
        if self._lost:  # a peer that takes connections and ends them is not to be asked without pause
            await asyncio.sleep(pause)
        self._lost = False
        while True:
            pipeline = self._policies.pipeline(self._client, "inputs", METHOD, _ERRORS, instance=self._name)
            try:
                with traced_operation("connect input", {"aurum.input": self._name}):
                    connection = await pipeline.call_async(attempt)
            except Exception as error:
                found = error if isinstance(error, AurumError) else from_policy_error(error)
                if found is None:
                    raise
                self._note(found.message, cause=found.reason != CIRCUIT_OPEN)
            else:
                self._connected.set(1)
                self.problem, self._caused = None, False
                logger.info("%s is connected", self._name)
                return connection
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(_LONGEST_PAUSE, pause * 2)

    def _note(self, problem: str, *, cause: bool) -> None:
        """cause: whether it is the peer, or the way to it; else nobody looks now, as it was so before."""
        if problem != self.problem and (cause or not self._caused):
            logger.warning("%s: %s", self._name, problem)
            self.problem, self._caused = problem, cause

    def lost(self, error: UnavailableError) -> None:
        """Notes that a connection is not there any more, or not at the moment."""
        if self.problem is None:
            logger.warning("%s: %s", self._name, error.message)
        self._lost = True
        self._connected.set(0)
        self.problem, self._caused = error.message, True

    def found(self) -> None:
        """Notes that it is there again, by itself."""
        if self.problem is not None:
            logger.info("%s is connected again", self._name)
        self._connected.set(1)
        self.problem = None
