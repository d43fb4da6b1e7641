"""Replay of single calls: their outcomes, the counters they increment, and the summary."""

import gc
import random
from typing import Any

import pytest

from aurum.resilience import Policy, PolicyDocument
from aurum.resilience.outcomes import Outcome
from aurum.resilience.simulation import TargetResult, simulate

TARGET = "api/prediction/Predict"
DEFAULT = Policy(target="*/*/*")


def replay(outcomes: list[Outcome], **parts: Any) -> TargetResult:
    """Under a policy that makes each call once and lets all of them through, but for what is given."""
    quiet = {"retry": {"maxAttempts": 1}, "circuitBreaker": {"enabled": False}}
    document = PolicyDocument.model_validate({"policies": [{"target": TARGET, **quiet, **parts}]})
    return simulate(document, DEFAULT, outcomes)[TARGET]


def calls(*codes: str, every: float = 1.0, seconds: float = 0.25) -> list[Outcome]:
    return [Outcome(100.0 + number * every, TARGET, seconds, code) for number, code in enumerate(codes)]


def test_replayed_calls_are_counted_by_outcome() -> None:
    result = replay(calls("OK", "UNAVAILABLE", "OK", "NOT_FOUND"))
    assert result == TargetResult(
        calls=4, recorded_ok=2, ok=2, attempts=4, recorded_durations=[0.25] * 4, durations=[0.25] * 4
    )
    assert result.amplification == 1.0


def test_replay_summary_reports_each_value_by_name() -> None:
    result = TargetResult(8, 3, 5, 12, 2, 3, 4, 6, 7, 9, [0.1] * 7 + [0.5], [0.2] * 7 + [0.9])
    assert result.summary() == {
        "calls": 8,
        "recorded_success_share": 0.375,
        "success_share": 0.625,
        "attempts": 12,
        "amplification": 1.5,
        "retries": 2,
        "hedges": 3,
        "openings": 4,
        "breaker_rejections": 6,
        "limit_rejections": 7,
        "retries_without_budget": 9,
        "added_latency_ms": 137.5,
        "recorded_p95_ms": 100.0,
        "p95_ms": 200.0,
    }
    thirds = TargetResult(3, 1, 2, 4, recorded_durations=[0.0001234], durations=[0.0023456]).summary()
    assert (thirds["recorded_success_share"], thirds["success_share"], thirds["amplification"]) == (
        0.3333,
        0.6667,
        1.3333,
    )
    assert (thirds["added_latency_ms"], thirds["recorded_p95_ms"], thirds["p95_ms"]) == (0.741, 0.123, 2.346)


def test_empty_replay_summary_is_zero() -> None:
    assert set(TargetResult().summary().values()) == {0}
    assert TargetResult().amplification == 0.0
    assert simulate(PolicyDocument(), DEFAULT, []) == {}
    assert str(TargetResult(3, durations=[0.1], recorded_durations=[0.1000001]).summary()["added_latency_ms"]) == "0.0"


@pytest.mark.parametrize(("number", "p95"), [(1, 0.0), (2, 0.0), (20, 18.0), (21, 19.0), (101, 95.0)])
def test_p95_is_computed_from_sorted_durations(number: int, p95: float) -> None:
    values = [each / 1000 for each in reversed(range(number))]
    assert TargetResult(1, durations=values).summary()["p95_ms"] == p95


def test_response_exactly_at_timeout_succeeds() -> None:
    times = {"timeout": {"attempt": "500ms", "deadline": "500ms"}}
    outcomes = [Outcome(float(at), TARGET, seconds, "OK") for at, seconds in enumerate((0.5, 0.501, 0.25))]
    result = replay(outcomes, **times)
    assert (result.ok, result.attempts) == (2, 3)
    assert result.durations == pytest.approx([0.5, 0.5, 0.25])


def test_recorded_timeout_takes_full_timeout_duration() -> None:
    result = replay(calls("DEADLINE_EXCEEDED", "OK", every=9.0), timeout={"attempt": "2s"})
    assert (result.ok, result.recorded_ok) == (1, 1)
    assert result.durations == [2.0, 0.25]
    assert result.recorded_durations == [0.25, 0.25]


def test_retry_uses_outcome_recorded_at_its_time() -> None:
    retry = {"maxAttempts": 3, "baseDelay": "1ms", "maxDelay": "1ms", "budgetFloor": 9}
    outcomes = [
        Outcome(0.0, TARGET, 0.5, "UNAVAILABLE"),
        Outcome(0.505, TARGET, 0.125, "UNAVAILABLE", 2),
        Outcome(0.64, TARGET, 0.25, "OK", 3),
        Outcome(0.7, TARGET, 4.0, "ABORTED", 4),
    ]
    result = replay(outcomes, retry=retry)
    assert (result.calls, result.ok, result.attempts, result.retries) == (1, 1, 3, 2)
    assert result.durations == pytest.approx([0.875], abs=0.003)
    assert result.recorded_durations == [0.5]
    after = [Outcome(0.0, TARGET, 0.5, "UNAVAILABLE")]  # nothing is recorded later: the last one answers
    result = replay(after, retry=retry)
    assert (result.ok, result.attempts) == (0, 3)
    assert result.durations == pytest.approx([1.5], abs=0.003)


