"""One operator writes at a time: the one that holds a Lease, as Kubernetes' own controllers do.

Whoever waits takes a Lease that it has seen unchanged for its duration. The holder therefore counts from the moment at
which the request that renewed it left: the API server cannot have stored it earlier, nor anybody seen it earlier. It
stops when it could not renew for `RENEW_WITHIN`, and a request that has left by then is given up `REQUEST_TIMEOUT`
later, before anybody can take over.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
from lightkube.core.async_client import AsyncClient
from lightkube.core.exceptions import ApiError
from lightkube.resources.coordination_v1 import Lease
from lightkube.types import PatchType

from aurum.operator.connecting import REQUEST_TIMEOUT
from aurum.runtime import metrics

logger = logging.getLogger(__name__)

DURATION = 15.0  # seconds after which a Lease that was not renewed may be taken
RENEW_WITHIN = 10.0  # seconds since the last renewal left, after which the holder stops
RENEWAL = 3.0  # seconds between two renewals
_RETRY = 1.0  # seconds until the next attempt to take it, or to renew it after one that failed
_NOT_FOUND, _CONFLICT = 404, 409

assert RENEW_WITHIN + REQUEST_TIMEOUT < DURATION  # noqa: S101 - or two operators could write at a time


class LeaseLostError(RuntimeError):
    """Another operator has taken over, or may have: this one must not write any more."""


class Leadership:
    """name: of the Lease; identity: of this operator."""

    def __init__(
        self, client: AsyncClient, namespace: str, name: str, identity: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._seen: tuple[str | None, object] = (None, None)
        self._seen_at = clock()
        self._renewed = float("-inf")  # when the request left that took or renewed it last

    @property
    def holds(self) -> bool:
        """Whether a write that leaves now is one of the only operator that writes."""
        return self._clock() - self._renewed < RENEW_WITHIN

    async def acquire(self) -> None:
        """Returns when this operator is the one."""
        said = ""
        while True:
            try:
                async with asyncio.timeout(RENEW_WITHIN):
                    taken = await self._try()
                if taken and self.holds:
                    break
                why = "the answer that this operator holds it came too late" if taken else "another operator holds it"
            except (ApiError, httpx2.HTTPError, OSError) as error:
                why = str(error) or type(error).__name__
            if why != said:
                logger.warning("waiting for the lease %s: %s", self._name, why)
                said = why
            await asyncio.sleep(_RETRY)
        metrics.operator_leader.set(1)
        logger.info("this operator holds the lease %s", self._name)

    async def keep(self) -> None:
        """Renews, for as long as it runs. Raises LeaseLostError before another one could take over."""
        pause = RENEWAL
        problem = "it was not tried in time"
        try:
            while True:
                await asyncio.sleep(max(0.0, min(pause, self._left())))
                if self._left() <= 0:
                    raise LeaseLostError(f"the lease {self._name} could not be renewed: {problem}")
                pause = _RETRY
                try:
                    async with asyncio.timeout(self._left()):
                        if not await self._try(renewing=True):
                            raise LeaseLostError(f"the lease {self._name} was taken by {self._seen[0] or 'nobody'}")
                    pause = RENEWAL
                except (ApiError, httpx2.HTTPError, OSError) as error:
                    problem = str(error) or type(error).__name__
                    logger.warning("the lease %s could not be renewed: %s", self._name, problem)
        finally:
            self._renewed = float("-inf")
            metrics.operator_leader.set(0)

    async def release(self) -> None:
        """Lets the next operator begin at once. To be called when nothing that this one writes is on its way."""
        self._renewed = float("-inf")
        metrics.operator_leader.set(0)
        lease = await self._read()
        if lease and _spec(lease).get("holderIdentity") == self._identity:
            await self._write(lease, {"holderIdentity": ""})

    def _left(self) -> float:
        """Seconds until this operator must have renewed it."""
        return self._renewed + RENEW_WITHIN - self._clock()

    async def _read(self) -> dict[str, Any] | None:
        try:
            found = await self._client.get(Lease, self._name, namespace=self._namespace)
        except ApiError as error:
            if error.status.code == _NOT_FOUND:
                return None
            raise
        return dict(found.to_dict())

    async def _write(self, lease: dict[str, Any] | None, spec: dict[str, Any]) -> bool:
        """Makes or changes the Lease; False if somebody else has been quicker: of two writes that begin from the same
        version the API server lets only one through."""
        metrics.operator_writes_total.labels("lease").inc()
        try:
            if lease is None:
                made = {"metadata": {"name": self._name}, "spec": spec}
                await self._client.create(Lease.from_dict(made), namespace=self._namespace)  # type: ignore[call-overload]
            else:
                body = {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}, "spec": spec}
                await self._client.patch(Lease, self._name, body, namespace=self._namespace, patch_type=PatchType.MERGE)
        except ApiError as error:
            if error.status.code == _CONFLICT:
                return False
            raise
        return True

    async def _try(self, *, renewing: bool = False) -> bool:
        """Takes or renews the Lease; False while another one holds it, or if it is not this one's to renew."""
        lease = await self._read()
        held = _spec(lease)
        holder = held.get("holderIdentity") or None
        if renewing and holder != self._identity:
            self._seen = (holder, held.get("renewTime"))
            return False
        if holder not in (self._identity, None) and not self._expired(held):
            return False
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._identity, "leaseDurationSeconds": int(DURATION), "renewTime": now}
        if holder != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": (held.get("leaseTransitions") or 0) + 1}
        left = self._clock()
        if not await self._write(lease, spec):
            return False
        self._renewed = left
        return True

    def _expired(self, held: dict[str, Any]) -> bool:
        """Whether a Lease has not changed for its duration, by this clock: those of others may be wrong."""
        seen = (held.get("holderIdentity"), held.get("renewTime"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        return self._clock() - self._seen_at > float(held.get("leaseDurationSeconds") or DURATION)


def _spec(lease: dict[str, Any] | None) -> dict[str, Any]:
    return (lease or {}).get("spec") or {}
