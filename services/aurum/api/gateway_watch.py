"""Watches the edge gateways by their admin servers, so that one that hangs is noticed although it stays connected."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aurum.api import metrics
from aurum.api.platform_view import poll_process, resolve
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.http.client import HttpDependency

_ROUND_SECONDS = 2.0
_SILENT_SECONDS = 8.0  # without an answer, after which a gateway does not run
_SERVICES = ("edge", "edge-sim")  # whose processes are gateways


@dataclass(slots=True)
class _Gateway:
    name: str
    answered_at: float  # monotonic seconds
    answered_us: int  # the same in µs since 1970


class GatewayWatch:
    """The gateways that have answered once, and which of them do not answer any more."""

    def __init__(self, servers: Mapping[str, HttpDependency]) -> None:
        """Prepares the watch. servers: The admin servers by service."""
        self._servers = {name: servers[name] for name in _SERVICES if name in servers}
        self._gateways: dict[tuple[str, str], _Gateway] = {}  # by service and address

    async def run(self) -> None:
        """Polls the gateways periodically. Runs until cancelled."""
        while True:
            await asyncio.gather(*(self._poll(service, server) for service, server in self._servers.items()))
            metrics.gateways_hanging.set(len(self.hanging()))
            await asyncio.sleep(_ROUND_SECONDS)

    def hanging(self) -> list[dict[str, Any]]:
        """Returns the gateways that do not answer, each with its name and since when, in ms since 1970."""
        latest = time.monotonic() - _SILENT_SECONDS
        return [
            {"name": gateway.name, "since": gateway.answered_us // 1000}
            for gateway in sorted(self._gateways.values(), key=lambda each: each.name)
            if gateway.answered_at < latest
        ]

    async def _poll(self, service: str, server: HttpDependency) -> None:
        try:
            addresses = await resolve(server.address)
        except OSError:
            return  # the gateways that were known stay so, since their name may be resolved again
        for key in [key for key in self._gateways if key[0] == service and key[1] not in addresses]:
            del self._gateways[key]  # it was removed
        await asyncio.gather(*(self._ask(service, server, address) for address in addresses))

    async def _ask(self, service: str, server: HttpDependency, address: str) -> None:
        with criticality_scope(Criticality.BATCH):
            state = await poll_process(service, server, "/overview", address)
        if state["reachable"]:
            name = str(state.get("gateway") or state.get("instance") or address)
            self._gateways[service, address] = _Gateway(name, time.monotonic(), time.time_ns() // 1000)
