"""Follows the new readings at each replica of ingestion, and keeps a connection to each.

With one address, all calls use the connection of the service. With several, each replica has its own, because each has
only the readings that were sent to it.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from aurum.prediction.fleet import metrics
from aurum.prediction.fleet.addresses import resolve, split_address
from aurum.prediction.fleet.machine_table import StreamSeries
from aurum.prediction.fleet.membership import RESOLVE_SECONDS, Members, Membership
from aurum.prediction.fleet.stream_lag import StreamLag
from aurum.readings.transport.follow_columns import follow_method
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.service import Service
from aurum.runtime.settings import Settings
from aurum.v1 import columns_pb2, ingestion_pb2

logger = logging.getLogger(__name__)

_HEARTBEAT_MS = 400  # a stream without responses for much longer is stuck
_BACKOFF, _MAX_BACKOFF = 0.2, 5.0  # seconds before a broken stream is opened again
_OUTAGE_SECONDS = 5.0  # a stream that was closed for less, as when the scorers change, has had no outage
_SETTLED = 1.0  # seconds after which an open stream has delivered what had waited

Apply = Callable[[StreamSeries, columns_pb2.FollowedReadings], Awaitable[None]]
Accompany = Callable[[str, Dependency], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class _Replica:
    """A replica of ingestion. All times are monotonic seconds.

    Attributes:
        task: Keeps the connection.
        open_since: Since when its stream is open; None if it is not.
        closed_at: When its stream was last closed.
        served_since: Since when readings could arrive without an outage.
        lag: The lag of the stream, or of the former one if it is not open.
    """

    task: asyncio.Task[None]
    open_since: float | None = None
    closed_at: float = -math.inf
    served_since: float = math.inf
    lag: StreamLag = field(default_factory=StreamLag)


class ReplicaConnections:
    """The replicas of ingestion, each with a stream of new readings."""

    def __init__(  # noqa: PLR0917
        self,
        service: Service[Settings],
        ingestion: Dependency,
        membership: Membership,
        apply: Apply,
        accompany: Accompany,
        interval_ms: int,
    ) -> None:
        """Connects nothing yet.

        Args:
            service: This service.
            ingestion: The connection to the target as a whole.
            membership: The live scorers.
            apply: Applies a response of a stream.
            accompany: Runs beside each stream, with the address and the connection.
            interval_ms: Minimum time between two responses.
        """
        self._service = service
        self._ingestion = ingestion
        self._membership = membership
        self._apply = apply
        self._accompany = accompany
        self._interval_ms = interval_ms
        self._replicas: dict[str, _Replica] = {}

    @property
    def current(self) -> bool:
        """Whether all streams are open and have delivered what had waited."""
        latest = time.monotonic() - _SETTLED
        return bool(self._replicas) and all(
            replica.open_since is not None and replica.open_since <= latest for replica in self._replicas.values()
        )

    @property
    def served_since(self) -> float:
        """Since when readings of all replicas could arrive without an outage (monotonic seconds)."""
        return max((replica.served_since for replica in self._replicas.values()), default=math.inf)

    @property
    def lag(self) -> float:
        """For how many seconds readings may have become durable that were not applied; infinite if it is unknown."""
        now = time.monotonic()
        return max(
            (math.inf if each.open_since is None else each.lag.seconds(now) for each in self._replicas.values()),
            default=math.inf,
        )

    async def run(self) -> None:
        """Follows the addresses of the target. Runs until cancelled."""
        try:
            host, port = split_address(self._ingestion.target)
        except ValueError:  # a target in another form is left to gRPC
            host, port = "", 0
        while True:
            found = [self._ingestion.target]
            if host:
                try:
                    addresses = await resolve(host, port)
                except OSError as error:
                    logger.warning("%s cannot be resolved, the last addresses are kept: %s", host, error)
                    addresses = list(self._replicas)
                if len(addresses) > 1 or (addresses and set(addresses) == set(self._replicas)):
                    found = addresses
            for address in set(self._replicas) - set(found):
                self._replicas.pop(address).task.cancel()
            for address in found:
                if address not in self._replicas:
                    task = self._service.spawn(self._keep(address, host), f"follow:{address}")
                    self._replicas[address] = _Replica(task)
            await asyncio.sleep(RESOLVE_SECONDS)

    async def _keep(self, address: str, host: str) -> None:
        """Follows one replica until cancelled."""
        if address == self._ingestion.target:
            await self._follow_and_accompany(address, self._ingestion)
            return
        async with self._service.connection("ingestion", address, host) as replica:
            await self._follow_and_accompany(address, replica)

    async def _follow_and_accompany(self, address: str, replica: Dependency) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._accompany(address, replica))
            tasks.create_task(self._follow(address, replica))

    async def _follow(self, address: str, replica: Dependency) -> None:
        """Opens the stream again and again: when it breaks, and when the members have changed."""
        position, backoff = "", _BACKOFF
        members = self._membership.current
        while True:
            if not members.scores:
                members = await self._membership.wait_for_change(members)
                continue
            stream = _Stream(position)
            reading = asyncio.create_task(self._read(address, replica, members, stream))
            changing = asyncio.create_task(self._membership.wait_for_change(members))
            try:
                await asyncio.wait([reading, changing], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (reading, changing):
                    task.cancel()
                await asyncio.gather(reading, changing, return_exceptions=True)
                self._note(address, None)
            if stream.position != position:
                position, backoff = stream.position, _BACKOFF
            if changing.done() and not changing.cancelled():
                members = self._membership.current
                continue
            if not reading.cancelled() and (error := reading.exception()) is not None:
                if not isinstance(error, AurumError | DecodeError | ValueError):
                    raise error
                logger.warning("the stream of new readings from %s broke and will be reopened: %s", address, error)
            await asyncio.sleep(backoff)
            backoff = min(_MAX_BACKOFF, 2 * backoff)

    async def _read(self, address: str, replica: Dependency, members: Members, stream: "_Stream") -> None:
        request = ingestion_pb2.FollowRequest(
            members=members.names,
            member=members.own if members.names else "",
            position=stream.position,
            interval_ms=self._interval_ms,
            heartbeat_ms=_HEARTBEAT_MS,
        )
        series, lag = StreamSeries(address), StreamLag()
        async with contextlib.aclosing(replica.endless(follow_method(replica.channel), request)) as responses:
            async for response in responses:
                received = time.monotonic()
                self._note(address, self._replicas[address].open_since or received, lag)
                if response.HasField("readings") or response.machines or response.gateways or response.gap:
                    await self._apply(series, response)
                lag.note(response.complete_us, received)
                stream.position = response.position

    def _note(self, address: str, open_since: float | None, lag: StreamLag | None = None) -> None:
        if address in self._replicas:
            replica = self._replicas[address]
            if replica.open_since is None and open_since is not None:
                if open_since - replica.closed_at > _OUTAGE_SECONDS:
                    replica.served_since = open_since
            elif replica.open_since is not None and open_since is None:
                replica.closed_at = time.monotonic()
            replica.open_since, replica.lag = open_since, lag or replica.lag
        opened = sum(replica.open_since is not None for replica in self._replicas.values())
        metrics.prediction_fleet_streams.set(opened)


@dataclass(slots=True)
class _Stream:
    """Where a stream is."""

    position: str
