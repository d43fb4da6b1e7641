"""One operator writes at a time: the one that holds a Lease, as Kubernetes' own controllers do."""

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

from aurum.runtime import metrics

logger = logging.getLogger(__name__)

DURATION = 15.0  # seconds after which a Lease that was not renewed may be taken
RENEWAL = 5.0  # seconds between two renewals
_RETRY = 1.0
_NOT_FOUND, _CONFLICT = 404, 409


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

    async def acquire(self) -> None:
        """Returns when this operator is the one."""
        said = ""
        while True:
            try:
                if await self._try():
                    break
                why = "another operator holds it"
            except (ApiError, httpx2.HTTPError) as error:
                why = str(error) or type(error).__name__
            if why != said:
                logger.warning("waiting for the lease %s: %s", self._name, why)
                said = why
            await asyncio.sleep(_RETRY)
        metrics.operator_leader.set(1)
        logger.info("this operator holds the lease %s", self._name)

    async def keep(self) -> None:
        """Renews, for as long as it runs. Raises LeaseLostError before another one could take over."""
        renewed = self._clock()
        while True:
            await asyncio.sleep(RENEWAL)
            try:
                if not await self._try():
                    raise LeaseLostError(f"the lease {self._name} was taken by {self._seen[0]}")
                renewed = self._clock()
            except (ApiError, httpx2.HTTPError, LeaseLostError) as error:
                if isinstance(error, LeaseLostError) or self._clock() - renewed > DURATION - RENEWAL:
                    metrics.operator_leader.set(0)
                    raise LeaseLostError(f"the lease {self._name} could not be renewed: {error}") from error
                logger.warning("the lease %s could not be renewed: %s", self._name, error)

    async def release(self) -> None:
        """Lets the next operator begin at once."""
        lease = await self._read()
        if lease and lease["spec"].get("holderIdentity") == self._identity:
            await self._write(lease, {"holderIdentity": ""})
        metrics.operator_leader.set(0)

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

    async def _try(self) -> bool:
        """Takes or renews the Lease; False while another one holds it."""
        lease = await self._read()
        held = lease["spec"] if lease else {}
        holder = held.get("holderIdentity") or None
        if holder not in (self._identity, None) and not self._expired(held):
            return False
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._identity, "leaseDurationSeconds": int(DURATION), "renewTime": now}
        if holder != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": held.get("leaseTransitions", 0) + 1}
        return await self._write(lease, spec)

    def _expired(self, held: dict[str, Any]) -> bool:
        """Whether a Lease has not changed for its duration, by this clock: those of others may be wrong."""
        seen = (held.get("holderIdentity"), held.get("renewTime"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        return self._clock() - self._seen_at > float(held.get("leaseDurationSeconds", DURATION))
