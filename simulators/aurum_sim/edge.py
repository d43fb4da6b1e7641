"""edge-sim: a gateway with simulated devices and an uplink that fails on a schedule."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from aurum.edge.gateway import gateway
from aurum.edge.settings import EdgeSettings
from aurum.runtime.service import Body, Service
from aurum_sim.iot import FleetOptions, devices
from aurum_sim.link import FlakyLink


@dataclass(frozen=True, slots=True)
class OutageOptions:
    """The schedule of the uplink.

    Attributes:
        up: Seconds for which the uplink is up.
        down: Seconds for which it is then down. It never fails if this is 0.
    """

    up: float = 90.0
    down: float = 15.0


def edge_sim(fleet: FleetOptions, outages: OutageOptions) -> Body[EdgeSettings]:
    """Returns the body of the edge-sim service."""

    @contextlib.asynccontextmanager
    async def body(service: Service[EdgeSettings]) -> AsyncGenerator[None]:
        settings = service.settings
        async with FlakyLink(settings.uplink_target) as link:
            if outages.down > 0:
                service.spawn(link.fail_on_schedule(outages.up, outages.down), "outages")
            own = service.dependency("edge", f"{settings.edge_host}:{settings.edge_port}")
            async with (
                gateway(service, link.address, name=settings.edge_name or service.name),
                devices(service, own, fleet),
            ):
                yield

    return body
