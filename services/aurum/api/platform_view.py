"""State of the whole platform: the overview of each process of each service, and notable traces.

The processes are polled only on request. Rates are differences between two polls.
"""

import asyncio
import collections
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError, NotFoundError
from aurum.runtime.http.client import HttpDependency
from aurum.runtime.telemetry.span_ring import NotableTrace, SpanRing

_REUSE_SECONDS = 1.0  # for which the result of a poll is reused
_RATE_SECONDS = 15.0  # longest period of rates
_MAX_PROCESSES = 20  # of one service
_MAX_POLLS = 32  # kept polls of one process
_MAX_TRACES = 40
_TRACES_PER_ROUND = 4
_ROUND_SECONDS = 1.0
_QUANTILE = 0.95


_Polls = collections.deque[tuple[float, Mapping[str, Any]]]  # time.monotonic() and state of each poll, oldest first


class PlatformView:
    """Polls the processes of all services, and collects notable traces."""

    def __init__(
        self,
        own: Callable[[], dict[str, Any]],
        servers: Mapping[str, HttpDependency],
        spans: SpanRing | None,
    ) -> None:
        """Prepares the view without polling yet.

        Args:
            own: Returns the overview of this process.
            servers: The admin servers by service, which may include the one of this process.
            spans: The spans of this process, or None if they are not kept.
        """
        self._own = own
        self._servers = servers
        self._spans = spans
        self._polls: dict[tuple[str, str], _Polls] = {}  # by service and address
        self._latest: tuple[float, list[dict[str, Any]]] = (float("-inf"), [])
        self._poll_lock = asyncio.Lock()
        self._traces: collections.OrderedDict[str, tuple[NotableTrace, list[dict[str, Any]]]] = (
            collections.OrderedDict()
        )
        self._collected = 0
        self._last_rounds: dict[str, int] = {}  # by name of a notable trace: the round that last collected one of it
        self._round = 0

    async def instances(self) -> list[dict[str, Any]]:
        """Returns the state of every process as in /overview, with `rates` since an earlier poll.

        A process that cannot be reached has `reachable` false and a `reason`.
        """
        async with self._poll_lock:
            polled_at, states = self._latest
            if time.monotonic() - polled_at < _REUSE_SECONDS:
                return states
            others = await asyncio.gather(
                *(self._poll_service(service, server) for service, server in self._servers.items())
            )
            own = {"reachable": True, "address": None, **self._own()}
            own_process = (own["instance"], own["pid"])
            other_states = [
                state for part in others for state in part if (state.get("instance"), state.get("pid")) != own_process
            ]
            states = [self._with_rates(state) for state in [own, *other_states]]
            polled = {(state["service"], state["address"] or "") for state in states}
            self._polls = {key: polls for key, polls in self._polls.items() if key in polled}
            self._latest = (time.monotonic(), states)
            return states

    async def call_processes(self, service: str, call: Callable[[HttpDependency, str], Awaitable[Any]]) -> list[Any]:
        """Calls the admin server of each process of a service and returns the answers.

        Args:
            service: The service.
            call: Makes the call, given the client and the address of the process.

        Raises:
            NotFoundError: There is no such service.
            AurumError: A process did not answer.
        """
        server = self._servers.get(service)
        if server is None:
            raise NotFoundError(
                f"there is no service {service!r}; the services are {', '.join(self._servers)}",
                reason="NO_SUCH_SERVICE",
            )
        return [await call(server, address) for address in await resolve(server.address)]

    @property
    def keeps_traces(self) -> bool:
        """Whether notable traces are kept."""
        return self._spans is not None

    @property
    def traces(self) -> list[tuple[NotableTrace, list[dict[str, Any]]]]:
        """The notable traces with their spans, the newest first."""
        return list(reversed(self._traces.values()))

    def trace(self, trace_id: str) -> tuple[NotableTrace, list[dict[str, Any]]] | None:
        """Returns a trace and its spans from all processes, ordered by start; None if it is not kept."""
        return self._traces.get(trace_id)

    async def collect(self) -> None:
        """Collects the spans of notable traces from all processes before they discard them. Runs until cancelled."""
        while self._spans is not None:
            await asyncio.sleep(_ROUND_SECONDS)
            await self._collect_round(self._spans)

    async def _collect_round(self, own: SpanRing) -> None:
        added = own.added
        if added == self._collected:
            return
        new: dict[str, NotableTrace] = {}  # the newest of each name, so that a frequent one hides no other
        names = set()
        for trace in own.notable:
            names.add(trace.name)
            if trace.trace_id not in self._traces:
                new.setdefault(trace.name, trace)
        if len(new) <= _TRACES_PER_ROUND:
            self._collected = added
        self._last_rounds = {name: last for name, last in self._last_rounds.items() if name in names}
        self._round += 1
        # The names that waited longest come first, so that several frequent ones do not starve a rare one
        waiting = sorted(new.values(), key=lambda trace: self._last_rounds.get(trace.name, 0))
        for trace in reversed(waiting[:_TRACES_PER_ROUND]):
            self._last_rounds[trace.name] = self._round
            self._traces[trace.trace_id] = (trace, await self._collect_spans(trace.trace_id, own))
            while len(self._traces) > _MAX_TRACES:
                self._discard_one()

    def _discard_one(self) -> None:
        """Discards the oldest trace of the most frequent name."""
        counts = collections.Counter(trace.name for trace, _ in self._traces.values())
        frequent = counts.most_common(1)[0][0]
        del self._traces[next(trace_id for trace_id, (trace, _) in self._traces.items() if trace.name == frequent)]

    async def _collect_spans(self, trace_id: str, own: SpanRing) -> list[dict[str, Any]]:
        async def spans_of(server: HttpDependency) -> list[dict[str, Any]]:
            try:
                with criticality_scope(Criticality.BATCH):
                    answer = await server.get_json("/spans", {"trace_id": trace_id})
            except AurumError:
                return []  # the failing service may be the reason for the trace
            return list(answer["spans"])

        parts = [own.trace(trace_id), *await asyncio.gather(*(spans_of(server) for server in self._servers.values()))]
        spans = {span["span_id"]: span for part in parts for span in part}
        return sorted(spans.values(), key=lambda span: span["start"])

    async def _poll_service(self, service: str, server: HttpDependency) -> list[dict[str, Any]]:
        try:
            addresses = await resolve(server.address)
        except OSError as error:
            return [
                _unreachable_state(service, server.address, f"{server.address} cannot be resolved: {error.strerror}")
            ]
        return list(
            await asyncio.gather(*(poll_process(service, server, "/overview", address) for address in addresses))
        )

    def _with_rates(self, state: dict[str, Any]) -> dict[str, Any]:
        if not state["reachable"]:
            return state
        polls = self._polls.setdefault((state["service"], state["address"] or ""), _Polls(maxlen=_MAX_POLLS))
        now = time.monotonic()
        if polls and polls[-1][1]["pid"] != state["pid"]:
            polls.clear()  # the process was restarted
        while polls and now - polls[0][0] > _RATE_SECONDS:
            polls.popleft()
        polls.append((now, state))
        polled_at, before = polls[0]
        return {**state, "rates": rates(before, state, now - polled_at)}


