"""Limits on open streams: each kind has its own places, and each caller may use a share of them.

So neither one caller nor one kind can occupy all places.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from aurum.runtime import metrics
from aurum.runtime.errors import DETAILS_KEY, STREAM_LIMIT, ResourceExhaustedError, to_status
from aurum.runtime.rpc_methods import INGESTION_SERVICE, Method
from aurum.runtime.settings import Settings

_RETRY_AFTER = {"query": 1.0}  # seconds; other streams last longer
_RETRY_AFTER_OTHERS = 10.0
_LONGEST_SERVICE = 200  # characters
_FOLLOW = f"/{INGESTION_SERVICE}/Follow"
_HEALTH_WATCH = "/grpc.health.v1.Health/Watch"

# ingest: endless streams from a client. follow: those of new readings to a client. watch: other endless ones to a
# client. query: streams that end, and long responses of the API. events: server-sent events of the API. other: health
# and reflection.
Kind = Literal["ingest", "watch", "follow", "query", "events", "other"]


@dataclass(frozen=True, slots=True)
class Share:
    """The places of one kind of streams.

    Attributes:
        places: Returns the present number of places.
        setting: Names of the settings that define it.
    """

    places: Callable[[], int]
    setting: str


class StreamShares:
    """The places of a server by kind. It is for use on one event loop."""

    def __init__(self, shares: Mapping[Kind, Share], of_caller: float) -> None:
        """of_caller: Share of the places of a kind that one caller may use. It is at least one place."""
        self._shares = shares
        self._of_caller = of_caller
        self._taken: Counter[Kind] = Counter()
        self._taken_by: Counter[tuple[Kind, str]] = Counter()
        for kind in shares:
            metrics.stream_places_in_use.labels(kind).set(0)
            for why in ("kind", "caller"):
                metrics.streams_refused_total.labels(kind, why)

    @contextlib.contextmanager
    def place(self, kind: Kind, caller: str | None) -> Generator[None]:
        """Occupies a place during the block. Raises ResourceExhaustedError if there is none.

        Args:
            kind: Kind of the stream.
            caller: Whose share is used. None: the platform itself, which has no limit of its own.
        """
        self._require(kind, caller)
        self._count(kind, caller, 1)
        try:
            yield
        finally:
            self._count(kind, caller, -1)

    def _require(self, kind: Kind, caller: str | None) -> None:
        share = self._shares[kind]
        places = share.places()
        part = max(1, int(places * self._of_caller))
        why = ""
        if self._taken[kind] >= places:
            why, text = "kind", f"all {places} places for {kind} streams are taken ({share.setting})"
        elif caller is not None and self._taken_by[kind, caller] >= part:
            why = "caller"
            text = (
                f"this caller has {part} of the {places} places for {kind} streams, which is as many as one may have "
                f"(AURUM_STREAM_CALLER_SHARE)"
            )
        if why:
            metrics.streams_refused_total.labels(kind, why).inc()
            raise ResourceExhaustedError(
                f"{text}; close streams that are not needed, or try again later",
                reason=STREAM_LIMIT,
                retry_after=_RETRY_AFTER.get(kind, _RETRY_AFTER_OTHERS),
            )

    def _count(self, kind: Kind, caller: str | None, change: int) -> None:
        self._taken[kind] += change
        metrics.stream_places_in_use.labels(kind).set(self._taken[kind])
        if caller is not None:
            self._taken_by[kind, caller] += change
            if not self._taken_by[kind, caller]:
                del self._taken_by[kind, caller]


def rpc_shares(settings: Settings, calls: Callable[[], int]) -> StreamShares:
    """Returns the shares of a gRPC server. calls: Returns the calls that it handles at a time, including queries."""

    def of_streams(share: float) -> Callable[[], int]:
        places = max(1, int(settings.rpc_max_streams * share))
        return lambda: places

    watching = "AURUM_RPC_MAX_STREAMS, AURUM_RPC_WATCH_SHARE, AURUM_RPC_FOLLOW_SHARE"
    follow_share = settings.rpc_watch_share * settings.rpc_follow_share
    return StreamShares(
        {
            "ingest": Share(of_streams(settings.rpc_ingest_share), "AURUM_RPC_MAX_STREAMS, AURUM_RPC_INGEST_SHARE"),
            "watch": Share(of_streams(settings.rpc_watch_share - follow_share), watching),
            "follow": Share(of_streams(follow_share), watching),
            "other": Share(of_streams(settings.rpc_other_share), "AURUM_RPC_MAX_STREAMS, AURUM_RPC_OTHER_SHARE"),
            "query": query_share(settings, calls),
        },
        settings.stream_caller_share,
    )


def query_share(settings: Settings, calls: Callable[[], int]) -> Share:
    """Returns a share of the calls for queries, so that slow readers of long responses leave places for others."""
    return Share(lambda: max(1, int(calls() * settings.query_share)), "AURUM_RPC_CONCURRENCY_LIMIT, AURUM_QUERY_SHARE")


def kind_of(method: Method) -> Kind:
    """Returns the kind of a streaming method."""
    if method.service.startswith("grpc."):
        return "other"
    if not method.endless:
        return "query"
    if method.client_streaming:
        return "ingest"
    return "follow" if method.name == _FOLLOW else "watch"


def address_of(context: Any) -> str:
    """Returns the address of a caller as the key of its share, for servers without authentication."""
    return f"address/{context.peer().rpartition(':')[0]}"


def limit_health(method: str, handler: Any, shares: StreamShares) -> Any:
    """Limits the streams of the health service, which is open to all. Other methods are returned unchanged."""
    if method != _HEALTH_WATCH:
        return handler

    async def watch(request: Any, context: Any) -> None:
        if len(request.service) > _LONGEST_SERVICE:  # the servicer keeps the name
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "service: is no name of a service")
        try:
            with shares.place("other", address_of(context)):
                await handler.unary_stream(request, context)  # writes its responses itself
        except ResourceExhaustedError as error:
            details = to_status(error).SerializeToString()
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, error.message, ((DETAILS_KEY, details),))

    return grpc.unary_stream_rpc_method_handler(watch, handler.request_deserializer, handler.response_serializer)
