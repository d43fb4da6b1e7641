"""Bodies of requests that are compressed, and answers without a body."""

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from aurum.api.access_control import AccessControl
from aurum.api.body_budget import BodyBudget
from aurum.api.gzip_body import GzipBody
from aurum.api.middleware import RequestMiddleware
from aurum.resilience import ConcurrencyLimit, LimitConfig
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.faults import Faults
from aurum.runtime.health import Health

LIMIT = 1_000_000  # bytes of a body


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the method and the size of the body."""
    request = Request(scope, receive)
    size = 0
    async for part in request.stream():
        size += len(part)
    await JSONResponse({"method": scope["method"], "size": size})(scope, receive, send)


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    async def events() -> AsyncIterator[bytes]:
        while True:
            yield b"event\n"
            await asyncio.sleep(0.01)

    await StreamingResponse(events())(scope, receive, send)


@asynccontextmanager
async def client(budget: BodyBudget | None = None, app: object = echo) -> AsyncIterator[httpx.AsyncClient]:
    wrapped = RequestMiddleware(
        app,  # type: ignore[arg-type]
        max_body_bytes=LIMIT,
        admission=ConcurrencyLimit("api", LimitConfig(8)),
        faults=Faults(False),
        health=Health(),
        access_control=AccessControl.open(),
        bodies=budget or BodyBudget(2 * LIMIT),
        routes=[],
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://localhost") as opened:
        yield opened


async def post(body: bytes, encoding: str, budget: BodyBudget | None = None) -> httpx.Response:
    async with client(budget, ExceptionMiddleware(echo)) as http:
        return await http.post("/api/readings", content=body, headers={"Content-Encoding": encoding})


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", " gzip"])
async def test_gzip_body_is_decompressed(encoding: str) -> None:
    answer = await post(gzip.compress(b"x" * 900_000), encoding)
    assert answer.json()["size"] == 900_000


async def test_body_that_states_no_compression_is_left_as_it_is() -> None:
    assert (await post(b"xyz", "identity")).json()["size"] == 3


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip"])
async def test_other_encoding_of_a_body_is_refused_with_415(encoding: str) -> None:
    answer = await post(b"xyz", encoding)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip")
    assert f"the Content-Encoding '{encoding}' is not supported" in answer.json()["detail"]


async def test_compressed_bomb_is_refused_early_in_little_memory() -> None:
    """A gigabyte in a megabyte is refused after the first megabyte."""
    compressor = zlib.compressobj(wbits=31)
    part = bytes(10_000_000)
    bomb = b"".join(compressor.compress(part) for _ in range(100)) + compressor.flush()
    assert len(bomb) < LIMIT
    budget = BodyBudget(2 * LIMIT)
    tracemalloc.start()
    try:
        answer = await post(bomb, "gzip", budget)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.status_code == 413
    assert peak < 10_000_000
    budget.reserve("the next caller", LIMIT)  # nothing is left reserved


async def test_decompressed_bytes_count_against_the_budget() -> None:
    answer = await post(gzip.compress(bytes(900_000)), "gzip", BodyBudget(500_000))
    assert (answer.status_code, answer.json()["type"]) == (429, "urn:aurumai:problem:body-budget")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{}", "is not compressed with gzip"),
        (gzip.compress(b"x" * 1000)[:-4], "ends within its gzip compression"),
        (gzip.compress(b"x") + b"rest", "is not compressed with gzip"),
    ],
    ids=["plain", "cut", "with_a_rest"],
)
async def test_damaged_gzip_body_is_refused(body: bytes, problem: str) -> None:
    answer = await post(body, "gzip")
    assert answer.status_code == 422
    assert problem in answer.json()["detail"]


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=4), st.integers(1, 500))
def test_gzip_members_in_any_pieces_give_the_whole_body(members: list[bytes], size: int) -> None:
    compressed = b"".join(map(gzip.compress, members))
    body, found = GzipBody(), b""
    for start in range(0, len(compressed), size):
        body.feed(compressed[start : start + size], more=start + size < len(compressed))
        while part := body.next_part():
            found += part
    assert found == b"".join(members)


def test_empty_gzip_body_is_refused() -> None:
    body = GzipBody()
    body.feed(b"", more=False)
    with pytest.raises(InvalidArgumentError, match="is empty"):
        body.next_part()


async def test_head_is_a_get_without_its_body() -> None:
    async with client() as http:
        got, head = await http.get("/api/machines"), await http.head("/api/machines")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert json.loads(got.content)["method"] == "GET"


async def test_head_of_an_endless_answer_ends() -> None:
    async with client(app=endless) as http, asyncio.timeout(5):
        assert (await http.head("/api/events")).status_code == 200
