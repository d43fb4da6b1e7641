"""The live scorers, among which the machines are divided.

Each scorer finds out by itself who lives, from the addresses of the headless Service and from health checks. Two that
see different members for a moment score some machines twice, which does no harm.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurum.prediction.fleet import metrics
from aurum.prediction.fleet.addresses import is_name, join_address, resolve, split_address
from aurum.runtime.errors import AurumError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.rpc_methods import PREDICTION_SERVICE
from aurum.runtime.service import Service
from aurum.runtime.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

RESOLVE_SECONDS = 2.0
CHECK_SECONDS = 1.0  # between two health checks of a peer, and the timeout of one
DECIDE_SECONDS = 0.5
_FIRST_SECONDS = 3.0  # that a starting scorer waits for the answers of its peers
FAILURES = 3  # health checks in a row after which a peer counts as dead
_JOIN_SECONDS = 30.0  # that a scorer waits for its own address in DNS before it takes a share anyway
_MAX_PEERS = 1000


@dataclass(frozen=True, slots=True)
class Members:
    """The live scorers.

    Attributes:
        names: Their addresses, sorted; empty if this one scores all machines.
        own: The address of this one; empty if it has no peers.
    """

    names: tuple[str, ...] = ()
    own: str = ""

    @property
    def scores(self) -> bool:
        """Whether this scorer has a share."""
        return not self.names or self.own in self.names


@dataclass(slots=True)
class _Peer:
    """A peer: its health checks, and how many of them have failed in a row. A new one has to answer first."""

    checks: asyncio.Task[None]
    failures: int = FAILURES


class Membership:
    """Follows which scorers live.

    Attributes:
        current: The members.
    """

    def __init__(self, service: Service[Settings], peers: str, own_address: str) -> None:
        """Reads the settings.

        Args:
            service: This service.
            peers: host:port of a headless Service, or the addresses of all scorers, separated by commas, or empty.
            own_address: The address of this one, as host:port or, with the port of the peers, as host.

        Raises:
            SettingsError: The settings contradict each other.
        """
        self._service = service
        self._peers: dict[str, _Peer] = {}
        self._changed = asyncio.Event()
        self._started = 0.0
        self._joined = False
        try:
            self._addresses = [split_address(each) for each in peers.split(",") if each.strip()]
        except ValueError as error:
            raise SettingsError(f"AURUM_PREDICTION_PEERS: {error}") from error
        if not self._addresses:
            self.current = Members()
            metrics.prediction_fleet_members.set(1)
            return
        if not own_address:
            raise SettingsError(
                "AURUM_PREDICTION_OWN_ADDRESS must be the address of this process among AURUM_PREDICTION_PEERS"
            )
        try:
            host, port = split_address(own_address) if own_address.count(":") == 1 else (own_address, 0)
        except ValueError as error:
            raise SettingsError(f"AURUM_PREDICTION_OWN_ADDRESS: {error}") from error
        self._own = join_address(host, port or self._addresses[0][1])
        named = len(self._addresses) == 1 and is_name(self._addresses[0][0])
        self._name = self._addresses[0] if named else None
        if not named and self._own not in {join_address(*each) for each in self._addresses}:
            raise SettingsError(f"AURUM_PREDICTION_OWN_ADDRESS: {self._own} is none of AURUM_PREDICTION_PEERS")
        # Until the others are known, this scorer has no share
        self.current = Members(("",), self._own)

    @property
    def alone(self) -> bool:
        """Whether there are no peers."""
        return not self._addresses

    async def wait_for_change(self, known: Members) -> Members:
        """Returns the members as soon as they differ from the known ones."""
        while self.current == known:
            await self._changed.wait()
        return self.current

    async def run(self) -> None:
        """Follows the members. Runs until cancelled."""
        if not self._addresses:
            return
        self._started = time.monotonic()
        resolved = -RESOLVE_SECONDS
        try:
            while True:
                if time.monotonic() - resolved >= RESOLVE_SECONDS:
                    await self._follow_addresses()
                    resolved = time.monotonic()
                self._decide()
                await asyncio.sleep(DECIDE_SECONDS)
        finally:
            for peer in self._peers.values():
                peer.checks.cancel()

    async def _follow_addresses(self) -> None:
        found = [join_address(*each) for each in self._addresses]
        if self._name is not None:
            try:
                found = (await resolve(*self._name))[:_MAX_PEERS]
            except OSError as error:
                logger.warning("the peers at %s cannot be resolved, the last ones are kept: %s", self._name[0], error)
                return
        self._joined = self._own in found
        others = set(found) - {self._own}
        for address in set(self._peers) - others:
            self._peers.pop(address).checks.cancel()
        for address in others - set(self._peers):
            checks = self._service.spawn(self._check(address), f"peer:{address}")
            self._peers[address] = _Peer(checks)

    def _decide(self) -> None:
        """Decides who lives. Without its own address in DNS, a new scorer waits for it, and an old one has no share."""
        alive = {address for address, peer in self._peers.items() if peer.failures < FAILURES}
        waited = time.monotonic() - self._started
        if waited < _FIRST_SECONDS and len(alive) < len(self._peers):
            return  # the first health checks are in progress
        if self._joined or (not alive and waited >= _JOIN_SECONDS):
            alive.add(self._own)
        if not alive:
            return
        members = Members(tuple(sorted(alive)), self._own)
        if members != self.current:
            logger.info("the machines are divided anew among the live scorers", extra={"scorers": list(members.names)})
            metrics.prediction_fleet_members.set(len(members.names))
            self.current = members
            self._changed.set()
            self._changed = asyncio.Event()

    async def _check(self, address: str) -> None:
        """Checks the health of a peer until cancelled."""
        server_name = self._name[0] if self._name else ""
        async with self._service.connection("prediction", address, server_name) as peer:
            health = health_pb2_grpc.HealthStub(peer.channel)
            while True:
                healthy = await _is_serving(peer, health)
                if address in self._peers:
                    self._peers[address].failures = 0 if healthy else self._peers[address].failures + 1
                await asyncio.sleep(CHECK_SECONDS)


async def _is_serving(peer: Dependency, health: health_pb2_grpc.HealthStub) -> bool:
    """Asks a peer without policies, since a breaker would hide that it answers again."""
    request = health_pb2.HealthCheckRequest(service=PREDICTION_SERVICE)
    with contextlib.suppress(grpc.aio.AioRpcError, AurumError):
        answer = await health.Check(request, timeout=CHECK_SECONDS)  # type: ignore[attr-defined]
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return False