def rates(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> dict[str, float | None] | None:
    """Returns the rates between two polls of a process, or None if no time has passed between them.

    These are events per second, the share of failed requests and the 95th percentile of the request duration in
    seconds. The latter two are None without requests.
    """
    if seconds <= 0:
        return None
    first, last = before["requests"], after["requests"]
    requests = last["total"] - first["total"]
    return {
        "requests_per_second": requests / seconds,
        "error_ratio": (last["failed"] - first["failed"]) / requests if requests else None,
        "p95_seconds": _percentile(first, last),
        "readings_per_second": (after["readings"] - before["readings"]) / seconds,
        "batches_per_second": (after["batches"] - before["batches"]) / seconds,
        "predictions_per_second": (after["predictions"] - before["predictions"]) / seconds,
        "degraded_per_second": (after["degraded"] - before["degraded"]) / seconds,
        "retries_per_second": (after["retries"] - before["retries"]) / seconds,
    }


def _percentile(first: Mapping[str, Any], last: Mapping[str, Any]) -> float | None:
    """Returns the percentile by linear interpolation within a bucket, like Prometheus's histogram_quantile."""
    earlier = dict(zip(first["bounds"], first["counts"], strict=True))
    observed = last["observed"] - first["observed"]
    if observed <= 0:
        return None
    target = _QUANTILE * observed
    lower_bound = lower_count = 0.0
    for bound, count in zip(last["bounds"], last["counts"], strict=True):
        within = count - earlier.get(bound, 0.0)
        if within >= target:
            share = (target - lower_count) / (within - lower_count) if within > lower_count else 1.0
            return float(lower_bound + (bound - lower_bound) * share)
        lower_bound, lower_count = bound, within
    return float(lower_bound)


async def poll_process(service: str, server: HttpDependency, path: str, address: str) -> dict[str, Any]:
    """Returns the state of a process from a path of its admin server, or one that says why it is unreachable."""
    try:
        return {"reachable": True, "address": address, **await server.get_json(path, at=address)}
    except AurumError as error:
        return _unreachable_state(service, address, error.message)


def _unreachable_state(service: str, address: str, reason: str) -> dict[str, Any]:
    return {"service": service, "reachable": False, "address": address, "reason": reason}


async def resolve(address: str) -> Sequence[str]:
    """Resolves a name to the addresses of all its processes, such as the pods of a headless service. Raises OSError."""
    host, _, port = address.rpartition(":")
    answers = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    hosts = sorted({str(answer[4][0]) for answer in answers})[:_MAX_PROCESSES]
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]