def test_retries_without_budget_are_counted() -> None:
    retry = {"maxAttempts": 3, "baseDelay": "1ms", "maxDelay": "1ms", "budgetFloor": 1, "budgetRatio": 0}
    result = replay(calls("UNAVAILABLE", "UNAVAILABLE", every=0.3, seconds=0.01), retry=retry)
    assert (result.retries, result.budget_rejections, result.attempts) == (1, 2, 3)


def test_breaker_openings_and_refusals_are_counted() -> None:
    breaker = {"failMax": 2, "open": "3s", "openJitter": 0, "openGrowth": 1}
    down = calls("UNAVAILABLE", "UNAVAILABLE", "OK", "OK", "OK", "OK", "OK", seconds=0.0)
    result = replay(down, circuitBreaker=breaker)
    assert (result.openings, result.breaker_rejections, result.ok, result.attempts) == (1, 2, 3, 5)
    assert result.amplification == 5 / 7
    assert len(result.durations) == 7


@pytest.mark.parametrize(
    ("bulkhead", "refused", "durations"),
    [
        ({"maxConcurrent": 1}, 2, [0.0, 0.0, 1.0]),
        ({"maxConcurrent": 1, "maxQueued": 1, "maxWait": "9s"}, 1, [0.0, 1.0, 1.9]),
        ({"maxConcurrent": 1, "maxQueued": 1, "maxWait": "500ms"}, 2, [0.0, 0.5, 1.0]),
        ({"maxConcurrent": 3}, 0, [1.0, 1.0, 1.0]),
    ],
)
def test_limit_refusals_and_waits_are_counted(bulkhead: dict[str, Any], refused: int, durations: list[float]) -> None:
    result = replay(calls("OK", "OK", "OK", every=0.1, seconds=1.0), bulkhead=bulkhead)
    assert (result.limit_rejections, result.ok) == (refused, 3 - refused)
    assert sorted(result.durations) == pytest.approx(durations)


def test_hedges_use_outcomes_recorded_at_their_time() -> None:
    outcomes = [
        Outcome(0.0, TARGET, 1.5, "OK"),
        Outcome(0.1, TARGET, 0.25, "OK", 2),
        Outcome(5.0, TARGET, 0.05, "INTERNAL"),
        Outcome(9.0, TARGET, 0.3, "UNAVAILABLE"),
        Outcome(9.1, TARGET, 0.1, "INTERNAL", 2),
    ]
    result = replay(outcomes, hedge={"delay": "100ms"})
    assert (result.calls, result.ok, result.hedges, result.attempts) == (3, 1, 2, 5)
    assert result.durations == pytest.approx([0.35, 0.05, 0.3])


def test_recorded_refusals_use_next_known_outcome() -> None:
    outcomes = calls("CIRCUIT_OPEN", "NOT_FOUND", "LIMIT_EXCEEDED", "OK")
    result = replay(outcomes)
    assert (result.calls, result.recorded_ok, result.ok, result.attempts) == (4, 1, 2, 4)
    nothing = replay(calls("CIRCUIT_OPEN", "LIMIT_EXCEEDED", seconds=0.5))
    assert (nothing.ok, nothing.attempts, nothing.durations) == (2, 2, [0.0, 0.0])


def test_targets_of_one_policy_share_a_result() -> None:
    outcomes = [
        Outcome(2.0, "api/prediction/Explain", 0.5, "OK"),
        Outcome(1.0, "api/prediction/Predict", 0.25, "OK"),
        Outcome(1.5, "edge/ingestion/Ingest", 0.125, "INTERNAL"),
    ]
    results = simulate(PolicyDocument(), DEFAULT, outcomes)
    assert sorted(results) == ["api/prediction", "edge/ingestion"]
    both, one = results["api/prediction"], results["edge/ingestion"]
    assert (both.calls, both.ok, both.durations) == (2, 2, [0.25, 0.5])
    assert (one.calls, one.ok, one.durations) == (1, 0, [0.125])


@pytest.mark.parametrize("collecting", [True, False])
def test_replay_restores_gc_and_random_state(collecting: bool) -> None:
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    random.seed(3)
    expected = random.Random(3).random()
    try:
        replay(calls("UNAVAILABLE"), retry={"maxAttempts": 2})
        assert gc.isenabled() is collecting
        assert random.random() == expected
        with pytest.raises(ValueError, match="unpack"):
            simulate(PolicyDocument(), DEFAULT, [Outcome(0.0, "no target", 0.0, "OK")])
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_replay_is_independent_of_random_state() -> None:
    retry = {"maxAttempts": 3, "baseDelay": "1s", "maxDelay": "2s"}
    found = []
    for seed in (1, 2):
        random.seed(seed)
        found.append(replay(calls("UNAVAILABLE"), retry=retry).durations)
    assert found[0] == found[1]
    assert found[0][0] > 0.5


def test_replay_retries_immediately_without_delay() -> None:
    found = replay(calls("UNAVAILABLE", "OK"), retry={"maxAttempts": 2, "baseDelay": "0s", "maxDelay": "0s"})
    assert (found.calls, found.retries) == (2, 1)
