import asyncio
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.commands.policy import check
from aurum.resilience import (
    CircuitBreakerError,
    ConcurrencyLimit,
    DeadlineExceededError,
    LimitExceededError,
    Pipeline,
    PolicyDocument,
    PolicyError,
    ResilientCircuitBreaker,
    RetryBudget,
    RetryPolicy,
    deadline_scope,
    load_policy_document,
    remaining,
)
from aurum.resilience.durations import Seconds
from aurum.resilience.policy import CircuitBreakerSpec, Policy, RetrySpec, TimeoutSpec
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings, load_settings


def test_breaker_holds_no_lock_across_calls() -> None:
    breaker = ResilientCircuitBreaker("threads")
    together = threading.Barrier(8, timeout=10)  # broken if the calls were made one after the other
    threads = [threading.Thread(target=breaker.call, args=(together.wait,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken
    assert breaker.fail_counter == 0


async def test_half_open_breaker_admits_exactly_its_probes() -> None:
    now = [0.0]
    breaker = ResilientCircuitBreaker("probes", 1, 1.0, probes=3, clock=lambda: now[0])

    async def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await breaker.call_async(fail)
    now[0] = 2.0
    gate = asyncio.Event()
    calls = [asyncio.create_task(breaker.call_async(gate.wait)) for _ in range(50)]
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, CircuitBreakerError) for result in results) == 47
    assert breaker.current_state == "closed"


async def test_cancelled_probe_frees_its_slot() -> None:
    now = [0.0]
    breaker = ResilientCircuitBreaker("cancel", 1, 1.0, clock=lambda: now[0])
    with pytest.raises(ValueError, match="x"), breaker.guard():
        raise ValueError("x")
    now[0] = 2.0
    probe = asyncio.create_task(breaker.call_async(asyncio.Event().wait))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert breaker.call(lambda: 7) == 7


def test_outcome_from_before_state_change_is_ignored() -> None:
    breaker = ResilientCircuitBreaker("late", 1, 100.0)
    slow = breaker.guard()
    slow.__enter__()
    with pytest.raises(OSError, match="x"), breaker.guard():
        raise OSError("x")
    assert breaker.current_state == "open"
    slow.__exit__(None, None, None)
    assert breaker.current_state == "open"


@given(st.lists(st.booleans(), max_size=200))
def test_retry_budget_never_exceeds_its_ratio(retries: list[bool]) -> None:
    budget = RetryBudget("b", ratio=0.2, floor=0.0, clock=lambda: 0.0)
    start = budget.tokens
    deposits = granted = 0
    for retry in retries:
        if retry:
            granted += budget.withdraw()
        else:
            budget.deposit()
            deposits += 1
    assert granted <= start + 0.2 * deposits + 1e-9


async def test_pipeline_retries_within_its_deadline() -> None:
    policy = Policy(
        target="a/b/C",
        retry=RetrySpec(max_attempts=10, base_delay=Seconds(0.05), max_delay=Seconds(0.05), budget_floor=100),
        timeout=TimeoutSpec(attempt=Seconds(0.3), deadline=Seconds(0.3)),
        circuit_breaker=CircuitBreakerSpec(enabled=False),
    )
    pipeline = Pipeline("t", policy)
    timeouts = []

    async def attempt(timeout: float) -> None:
        timeouts.append(timeout)
        raise ConnectionError

    with pytest.raises((ConnectionError, DeadlineExceededError)):
        await pipeline.call_async(attempt)
    assert len(timeouts) > 1
    assert timeouts == sorted(timeouts, reverse=True)  # each attempt has less time than the one before


async def test_non_idempotent_call_is_made_once() -> None:
    pipeline = Pipeline("t", Policy(target="a/b/C"))
    calls = []

    async def attempt(timeout: float) -> None:
        calls.append(timeout)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await pipeline.call_async(attempt, idempotent=False)
    assert len(calls) == 1


def test_retry_policy_respects_retry_after() -> None:
    policy = RetryPolicy(3, 0.0, 0.0, retry_after=lambda error: 1.5)
    assert policy.delay(OSError(), 1) == 1.5
    with deadline_scope(1.0):
        assert policy.next_delay(OSError(), 1, remaining()) is None  # the deadline would pass during the wait


def test_nested_deadline_cannot_extend_outer_deadline() -> None:
    with deadline_scope(10.0), deadline_scope(100.0):
        left = remaining()
        assert left is not None
        assert left <= 10.0
    assert remaining() is None


def test_limit_rejects_and_recovers() -> None:
    limit = ConcurrencyLimit("l", 1)
    assert limit.try_acquire()
    with pytest.raises(LimitExceededError, match="l: 1 calls are in progress"):
        limit.acquire()
    limit.release()
    assert limit.try_acquire()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("policies: [{target: a/b/C, retry: {max_atempts: 3}}]", "max_atempts"),
        ("policies: [{target: a/b/C, timeout: {attempt: 9s, deadline: 1s}}]", "attempt"),
        ("policies: [{target: nonsense}]", "target"),
        ("policies: [", "YAML"),
    ],
)
def test_invalid_policy_is_rejected_with_its_field(content: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(content)
    with pytest.raises(PolicyError, match=named):
        load_policy_document(path)


def test_first_matching_policy_governs() -> None:
    document = PolicyDocument(policies=(Policy(target="api/*/Predict"), Policy(target="api/*/*")))
    assert document.for_call("api", "prediction", "Predict").target == "api/*/Predict"
    assert document.for_call("api", "ingestion", "Query").target == "api/*/*"
    assert document.for_call("edge", "ingestion", "Ingest") is None


def test_retries_wait_between_attempts() -> None:
    started = time.monotonic()
    policy = RetryPolicy(2, 0.1, 0.1, retry_after=lambda error: 0.1)
    with pytest.raises(OSError, match="x"):
        policy.call(lambda: (_ for _ in ()).throw(OSError("x")))
    assert time.monotonic() - started >= 0.1


def test_short_open_time_is_warned_of_by_check_and_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text("policies: [{target: api/prediction/*, circuitBreaker: {open: 1s}}]")
    warning = "policies[0].circuitBreaker.open: 1s is below timeout.attempt (2s), so that a probe may take longer"
    check(path)
    assert f"warning: {warning}" in capsys.readouterr().out
    policies = Policies("api", load_settings(Settings, policy_file=path))
    assert [record.levelname for record in caplog.records if warning in record.message] == ["WARNING"]
    caplog.clear()
    path.write_text("policies: [{target: api/prediction/*, circuitBreaker: {open: 2s}}]")
    assert policies.reload()
    assert warning not in caplog.text
    path.write_text("policies: [{target: api/prediction/*, circuitBreaker: {open: 1s}}]")
    assert policies.reload()
    assert warning in caplog.text
