"""Places for streams: what one caller, and one kind, may take, and that a refusal is no sign of overload."""

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.runtime.errors import STREAM_LIMIT, ResourceExhaustedError
from aurum.runtime.grpc.stream_shares import Kind, Share, StreamShares
from aurum.runtime.settings import Settings, SettingsError, load_settings
from aurum.v1 import ingestion_pb2
from tests.support.scripted_server import bench
from tests.support.waiting import until

KINDS: tuple[Kind, ...] = ("watch", "query")
ADAPTIVE = (
    "servers: [{server: server, admission: {maxConcurrent: 8, maxQueued: 0, adaptiveConcurrency: "
    "{algorithm: aimd, initialLimit: 8, minLimit: 1, maxLimit: 8}}}]"
)

steps = st.lists(
    st.one_of(st.tuples(st.sampled_from(KINDS), st.sampled_from(["a", "b", "c", None])), st.integers(0, 20)),
    max_size=60,
)


@given(steps, st.integers(1, 6), st.floats(0.05, 1.0))
def test_places_are_refused_only_beyond_a_share(
    todo: list[tuple[Kind, str | None] | int], places: int, part: float
) -> None:
    """Whatever comes and goes, each kind and each caller has its places, and nobody is refused one that is free."""
    shares = StreamShares({kind: Share(lambda: places, "SETTING") for kind in KINDS}, part)
    most = max(1, int(places * part))
    held: list[tuple[Kind, str | None, contextlib.ExitStack]] = []
    for step in todo:
        if isinstance(step, int):  # one is given back
            if held:
                held.pop(step % len(held))[2].close()
            continue
        kind, caller = step
        of_kind = sum(1 for each in held if each[0] == kind)
        of_caller = sum(1 for each in held if each[:2] == step)
        free = of_kind < places and (caller is None or of_caller < most)
        with contextlib.nullcontext() if free else pytest.raises(ResourceExhaustedError) as refused:
            stack = contextlib.ExitStack()
            stack.enter_context(shares.place(kind, caller))
            held.append((kind, caller, stack))
        assert free or (refused is not None and refused.value.reason == STREAM_LIMIT)


def test_shares_that_exceed_all_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"are 1\.1 together"):
        load_settings(Settings, state_dir=tmp_path, rpc_watch_share=0.3)
    load_settings(Settings, state_dir=tmp_path, rpc_ingest_share=0.6, rpc_watch_share=0.3)


async def test_refused_streams_do_not_lower_an_adaptive_limit(tmp_path: Path) -> None:
    """One caller that is refused stream after stream does not make the server take fewer calls of all."""
    async with bench(tmp_path, ADAPTIVE) as b:
        b.server.behaviour = lambda number, context: asyncio.Event().wait()  # type: ignore[assignment]
        held = [b.stub.Query(ingestion_pb2.QueryRequest()) for _ in range(3)]  # half of three quarters of 8
        reading = [asyncio.ensure_future(call.read()) for call in held]
        await until(lambda: b.server.now == len(held))
        for _ in range(30):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await b.stub.Query(ingestion_pb2.QueryRequest()).read()
            assert "AURUM_STREAM_CALLER_SHARE" in (refused.value.details() or "")
        assert b.server_policies.admission().limit == 8
        for call in held:
            call.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
