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

_AGAIN_AFTER = 1.0  # seconds for which the result of a poll is reused
_PERIOD = 15.0  # longest period of rates, in seconds
_MOST_INSTANCES = 20  # of one service
_MOST_LOOKS = 32  # kept polls of one process
_MOST_TRACES = 40
_COLLECTED_AT_ONCE = 4  # traces in one round
_COLLECT_EVERY = 1.0  # seconds
_RANK = 0.95


_Looks = collections.deque[tuple[float, Mapping[str, Any]]]  # time.monotonic() and state of each poll, oldest first


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
        self._looks: dict[tuple[str, str], _Looks] = {}  # by service and address
        self._latest: tuple[float, list[dict[str, Any]]] = (float("-inf"), [])
        self._looking = asyncio.Lock()
        self._traces: collections.OrderedDict[str, tuple[NotableTrace, list[dict[str, Any]]]] = (
            collections.OrderedDict()
        )
        self._collected = 0

    async def instances(self) -> list[dict[str, Any]]:
        """Returns the state of every process as in /overview, with `rates` since an earlier poll.

        A process that cannot be reached has `reachable` false and a `reason`.
        """
        async with self._looking:
            at, found = self._latest
            if time.monotonic() - at < _AGAIN_AFTER:
                return found
            others = await asyncio.gather(*(self._of(service, server) for service, server in self._servers.items()))
            own = {"reachable": True, "address": None, **self._own()}
            itself = (own["instance"], own["pid"])
            states = [each for part in others for each in part if (each.get("instance"), each.get("pid")) != itself]
            found = [self._with_rates(each) for each in [own, *states]]
            seen = {(each["service"], each["address"] or "") for each in found}
            self._looks = {key: looks for key, looks in self._looks.items() if key in seen}
            self._latest = (time.monotonic(), found)
            return found

    async def each(self, service: str, ask: Callable[[HttpDependency, str], Awaitable[Any]]) -> list[Any]:
        """Calls `ask` for each process of a service and returns the answers.

        Raises:
            NotFoundError: There is no such service.
            AurumError: A process did not answer.
        """
        server = self._servers.get(service)
        if server is None:
            raise NotFoundError(
                f"there is no service {service!r} here; there are {', '.join(self._servers)}", reason="NO_SUCH_SERVICE"
            )
        return [await ask(server, address) for address in await _addresses(server.address)]

    @property
    def keeps_traces(self) -> bool:
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
            await asyncio.sleep(_COLLECT_EVERY)
            added = self._spans.added
            if added == self._collected:
                continue
            fresh: dict[str, NotableTrace] = {}  # the newest of each name, so that a frequent one hides no other
            for trace in self._spans.notable:
                if trace.trace_id not in self._traces:
                    fresh.setdefault(trace.name, trace)
            if len(fresh) <= _COLLECTED_AT_ONCE:
                self._collected = added
            for trace in reversed(list(fresh.values())[:_COLLECTED_AT_ONCE]):
                self._traces[trace.trace_id] = (trace, await self._gather(trace.trace_id, self._spans))
                while len(self._traces) > _MOST_TRACES:
                    self._traces.popitem(last=False)

    async def _gather(self, trace_id: str, own: SpanRing) -> list[dict[str, Any]]:
        async def of(server: HttpDependency) -> list[dict[str, Any]]:
            try:
                with criticality_scope(Criticality.BATCH):
                    answer = await server.get_json("/spans", {"trace_id": trace_id})
            except AurumError:
                return []  # the failing service may be the reason for the trace
            return list(answer["spans"])

        parts = [own.trace(trace_id), *await asyncio.gather(*(of(server) for server in self._servers.values()))]
        spans = {span["span_id"]: span for part in parts for span in part}
        return sorted(spans.values(), key=lambda span: span["start"])

    async def _of(self, service: str, server: HttpDependency) -> list[dict[str, Any]]:
        try:
            addresses = await _addresses(server.address)
        except OSError as error:
            return [_missing(service, server.address, f"{server.address} has no address: {error.strerror}")]
        return list(await asyncio.gather(*(state_of(service, server, "/overview", address) for address in addresses)))

    def _with_rates(self, state: dict[str, Any]) -> dict[str, Any]:
        if not state["reachable"]:
            return state
        looks = self._looks.setdefault((state["service"], state["address"] or ""), _Looks(maxlen=_MOST_LOOKS))
        now = time.monotonic()
        if looks and looks[-1][1]["pid"] != state["pid"]:
            looks.clear()  # the process was restarted
        while looks and now - looks[0][0] > _PERIOD:
            looks.popleft()
        looks.append((now, state))
        before_at, before = looks[0]
        return {**state, "rates": rates(before, state, now - before_at)}


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
        "p95_seconds": _centile(first, last),
        "readings_per_second": (after["readings"] - before["readings"]) / seconds,
        "batches_per_second": (after["batches"] - before["batches"]) / seconds,
        "predictions_per_second": (after["predictions"] - before["predictions"]) / seconds,
        "degraded_per_second": (after["degraded"] - before["degraded"]) / seconds,
        "retries_per_second": (after["retries"] - before["retries"]) / seconds,
    }


def _centile(first: Mapping[str, Any], last: Mapping[str, Any]) -> float | None:
    """Returns the percentile by linear interpolation within a bucket, like Prometheus's histogram_quantile."""
    earlier = dict(zip(first["bounds"], first["counts"], strict=True))
    observed = last["observed"] - first["observed"]
    if observed <= 0:
        return None
    wanted = _RANK * observed
    lower_bound = lower_count = 0.0
    for bound, count in zip(last["bounds"], last["counts"], strict=True):
        within = count - earlier.get(bound, 0.0)
        if within >= wanted:
            share = (wanted - lower_count) / (within - lower_count) if within > lower_count else 1.0
            return float(lower_bound + (bound - lower_bound) * share)
        lower_bound, lower_count = bound, within
    return float(lower_bound)


async def state_of(service: str, server: HttpDependency, path: str, address: str) -> dict[str, Any]:
    """Returns the state of a process from a path of its admin server, or a state that says why it is unreachable."""
    try:
        return {"reachable": True, "address": address, **await server.get_json(path, at=address)}
    except AurumError as error:
        return _missing(service, address, error.message)


def _missing(service: str, address: str, reason: str) -> dict[str, Any]:
    return {"service": service, "reachable": False, "address": address, "reason": reason}


async def _addresses(address: str) -> Sequence[str]:
    """Resolves a name to the addresses of all its processes, such as the pods of a headless service. Raises OSError."""
    host, _, port = address.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    hosts = sorted({str(each[4][0]) for each in found})[:_MOST_INSTANCES]
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts]
