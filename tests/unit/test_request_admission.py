"""Admission of HTTP requests: their class, and the answers that tell an adaptive limit of overload."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from aurum.api import middleware
from aurum.api.access_control import AccessControl
from aurum.api.body_budget import BodyBudget
from aurum.api.middleware import RequestMiddleware
from aurum.resilience import ConcurrencyLimit, Criticality, LimitConfig, current_criticality
from aurum.resilience.limit_algorithms import LimitAlgorithm
from aurum.runtime.faults import Faults
from aurum.runtime.health import Health
from aurum.runtime.http.client import TIMEOUT_HEADER


@dataclass(slots=True)
class Recorder:
    """An algorithm of an adaptive limit that changes nothing and remembers which calls it was told to be dropped."""

    limit: float = 8.0
    dropped: list[bool] = field(default_factory=list)

    def ended(self, now: float, seconds: float, in_flight: int, dropped: bool) -> bool:
        self.dropped.append(dropped)
        return False

    def base_limit(self) -> float:
        return self.limit

    def take_over(self, before: LimitAlgorithm) -> None:
        """Keeps what it has."""


def wrapped(app: ASGIApp, recorder: Recorder) -> RequestMiddleware:
    return RequestMiddleware(
        app,
        max_body_bytes=1000,
        admission=ConcurrencyLimit("api", LimitConfig(8, algorithm=recorder)),
        faults=Faults(False),
        health=Health(),
        access_control=AccessControl.open(),
        bodies=BodyBudget(10_000),
        routes=[],
    )


@asynccontextmanager
async def client_of(app: ASGIApp, recorder: Recorder) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(wrapped(app, recorder))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize(
    ("status", "dropped"),
    [(200, False), (422, False), (429, True), (500, False), (501, False), (503, False), (504, True)],
)
async def test_answers_that_mean_overload_shrink_the_limit(status: int, dropped: bool) -> None:
    """503 tells of what the API depends on, not of the API itself."""
    recorder = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(status_code=status)(scope, receive, send)

    async with client_of(app, recorder) as client:
        assert (await client.get("/api/machines")).status_code == status
    assert recorder.dropped == [dropped]


async def test_request_cut_off_by_its_timeout_means_overload() -> None:
    recorder = Recorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)

    async with client_of(app, recorder) as client:
        assert (await client.get("/api/machines", headers={TIMEOUT_HEADER: "0.05"})).status_code == 504
    assert recorder.dropped == [True]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/api/readings", Criticality.TELEMETRY),
        ("POST", "/api/machines", Criticality.TELEMETRY),
        ("GET", "/api/machines", Criticality.QUERY),
        ("POST", "/api/predict", Criticality.QUERY),
        ("GET", "/api/alarms", Criticality.ALARM),
    ],
)
async def test_requests_have_the_class_of_the_method_they_call(method: str, path: str, expected: Criticality) -> None:
    seen: list[Criticality] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(current_criticality())
        await Response()(scope, receive, send)

    async with client_of(app, Recorder()) as client:
        await client.request(method, path)
    assert seen == [expected]


@pytest.mark.parametrize(("pause", "longest", "answered"), [(0.5, 2.0, True), (5.0, 0.1, False)])
async def test_refused_body_is_read_for_as_long_as_it_arrives(
    monkeypatch: pytest.MonkeyPatch, pause: float, longest: float, answered: bool
) -> None:
    """A large body takes long on a busy machine. Only a sender that pauses is not waited for, and loses the answer."""
    monkeypatch.setattr(middleware, "_LINGER_PAUSE", longest)
    parts = 5
    left = [{"type": "http.request", "body": b"x" * 100, "more_body": number < parts} for number in range(1, parts + 1)]
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        await asyncio.sleep(pause)
        return left.pop(0)

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(dict(message))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/readings",
        "headers": [(b"content-length", b"1200")],
        "client": ("127.0.0.1", 1),
    }
    await wrapped(app, Recorder())(scope, receive, send)
    assert sent[0]["status"] == 413
    assert (left == []) is answered
