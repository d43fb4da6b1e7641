"""Runs a service with logs, metrics, traces, health, admin server and policies, and stops it gracefully."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
from opentelemetry.sdk.trace import TracerProvider

from aurum import __version__
from aurum.runtime import damage, metrics
from aurum.runtime.admin.auth import admin_auth
from aurum.runtime.admin.process_stats import process_stats
from aurum.runtime.admin.server import admin_app
from aurum.runtime.admin.tokens import AdminTokens
from aurum.runtime.allocator import return_large_blocks
from aurum.runtime.audit import AuditLog
from aurum.runtime.event_loop import run
from aurum.runtime.faults import Faults
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.grpc.server import Admit, rpc_server
from aurum.runtime.grpc.tls import certificate_folder
from aurum.runtime.health import Health
from aurum.runtime.http.server import http_server
from aurum.runtime.listener import listen
from aurum.runtime.policy.outcome_recorder import OutcomeRecorder
from aurum.runtime.policy.policies import Policies
from aurum.runtime.policy.watch import follow_policy_file
from aurum.runtime.settings import Settings, warn_of_unknown
from aurum.runtime.telemetry.audit_export import AuditExport
from aurum.runtime.telemetry.event_loop import measure_lag
from aurum.runtime.telemetry.logging import setup_logging
from aurum.runtime.telemetry.span_ring import SpanRing
from aurum.runtime.telemetry.tracing import setup_tracing

if TYPE_CHECKING:
    from aurum.runtime.http.client import HttpDependency

logger = logging.getLogger(__name__)

_SWITCH_INTERVAL = 0.0005  # seconds that a busy thread may block the event loop; Python's default is 0.005
_GC_THRESHOLD = (20_000, 20, 50)  # collections are rare, since messages and spans have no cycles
_LAST_RESORT = 9.5  # seconds until a hanging stop is aborted; supervisors kill after 10


S = TypeVar("S", bound=Settings)
S_co = TypeVar("S_co", bound=Settings, covariant=True)


class Service(Generic[S_co]):
    """A running service, as its body sees it. It is generic in its settings."""

    def __init__(self, name: str, settings: S_co, spans: SpanRing | None, audit: AuditLog) -> None:
        """spans: The latest spans, or None if they are not kept."""
        self.name = name
        self.settings = settings
        self.spans = spans
        self.health = Health()
        self.audit = audit
        self.policies = Policies(name, settings, self.audit)
        self.faults = Faults(settings.faults_enabled)
        self._stack = contextlib.AsyncExitStack()
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._described: dict[str, Callable[[], Any]] = {}
        self.failed = False

    def stop(self) -> None:
        """Asks the service to stop. A second call skips the drain period."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    def overview(self) -> dict[str, Any]:
        """Returns the state of this process and what it has in force."""
        return {
            **self.policies.state(),
            **process_stats(),
            "faults": self.faults.active(),
            "missing": self.health.missing(),
            "damaged": damage.latest(),
            **{name: state() for name, state in self._described.items()},
        }

    def describe(self, name: str, state: Callable[[], Any]) -> None:
        """Adds a section that only this service has to its overview."""
        self._described[name] = state

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Runs background work. If it fails, the service ends so that it is restarted."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def dependency(self, server: str, target: str) -> Dependency:
        """Creates the client of another service. Its channel is closed when this service ends."""
        dependency = Dependency(
            self.name,
            server,
            target,
            self.policies,
            self.settings.rpc_max_message_bytes,
            certificate_folder(self.settings),
        )
        if dependency.follows_certificates:
            self.spawn(dependency.follow_certificates(), f"certificates:{server}")
        self._stack.push_async_callback(dependency.close)
        return dependency

    @contextlib.asynccontextmanager
    async def connection(self, server: str, address: str, server_name: str) -> AsyncGenerator[Dependency]:
        """Connects to one address of another service during a block. server_name: The name in its certificate."""
        dependency = Dependency(
            self.name,
            server,
            address,
            self.policies,
            self.settings.rpc_max_message_bytes,
            certificate_folder(self.settings),
            server_name,
        )
        following = None
        if dependency.follows_certificates:
            following = self.spawn(dependency.follow_certificates(), f"certificates:{server}")
        try:
            yield dependency
        finally:
            if following is not None:
                following.cancel()
            await dependency.close()

    def http_dependency(
        self,
        server: str,
        address: str,
        *,
        connections: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "HttpDependency":
        """Creates the HTTP client of another service. Its connections are closed when this service ends.

        Args:
            server: The name of the other service.
            address: Its address.
            connections: Greatest number of open connections; None for the client's default.
            headers: Sent with each request.
        """
        return self._http_client(server, address, connections, headers=headers)

    def admin_dependency(self, server: str, address: str, *, connections: int | None = None) -> "HttpDependency":
        """Creates the HTTP client of admin servers, which sends the admin token as it is at the time of each call."""
        tokens = AdminTokens.of(self.settings)
        return self._http_client(server, address, connections, authorizations=tokens.authorizations if tokens else None)

    def _http_client(
        self,
        server: str,
        address: str,
        connections: int | None,
        *,
        headers: Mapping[str, str] | None = None,
        authorizations: Callable[[], Sequence[str]] | None = None,
    ) -> "HttpDependency":
        from aurum.runtime.http.client import CONNECTIONS, HttpDependency  # noqa: PLC0415 - httpx takes 10 MB

        dependency = HttpDependency(
            self.name,
            server,
            address,
            self.policies,
            connections=connections or CONNECTIONS,
            headers=headers,
            authorizations=authorizations,
        )
        self._stack.push_async_callback(dependency.close)
        return dependency

    def rpc_server(
        self,
        register: Callable[[grpc.aio.Server], None],
        service_names: Sequence[str],
        host: str,
        port: int,
        *,
        setting: str,
        authorizer: Admit | None,
    ) -> AbstractAsyncContextManager[int]:
        """Runs a gRPC server during a block. The arguments are those of `runtime.rpc_server.rpc_server`."""
        return rpc_server(
            register,
            service_names,
            host=host,
            port=port,
            setting=setting,
            settings=self.settings,
            health_state=self.health,
            limits=(self.policies.admission(), self.policies.stream_limit(self.settings.rpc_max_streams)),
            faults=self.faults,
            authorizer=authorizer,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Runs background work and keeps dependencies open during the block."""
        async with self._stack:
            if self.settings.outcomes_enabled:
                recorder = OutcomeRecorder(self.settings.outcomes_path(self.name), self.settings.outcomes_max_bytes)
                self._stack.callback(recorder.close)
                self.policies.pipelines.record = recorder.record
            self.spawn(measure_lag(), "event-loop-lag")
            if self.policies.path:
                self.spawn(follow_policy_file(self.policies), "policy-watch")
            try:
                yield
            finally:
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for_stop(self) -> None:
        """Returns when the service was asked to stop and has drained."""
        await self._stop.wait()
        if self.settings.shutdown_drain and not self.failed:
            logger.info("%s is draining for %s s", self.name, self.settings.shutdown_drain)
            self.health.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop_now.wait(), self.settings.shutdown_drain)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # from outside, or from within, as gRPC does with a call that it gives up
            error: BaseException | None = None if task.cancelling() else asyncio.CancelledError()
        else:
            error = task.exception()
        if error is not None:
            logger.critical("%s failed, the service ends", task.get_name(), exc_info=error)
            metrics.track_error(type(error).__name__)
            self.failed = True
            self._stop.set()
            self._stop_now.set()


Body = Callable[[Service[S]], AbstractAsyncContextManager[None]]


def run_service(name: str, body: Body[S], settings: S, setting_names: Collection[str]) -> int:
    """Runs a service until SIGTERM or SIGINT, and returns its exit code.

    Args:
        name: Name of the service.
        body: Context manager that is entered before the service is ready. It is left to drain the service, first the
            requests and then what they wrote.
        settings: Settings of the service.
        setting_names: Environment variables of all services. Others with the prefix AURUM_ are logged as unknown.

    Raises:
        PolicyError: The policy document is invalid.
        SettingsError: Settings contradict each other.
        OSError: A port or file cannot be used.
    """
    setup_logging(name, settings)
    warn_of_unknown(setting_names)
    metrics.describe_system(name, settings.environment)
    spans = SpanRing(settings.ring_spans, settings.tracing_ring_slow) if settings.ring_spans else None
    provider = setup_tracing(name, settings, spans)
    endpoint = settings.tracing_otlp_endpoint
    audit = AuditLog(settings.audit_file, AuditExport(name, settings, endpoint) if endpoint else None)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.set_threshold(*_GC_THRESHOLD)
    return_large_blocks()
    try:
        return run(name, _run(name, body, settings, spans, audit), settings.event_loop)
    finally:
        _flush(provider, audit)
        logging.shutdown()


async def _run(name: str, body: Body[S], settings: S, spans: SpanRing | None, audit: AuditLog) -> int:
    service = Service(name, settings, spans, audit)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop)
    listener = listen(settings.admin_host, settings.admin_port_of(name), "AURUM_ADMIN_PORT")
    app = admin_app(
        name,
        service.health,
        service.faults,
        policy=service.policies.state,
        overview=service.overview,
        spans=spans,
    )
    async with http_server(admin_auth(app, settings), listener, 1.0), service.running(), body(service):
        gc.collect()
        gc.freeze()  # loaded objects are permanent; scanning them again and again would delay requests
        service.health.started()
        if settings.faults_enabled:
            logger.warning("faults can be injected into this process (AURUM_FAULTS_ENABLED)")
        logger.info("%s %s is ready", name, __version__, extra={"admin_port": listener.getsockname()[1]})
        await service.wait_for_stop()
        logger.info("%s is stopping", name)
        watchdog = threading.Timer(_LAST_RESORT, _cut_short, [name])
        watchdog.daemon = True
        watchdog.start()
        service.health.stopping()
    logger.info("%s has stopped", name)
    return 1 if service.failed else 0


def _flush(provider: TracerProvider | None, audit: AuditLog) -> None:
    """Exports the last spans and audit events, waiting at most 2 s for a collector that is down."""
    work = [threading.Thread(target=audit.close, name="audit-end", daemon=True)]
    if provider:
        work.append(threading.Thread(target=provider.shutdown, name="trace-end", daemon=True))
    for thread in work:
        thread.start()
    until = time.monotonic() + 2.0
    for thread in work:
        thread.join(max(0.0, until - time.monotonic()))


def _cut_short(name: str) -> None:
    logger.critical("%s did not stop within %s s and is cut short", name, _LAST_RESORT)
    logging.shutdown()
    os._exit(1)
