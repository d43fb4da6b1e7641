"""Replay of recorded outcomes: counted results, determinism, and validation of input."""

import asyncio
import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.resilience import Policy, PolicyDocument
from aurum.resilience.outcomes import Outcome, OutcomeError, read_outcomes
from aurum.resilience.policy import parse_policy_document
from aurum.resilience.simulation import simulate
from aurum.resilience.virtual_time import VirtualLoop

DEFAULT = Policy(target="*/*/*")
TARGET = "api/prediction/Predict"


def trace(calls: int, rate: float, down: tuple[float, float] = (0, 0), code: str = "UNAVAILABLE") -> list[Outcome]:
    """Calls that take 10 ms, and fail with `code` within `down`."""
    return [
        Outcome(at, TARGET, 0.01, code if down[0] <= at < down[1] else "OK")
        for at in (number / rate for number in range(calls))
    ]


def document(**parts: object) -> PolicyDocument:
    return PolicyDocument.model_validate({"policies": [{"target": TARGET, **parts}]})


def test_simulated_policy_without_action_changes_nothing() -> None:
    result = simulate(PolicyDocument(), DEFAULT, trace(1000, 100.0))["api/prediction"].summary()
    assert result["calls"] == result["attempts"] == 1000
    assert result["success_share"] == 1.0
    assert result["added_latency_ms"] == 0.0


def test_simulated_outage_opens_breaker_and_limits_retries() -> None:
    calls = trace(10_000, 100.0, (20.0, 60.0))
    breaker = {"failMax": 5, "open": "2s", "openJitter": 0, "openGrowth": 1}
    result = simulate(document(circuitBreaker=breaker), DEFAULT, calls)[TARGET].summary()
    assert result["openings"] >= 19  # every two seconds a probe finds it down
    assert result["breaker_rejections"] > 3800
    assert result["amplification"] < 0.7
    without = simulate(
        document(circuitBreaker={"enabled": False}, retry={"maxAttempts": 3, "maxDelay": "100ms"}), DEFAULT, calls
    )[TARGET].summary()
    assert without["openings"] == 0
    assert 1.0 < without["amplification"] <= 1.2
    assert without["success_share"] >= without["recorded_success_share"]


def test_simulated_retry_uses_target_state_at_its_time() -> None:
    calls = [Outcome(0.0, TARGET, 0.01, "UNAVAILABLE"), Outcome(0.02, TARGET, 0.01, "OK")]
    policy = document(retry={"maxAttempts": 2, "baseDelay": "50ms", "maxDelay": "50ms"})
    result = simulate(policy, DEFAULT, calls)[TARGET]
    assert (result.ok, result.retries, result.attempts) == (2, 1, 3)


def test_simulated_timeout_ends_and_hedge_saves_slow_calls() -> None:
    chance = random.Random(2)
    calls = [Outcome(number / 50, TARGET, 1.0 if chance.random() < 0.05 else 0.01, "OK") for number in range(2000)]
    ended = simulate(document(timeout={"attempt": "300ms"}, retry={"maxAttempts": 1}), DEFAULT, calls)[TARGET]
    assert ended.ok == sum(call.duration < 0.3 for call in calls)
    hedged = simulate(document(hedge={"delay": "50ms"}), DEFAULT, calls)[TARGET]
    assert hedged.ok == 2000
    assert hedged.hedges > 50
    assert hedged.summary()["p95_ms"] < 200
    assert hedged.summary()["added_latency_ms"] < -20


def test_recorded_rejection_is_replayed_as_known_outcome() -> None:
    calls = [Outcome(0.0, TARGET, 0.0, "CIRCUIT_OPEN"), Outcome(1.0, TARGET, 0.02, "OK")]
    result = simulate(PolicyDocument(), DEFAULT, calls)["api/prediction"]
    assert (result.calls, result.ok, result.recorded_ok) == (2, 2, 1)


def test_recorded_retries_are_not_counted_as_calls() -> None:
    calls = [Outcome(0.0, TARGET, 0.01, "UNAVAILABLE"), Outcome(0.1, TARGET, 0.01, "OK", 2)]
    assert simulate(document(retry={"maxAttempts": 1}), DEFAULT, calls)[TARGET].calls == 1


def test_replay_is_deterministic_and_keeps_random_state() -> None:
    calls = trace(3000, 200.0, (3.0, 9.0))
    policy = parse_policy_document(f"policies: [{{target: {TARGET}, hedge: {{delay: 5ms}}}}]", "x")
    random.seed(11)
    expected = random.Random(11).random()
    first = simulate(policy, DEFAULT, calls)[TARGET].summary()
    assert random.random() == expected
    assert simulate(policy, DEFAULT, reversed(calls))[TARGET].summary() == first


OUTCOMES = st.builds(
    Outcome,
    st.floats(0, 2e9).map(lambda value: round(value, 6)),
    st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}/[A-Za-z]{1,8}", fullmatch=True),
    st.floats(0, 100).map(lambda value: round(value, 6)),
    st.sampled_from(["OK", "UNAVAILABLE", "CIRCUIT_OPEN"]),
    st.integers(1, 5),
)


@given(st.lists(OUTCOMES, max_size=20))
@settings(deadline=None)
def test_outcomes_round_trip(outcomes: list[Outcome]) -> None:
    written = "".join(each.line() for each in outcomes).encode()
    assert list(read_outcomes(io.BytesIO(written))) == outcomes
    assert list(read_outcomes(io.BytesIO(b"\n" + written.replace(b"\n", b" \n\n")))) == outcomes


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nonsense", "is not JSON"),
        ("[1]", "is not an object"),
        ('{"time":1,"target":"a/b/C","duration":0.1}', "code: must be a text"),
        ('{"time":"x","target":"a/b/C","duration":0.1,"code":"OK"}', "time: must be a number"),
        ('{"time":1,"target":"a/b/C","duration":true,"code":"OK"}', "duration: must be a number"),
        ('{"time":1,"target":"a/b/C","duration":-1,"code":"OK"}', "duration: must not be negative"),
        ('{"time":1,"target":"ab","duration":1,"code":"OK"}', "target: 'ab' is not client/server/Method"),
        ('{"time":1,"target":"a/b/C","duration":1,"code":"OK","attempt":"x"}', "attempt: must be a number"),
        ('{"time":NaN,"target":"a/b/C","duration":1,"code":"OK"}', "time: must be a number"),
    ],
)
def test_invalid_outcome_line_is_reported_by_number(line: str, named: str) -> None:
    good = Outcome(1.0, TARGET, 0.1, "OK").line()
    with pytest.raises(OutcomeError, match="trace, line 3: ") as caught:
        list(read_outcomes(io.BytesIO(f"{good}\n{line}\n{good}".encode()), "trace"))
    assert named in str(caught.value)


def test_virtual_time_runs_asyncio_primitives() -> None:
    loop = VirtualLoop(100.0)

    async def main() -> tuple[list[int], float]:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def produce() -> None:
            for number in range(3):
                await asyncio.sleep(3600)
                await queue.put(number)

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            found = [await queue.get() for _ in range(3)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await queue.get()
        return found, loop.time()

    assert loop.run(main()) == ([0, 1, 2], 100.0 + 3 * 3600 + 5)


def test_virtual_time_raises_on_deadlock_and_callback_error() -> None:
    with pytest.raises(RuntimeError, match="never happen"):
        VirtualLoop().run(asyncio.Event().wait())

    def fail() -> None:
        raise ValueError("in a callback")

    loop = VirtualLoop()
    loop.call_later(1.0, fail)
    with pytest.raises(ValueError, match="in a callback"):
        loop.advance()
