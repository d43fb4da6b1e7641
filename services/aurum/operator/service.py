"""The operator as a service: leader election, watches and reconciliation."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import httpx2
from lightkube.core.exceptions import ApiError

from aurum.operator.api_connection import REQUEST_TIMEOUT, open_client
from aurum.operator.credential_keeper import CredentialKeeper
from aurum.operator.credentials import WantedCredentials
from aurum.operator.informer_cache import InformerCache
from aurum.operator.kubernetes import Cluster
from aurum.operator.leadership import Leadership
from aurum.operator.pod_poller import PodPoller
from aurum.operator.reconciler import Reconciler
from aurum.operator.rollout_analysis import RolloutAnalysis
from aurum.operator.settings import OperatorSettings
from aurum.operator.watching import watch
from aurum.resilience.durations import Seconds
from aurum.resilience.policy import BulkheadSpec, CircuitBreakerSpec, Policy, RetrySpec, TimeoutSpec
from aurum.runtime.policy.document import PlatformPolicyDocument
from aurum.runtime.service import Service

logger = logging.getLogger(__name__)

_PODS_AT_A_TIME = 64

# There is no breaker, because all pods would share it and one hanging pod would block the requests to the others
BUILT_IN = PlatformPolicyDocument(
    uid="operator",
    policies=(
        Policy(
            target="operator/pods/*",
            timeout=TimeoutSpec(deadline=Seconds(1.0), attempt=Seconds(1.0), connect=Seconds(0.5)),
            retry=RetrySpec(max_attempts=1),
            circuit_breaker=CircuitBreakerSpec(enabled=False),
            bulkhead=BulkheadSpec(max_concurrent=_PODS_AT_A_TIME),
        ),
    ),
)


@contextlib.asynccontextmanager
async def operator(service: Service[OperatorSettings]) -> AsyncGenerator[None]:
    """Manages the policies of one release. It watches and writes only after it has acquired the lease."""
    settings = service.settings
    if service.policies.path is None:
        service.policies.apply(BUILT_IN)
    client = open_client(settings.operator_namespace)
    namespace = client.namespace
    cluster = Cluster(client, namespace, settings.operator_release)
    store = InformerCache(settings.operator_defaults)
    identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}_{os.getpid()}"
    leadership = Leadership(client, namespace, f"{settings.operator_release}-operator", identity)

    nudged = asyncio.Event()
    reports = PodPoller(
        service.admin_dependency("pods", "pods", connections=_PODS_AT_A_TIME),
        nudged.set,
    )
    guards = None
    if settings.operator_prometheus_url:
        address = urlsplit(settings.operator_prometheus_url)
        prometheus = service.http_dependency("prometheus", address.netloc)
        guards = RolloutAnalysis(prometheus, address.path.rstrip("/"), nudged.set)
    reconciler = Reconciler(
        cluster,
        store,
        reports,
        guards,
        nudged,
        resync=settings.operator_resync,
        may_write=lambda: leadership.holds,
    )
    wanted = _wanted_credentials(settings, namespace)
    credentials = CredentialKeeper(cluster, wanted, may_write=lambda: leadership.holds) if wanted.names else None
    leading: list[asyncio.Task[None]] = []

    async def lead() -> None:
        await leadership.acquire()
        leading.append(service.spawn(leadership.renew_until_lost(), "lease"))
        leading.append(service.spawn(reconciler.run(), "reconciler"))
        if credentials:
            leading.append(service.spawn(credentials.run(), "credentials"))
        service.spawn(watched(), "watch")
        service.spawn(reports.run(), "reports")
        if guards:
            service.spawn(guards.run(), "guards")

    async def watched() -> None:
        await watch(namespace, settings.operator_release, store, nudged.set)
        service.stop()  # kopf handles the signals that end a process, and returns

    leading.append(service.spawn(lead(), "leader"))
    try:
        yield
    finally:
        for task in leading:
            task.cancel()
        await asyncio.gather(*leading, return_exceptions=True)  # all writes end before the lease is released
        with contextlib.suppress(ApiError, httpx2.HTTPError, OSError):
            async with asyncio.timeout(REQUEST_TIMEOUT):
                await leadership.release()
        await client.aclose()


def _wanted_credentials(settings: OperatorSettings, namespace: str) -> WantedCredentials:
    return WantedCredentials(
        namespace=namespace,
        services=settings.certificate_services,
        authority=settings.operator_authority,
        admin=settings.operator_admin_secret,
        sessions=settings.operator_session_secret,
        certificate_days=settings.operator_certificate_days,
        authority_days=settings.operator_authority_days,
        token_days=settings.operator_token_days,
    )
