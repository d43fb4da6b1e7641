"""How long answers take: what raises and lowers the estimate, and which callers it keeps out."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.resilience import ConcurrencyLimit
from aurum.runtime.faults import Faults
from aurum.runtime.grpc import server as server_module
from aurum.runtime.grpc.answer_times import AnswerTimes
from aurum.runtime.grpc.server import rpc_server
from aurum.runtime.health import Health
from aurum.runtime.settings import Settings
from tests.support.resilience import Clock
from tests.support.waiting import until


def known(seconds: float, clock: Clock | None = None) -> AnswerTimes:
    answers = AnswerTimes(clock or Clock())
    answers.record_answer("m", seconds)
    return answers


def test_first_answer_is_the_estimate() -> None:
    answers = known(1.6)
    assert answers.expected_seconds("m") == 1.6
    assert answers.expected_seconds("other") == 0.0
    assert not answers.should_refuse("other", 0.001, busy=True)


@pytest.mark.parametrize(
    ("left", "busy", "refused"),
    [(0.699, True, True), (0.7, True, False), (0.699, False, False), (0.0, False, False), (None, True, False)],
)
def test_only_hopeless_calls_of_busy_servers_are_refused(left: float | None, busy: bool, refused: bool) -> None:
    assert known(1.0).should_refuse("m", left, busy) is refused


def test_estimate_halves_every_five_seconds() -> None:
    clock = Clock(100.0)
    answers = known(8.0, clock)
    found = []
    for clock.now in (100.0, 105.0, 110.0, 130.0):
        found.append(answers.expected_seconds("m"))
    assert found == [8.0, 4.0, 2.0, 0.125]
    assert not answers.should_refuse("m", 0.0876, busy=True)
    assert answers.should_refuse("m", 0.0874, busy=True)


def test_current_answers_count_a_twentieth() -> None:
    answers = known(1.0)
    answers.record_answer("m", 1024.0)
    assert answers.expected_seconds("m") == pytest.approx(2.0**0.5)
    answers = known(1.0)
    for _ in range(200):
        answers.record_answer("m", 0.25)
    assert answers.expected_seconds("m") == pytest.approx(0.25, rel=0.001)


def test_answer_after_a_pause_counts_more() -> None:
    clock = Clock()
    answers = known(1.0, clock)
    clock.now = 5.0
    answers.record_answer("m", 16.0)
    assert answers.expected_seconds("m") == pytest.approx(16.0 ** (1 - 0.475))
    clock.now = 1000.0
    answers.record_answer("m", 0.005)
    assert answers.expected_seconds("m") == pytest.approx(0.005)


def test_one_slow_answer_among_quick_ones_keeps_nobody_out() -> None:
    answers = known(0.005)
    answers.record_answer("m", 60.0)
    answers.record_cut_off("m", 30.0, 30.0)
    assert not answers.should_refuse("m", 0.05, busy=True)


def test_each_refusal_lowers_the_estimate() -> None:
    answers = known(1.0)
    assert answers.should_refuse("m", 0.5, busy=True)
    assert answers.expected_seconds("m") == 0.998
    refusals = 1
    while answers.should_refuse("m", 0.5, busy=True):
        refusals += 1
    assert refusals == 169
    before = answers.expected_seconds("m")
    assert not answers.should_refuse("m", 0.6, busy=True)
    assert answers.expected_seconds("m") == before


def test_cut_off_answer_counts_as_twice_as_long() -> None:
    answers = AnswerTimes(Clock())
    answers.record_cut_off("m", 0.7, 1.0)
    assert answers.expected_seconds("m") == 1.4
    answers.record_cut_off("m", 0.5, 0.5)  # 1.0 s is less than is known
    assert answers.expected_seconds("m") == 1.4
    answers.record_cut_off("m", 1.4, 1.5)
    assert answers.expected_seconds("m") == pytest.approx(1.4 * 2**0.05)


@pytest.mark.parametrize(("seconds", "left"), [(0.69, 1.0), (100.0, None)])
def test_caller_that_went_away_teaches_nothing(seconds: float, left: float | None) -> None:
    answers = AnswerTimes(Clock())
    answers.record_cut_off("m", seconds, left)
    assert answers.expected_seconds("m") == 0.0


def test_answer_of_no_time_leaves_an_estimate() -> None:
    answers = known(0.0)
    assert answers.expected_seconds("m") == 1e-4
    answers.record_answer("m", 0.0)
    assert answers.expected_seconds("m") == pytest.approx(1e-4)


def test_lasting_overload_tries_few_hopeless_calls() -> None:
    clock = Clock()
    answers = known(0.005, clock)
    tried = []
    for _ in range(20_000):  # at 500 calls/s with 0.3 s each, of which none is answered in time
        clock.now += 0.002
        tried.append(not answers.should_refuse("m", 0.3, busy=True))
        if tried[-1]:
            answers.record_cut_off("m", 0.3, 0.3)
    assert all(tried[:40])
    assert 0.02 < sum(tried[1000:]) / 19_000 < 0.2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["answered", "cut_off", "refuses"]),
            st.floats(0.0, 1000.0),
            st.floats(0.0, 20.0),
        ),
        max_size=60,
    ),
    st.floats(1e-3, 10.0),
)
def test_no_history_keeps_a_caller_out_for_ever(history: list[tuple[str, float, float]], left: float) -> None:
    clock = Clock()
    answers = AnswerTimes(clock)
    most = 0.0
    for kind, seconds, pause in history:
        clock.now += pause
        if kind == "answered":
            answers.record_answer("m", seconds)
            most = max(most, seconds, 1e-4)
        elif kind == "cut_off":
            answers.record_cut_off("m", seconds, seconds)
            most = max(most, 2.0 * seconds, 1e-4)
        else:
            answers.should_refuse("m", seconds, busy=True)
        assert 0.0 <= answers.expected_seconds("m") <= most * (1 + 1e-9)
    assert not answers.should_refuse("m", left, busy=False)
    for _ in range(8000):  # 2000 s / 1 ms is 21 halvings, and 0.998**7300 is as little
        if not answers.should_refuse("m", left, busy=True):
            break
    else:
        pytest.fail("a caller was refused 8000 times in a row")


class _Held:
    """A server of one method, each call of which waits for its gate. answers: what it knows."""

    def __init__(self, answers: AnswerTimes) -> None:
        self.answers = answers
        self.gate = asyncio.Event()
        self.started = 0
        self.limit = ConcurrencyLimit("calls", 8)
        self.call: Any = None

    async def answer(self, request: bytes, context: Any) -> bytes:
        self.started += 1
        await self.gate.wait()
        return b"answer"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncGenerator["_Held"]:
        def register(server: grpc.aio.Server) -> None:
            handler = grpc.unary_unary_rpc_method_handler(self.answer)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Query": handler}),))

        async with (
            rpc_server(
                register,
                ["t.T"],
                host="127.0.0.1",
                port=0,
                setting="X",
                settings=Settings(shutdown_grace=1.0),
                health_state=Health(),
                limits=(self.limit, ConcurrencyLimit("streams", 8)),
                faults=Faults(False),
                authorizer=None,
            ) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            self.call = channel.unary_unary("/t.T/Query")
            yield self


def held(monkeypatch: pytest.MonkeyPatch, seconds: float) -> _Held:
    """A server that has found that an answer takes so many seconds."""
    answers = AnswerTimes(Clock())
    answers.record_answer("/t.T/Query", seconds)
    monkeypatch.setattr(server_module, "AnswerTimes", lambda: answers)
    return _Held(answers)


async def test_idle_server_tries_a_hopeless_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async with held(monkeypatch, 1000.0).serving() as server:
        server.gate.set()
        assert await server.call(b"", timeout=60) == b"answer"
        assert 1.0 < server.answers.expected_seconds("/t.T/Query") < 900.0  # by an answer that took no time


async def test_busy_server_refuses_a_hopeless_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async with held(monkeypatch, 1000.0).serving() as server:
        first = asyncio.ensure_future(server.call(b"", timeout=60))
        await until(lambda: server.started == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.call(b"", timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.answers.expected_seconds("/t.T/Query") == 998.0
        patient = asyncio.ensure_future(server.call(b""))  # it has no deadline
        await until(lambda: server.started == 2)
        server.gate.set()
        assert await first == await patient == b"answer"


async def test_call_cut_off_by_its_deadline_raises_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    async with held(monkeypatch, 0.001).serving() as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.call(b"", timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: server.limit.in_flight == 0)
        assert server.answers.expected_seconds("/t.T/Query") > 0.001
