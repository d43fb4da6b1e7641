"""The platform as a whole: what each process of each service does right now, and the traces that are worth a look.

Looked at only while somebody asks; the numbers of a period are the difference between two looks.
"""

import asyncio
import collections
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError, NotFoundError
from aurum.runtime.http_client import HttpDependency
from aurum.runtime.span_ring import NotableTrace, SpanRing

_AGAIN_AFTER = 1.0  # seconds that one look serves all who ask
_PERIOD = 15.0  # seconds to which rates refer, at most
_MOST_INSTANCES = 20  # of one service
_MOST_LOOKS = 32  # at one process
_MOST_TRACES = 40
_COLLECTED_AT_ONCE = 4  # traces in one turn
_COLLECT_EVERY = 1.0  # seconds
_RANK = 0.95


_Looks = collections.deque[tuple[float, Mapping[str, Any]]]  # time.monotonic(), what a process said; oldest first


class PlatformView:
    def __init__(
        self,
        own: Callable[[], dict[str, Any]],
        servers: Mapping[str, HttpDependency],
        spans: SpanRing | None,
    ) -> None:
        """own: what this process says of itself. servers: admin servers by service; its own may be among them. spans:
        this process's, where they are kept."""
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
        """Every process: its state as /overview gives it, and `rates` since an earlier look; or that it is not
        reachable, and why."""
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
        """What each process of a service answers. Raises NotFoundError, AurumError."""
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
        """Each with its spans, the newest first."""
        return list(reversed(self._traces.values()))

    def trace(self, trace_id: str) -> tuple[NotableTrace, list[dict[str, Any]]] | None:
        """A trace with its spans from all processes, by their start."""
        return self._traces.get(trace_id)

    async def collect(self) -> None:
        """Gathers the spans of notable traces from all processes, before those forget them; for as long as it runs."""
        while self._spans is not None:
            await asyncio.sleep(_COLLECT_EVERY)
            added = self._spans.added
            if added == self._collected:
                continue
            fresh: dict[str, NotableTrace] = {}  # the newest of each name: many of one must not hide one of another
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
                return []  # it may be what the trace is about
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
            looks.clear()  # started again
        while looks and now - looks[0][0] > _PERIOD:
            looks.popleft()
        looks.append((now, state))
        before_at, before = looks[0]
        return {**state, "rates": rates(before, state, now - before_at)}


def rates(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> dict[str, float | None] | None:
    """What happened between two looks at a process: requests and readings a second, the share of requests that failed,
    the 95th centile of their seconds; None if the looks are one."""
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
    """By linear interpolation within a bucket, as Prometheus's histogram_quantile has it."""
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
    """What the admin server at an address says of its process at a path; or that it is not reachable, and why."""
    try:
        return {"reachable": True, "address": address, **await server.get_json(path, at=address)}
    except AurumError as error:
        return _missing(service, address, error.message)


def _missing(service: str, address: str, reason: str) -> dict[str, Any]:
    return {"service": service, "reachable": False, "address": address, "reason": reason}


async def _addresses(address: str) -> Sequence[str]:
    """Of all processes behind a name, such as the pods of a headless service. Raises OSError."""
    host, _, port = address.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    hosts = sorted({str(each[4][0]) for each in found})[:_MOST_INSTANCES]
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts]
