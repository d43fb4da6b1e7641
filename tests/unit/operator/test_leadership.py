"""The Lease is counted from the moment at which the request that renewed it left, whenever the answer comes."""

import asyncio
import random
from typing import Any

import pytest

from aurum.operator.api_connection import REQUEST_TIMEOUT
from aurum.operator.leadership import DURATION, RENEW_WITHIN, Leadership, LeaseLostError
from aurum.resilience.virtual_time import VirtualLoop
from tests.support.operator_api import ApiServer, Client


class SlowClient(Client):
    """Each write is stored at once and answered so many seconds later."""

    pause = 0.0

    async def _ask(self, act: Any, *, hangs: bool = False) -> Any:
        result = act()
        await asyncio.sleep(self.pause)
        return result


def leadership(loop: VirtualLoop, api: ApiServer, identity: str = "a") -> tuple[SlowClient, Leadership]:
    client = SlowClient(api, random.Random(1), lambda kind: None)
    return client, Leadership(client, "plant", "operator", identity, loop.time)  # type: ignore[arg-type]


def test_lease_counts_from_when_the_request_left() -> None:
    loop = VirtualLoop()
    client, leads = leadership(loop, ApiServer(loop))
    client.pause = 3.0  # also for the read before

    async def hold() -> list[bool]:
        await leads.acquire()
        left = loop.time() - client.pause
        await asyncio.sleep(left + RENEW_WITHIN - 0.1 - loop.time())
        before = leads.holds
        await asyncio.sleep(0.2)
        return [before, leads.holds]

    assert loop.run(hold()) == [True, False]


def test_lease_taken_by_a_late_answer_is_not_held() -> None:
    loop = VirtualLoop()
    api = ApiServer(loop)
    api.put("Lease", "operator", {"spec": {}})
    client, leads = leadership(loop, api)
    client.pause = RENEW_WITHIN - 0.5  # a read and a write of that length do not fit

    async def late() -> bool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60.0):
                await leads.acquire()
        return leads.holds

    assert loop.run(late()) is False


@pytest.mark.parametrize("hold_up", ["hangs", "is slow"])
def test_holder_stops_before_another_can_take_over(hold_up: str) -> None:
    loop = VirtualLoop()
    api = ApiServer(loop)
    client, leads = leadership(loop, api)
    _, waits = leadership(loop, api, "b")
    ended: dict[str, float] = {}

    async def lead() -> None:
        await leads.acquire()
        loop.call_later(20.0, setattr, client, "pause", {"hangs": 1e6, "is slow": 9.0}[hold_up])
        with pytest.raises(LeaseLostError):
            await leads.renew_until_lost()
        ended["a"] = loop.time()
        assert not leads.holds

    async def run() -> None:
        leading = asyncio.ensure_future(lead())
        await asyncio.sleep(1.0)
        await waits.acquire()
        ended["b"] = loop.time()
        await leading

    loop.run(run())
    assert ended["a"] + REQUEST_TIMEOUT < ended["b"]


@pytest.mark.parametrize("spec", [None, {}, {"holderIdentity": "c", "leaseDurationSeconds": None}])
def test_lease_of_any_shape_is_taken_in_the_end(spec: Any) -> None:
    loop = VirtualLoop()
    api = ApiServer(loop)
    api.put("Lease", "operator", {"spec": spec})
    _, leads = leadership(loop, api)
    loop.run(leads.acquire())
    assert leads.holds
    assert loop.now <= DURATION + 2.0
