"""Leader election: only the operator that holds a Lease writes, as with Kubernetes' own controllers.

A waiting operator takes a Lease that it has seen unchanged for the Lease's duration. The holder therefore counts from
the time at which it sent the renewing request, because the API server cannot have stored it earlier and no one can have
seen it earlier. The holder stops if it could not renew for `RENEW_WITHIN`. A request that it has sent by then is
abandoned `REQUEST_TIMEOUT` later, before another operator can take over.
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

from aurum.operator import metrics
from aurum.operator.api_connection import REQUEST_TIMEOUT

logger = logging.getLogger(__name__)

DURATION = 15.0  # seconds after which a Lease that was not renewed can be taken
RENEW_WITHIN = 10.0  # seconds after sending the last renewal, after which the holder stops
RENEWAL = 3.0  # seconds between two renewals
_RETRY = 1.0  # seconds until the next attempt to take it, or to renew it after a failure
_NOT_FOUND, _CONFLICT = 404, 409

assert RENEW_WITHIN + REQUEST_TIMEOUT < DURATION  # noqa: S101 - or two operators could write at a time


class LeaseLostError(RuntimeError):
    """Raised when another operator has taken over or may have done so. This operator must not write any more."""


class Leadership:
    """Acquires and keeps a Lease.

    Args:
        client: Client of the API server.
        namespace: Namespace of the Lease.
        name: Name of the Lease.
        identity: Identity of this operator.
        clock: Monotonic clock in seconds.
    """

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
        self._renewed = float("-inf")  # when the request was sent that last took or renewed it

    @property
    def holds(self) -> bool:
        """Whether this operator may send a write now."""
        return self._clock() - self._renewed < RENEW_WITHIN

    async def acquire(self) -> None:
        """Returns when this operator holds the Lease."""
        logged_reason = ""
        while True:
            try:
                async with asyncio.timeout(RENEW_WITHIN):
                    taken = await self._try_renew()
                if taken and self.holds:
                    break
                reason = (
                    "the answer that this operator holds it came too late" if taken else "another operator holds it"
                )
            except (ApiError, httpx2.HTTPError, OSError) as error:
                reason = str(error) or type(error).__name__
            if reason != logged_reason:
                logger.warning("waiting for the lease %s: %s", self._name, reason)
                logged_reason = reason
            await asyncio.sleep(_RETRY)
        metrics.operator_leader.set(1)
        logger.info("this operator holds the lease %s", self._name)

    async def renew_until_lost(self) -> None:
        """Renews the Lease until it is cancelled. Raises LeaseLostError before another operator could take over."""
        pause = RENEWAL
        problem = "it was not tried in time"
        try:
            while True:
                await asyncio.sleep(max(0.0, min(pause, self._seconds_left())))
                if self._seconds_left() <= 0:
                    raise LeaseLostError(f"the lease {self._name} could not be renewed: {problem}")
                pause = _RETRY
                try:
                    async with asyncio.timeout(self._seconds_left()):
                        if not await self._try_renew(renewing=True):
                            raise LeaseLostError(f"the lease {self._name} was taken by {self._seen[0] or 'nobody'}")
                    pause = RENEWAL
                except (ApiError, httpx2.HTTPError, OSError) as error:
                    problem = str(error) or type(error).__name__
                    logger.warning("the lease %s could not be renewed: %s", self._name, problem)
        finally:
            self._renewed = float("-inf")
            metrics.operator_leader.set(0)

    async def release(self) -> None:
        """Gives up the Lease, so that the next operator can begin at once. All writes must have ended before."""
        self._renewed = float("-inf")
        metrics.operator_leader.set(0)
        lease = await self._read()
        if lease and _spec(lease).get("holderIdentity") == self._identity:
            await self._write(lease, {"holderIdentity": ""})

    def _seconds_left(self) -> float:
        """Seconds in which this operator must renew the Lease."""
        return self._renewed + RENEW_WITHIN - self._clock()

    async def _read(self) -> dict[str, Any] | None:
        try:
            lease = await self._client.get(Lease, self._name, namespace=self._namespace)
        except ApiError as error:
            if error.status.code == _NOT_FOUND:
                return None
            raise
        return dict(lease.to_dict())

    async def _write(self, lease: dict[str, Any] | None, spec: dict[str, Any]) -> bool:
        """Creates or changes the Lease. Returns False if another operator was faster.

        The API server accepts only one of two writes that are based on the same version.
        """
        metrics.operator_writes_total.labels("lease").inc()
        try:
            if lease is None:
                body = {"metadata": {"name": self._name}, "spec": spec}
                await self._client.create(Lease.from_dict(body), namespace=self._namespace)  # type: ignore[call-overload]
            else:
                body = {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}, "spec": spec}
                await self._client.patch(Lease, self._name, body, namespace=self._namespace, patch_type=PatchType.MERGE)
        except ApiError as error:
            if error.status.code == _CONFLICT:
                return False
            raise
        return True

    async def _try_renew(self, *, renewing: bool = False) -> bool:
        """Takes or renews the Lease. Returns False if another operator holds it."""
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
        sent_at = self._clock()
        if not await self._write(lease, spec):
            return False
        self._renewed = sent_at
        return True

    def _expired(self, held: dict[str, Any]) -> bool:
        """Whether a Lease has not changed for its duration by our own clock. The clocks of others may be wrong."""
        seen = (held.get("holderIdentity"), held.get("renewTime"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        return self._clock() - self._seen_at > float(held.get("leaseDurationSeconds") or DURATION)


def _spec(lease: dict[str, Any] | None) -> dict[str, Any]:
    return (lease or {}).get("spec") or {}
