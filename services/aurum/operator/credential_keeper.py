"""Keeps the credentials of a release in the cluster: reads its Secrets, writes those due, and tells its pods."""

import asyncio
import base64
import binascii
import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx2
from lightkube.core.exceptions import ApiError

from aurum.operator import metrics
from aurum.operator.credentials import (
    OPAQUE,
    RENEW,
    ROTATED,
    Credential,
    WantedCredentials,
    derive_credentials,
    first_end,
)
from aurum.operator.kubernetes import Cluster
from aurum.runtime.metrics import track_error

logger = logging.getLogger(__name__)

INTERVAL = 30.0  # seconds between two checks
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds until a failed check is repeated, doubling


class CredentialKeeper:
    """Creates missing credentials, and renews them before they end.

    Args:
        cluster: Access to the API server.
        wanted: What the release needs.
        may_write: Whether this operator holds the lease.
        now: Returns the time in UTC.
    """

    def __init__(
        self,
        cluster: Cluster,
        wanted: WantedCredentials,
        may_write: Callable[[], bool] = lambda: True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster = cluster
        self._wanted = wanted
        self._may_write = may_write
        self._now = now

    async def run(self) -> None:
        """Checks the credentials until it is cancelled."""
        pause, logged = _FIRST_PAUSE, ""
        while True:
            try:
                await self.check()
            except (ApiError, httpx2.HTTPError, OSError, ValueError) as error:
                problem = str(error) or type(error).__name__
                if problem != logged:
                    logger.error("the credentials could not be checked, next attempt in %.0f s: %s", pause, problem)
                logged = problem
                metrics.operator_request_errors_total.labels("secret").inc()
                metrics.operator_objects_failing.labels("secret").set(1)
                track_error(type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
            else:
                pause, logged = _FIRST_PAUSE, ""
                metrics.operator_objects_failing.labels("secret").set(0)
                await asyncio.sleep(INTERVAL)

    async def check(self) -> None:
        """Writes the credentials that are due. Raises ApiError, HTTPError or ValueError."""
        bodies = {name: await self._cluster.secret(name) for name in self._wanted.names}
        present = {name: _parse(name, body) for name, body in bodies.items() if body is not None}
        due = derive_credentials(self._wanted, present, self._now())
        for name, credential in due.items():  # the authority first, which signs the others
            if not self._may_write():
                return
            before = bodies[name]
            if before is None:
                await self._cluster.create_secret(name, _body(credential, {"name": name}))
            else:
                await self._cluster.replace_secret(name, _body(credential, before["metadata"]))
            logger.info(
                "a Secret was written", extra={"secret": name, "reason": "missing" if before is None else "due"}
            )
        end = first_end({**present, **due}.values())
        if end is not None:
            metrics.operator_certificate_seconds_left.set((end - self._now()).total_seconds())
        if due:
            await self._tell_pods({**present, **due})

    async def _tell_pods(self, credentials: Mapping[str, Credential]) -> None:
        """Annotates the pods, so that the kubelet updates their volumes now instead of within two minutes."""
        content = sorted((name, sorted(each.data.items())) for name, each in credentials.items())
        digest = hashlib.sha256(repr(content).encode()).hexdigest()[:16]
        for pod in await self._cluster.pods():
            if not self._may_write():
                return
            try:
                await self._cluster.announce_credentials(pod["metadata"]["name"], digest)
            except (ApiError, httpx2.HTTPError, OSError) as error:  # the kubelet updates the volumes anyway, later
                logger.info("pod %s follows new credentials later: %s", pod["metadata"]["name"], error)


def _parse(name: str, body: Mapping[str, Any]) -> Credential:
    """Converts the JSON of a Secret. Raises ValueError if it is invalid."""
    try:
        data = {key: base64.b64decode(value, validate=True) for key, value in (body.get("data") or {}).items()}
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"the Secret {name} is not base64: {error}") from error
    annotations = body["metadata"].get("annotations") or {}
    own = {key: str(annotations[key]) for key in (ROTATED, RENEW) if key in annotations}
    return Credential(data, body.get("type", OPAQUE), own)


def _body(credential: Credential, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON of a Secret. Labels and annotations of others stay."""
    annotations = {
        key: each for key, each in (metadata.get("annotations") or {}).items() if key not in (ROTATED, RENEW)
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**metadata, "annotations": {**annotations, **credential.annotations}},
        "type": credential.type,
        "data": {key: base64.b64encode(value).decode() for key, value in sorted(credential.data.items())},
    }
