"""What limits, budgets and shadows take over from others, and threads that call while a document is put in force."""

import threading

import pytest

from aurum.resilience import (
    ConcurrencyLimit,
    ErrorClassifier,
    LimitConfig,
    PipelineRegistry,
    Policy,
    PolicyDocument,
    RetryBudget,
)
from aurum.resilience.limit_algorithms import Aimd, LimitAlgorithm, Vegas
from aurum.resilience.shadow import Shadows
from tests.support.resilience import Clock, listening
from tests.support.waiting import wait_for


def sampled(algorithm: LimitAlgorithm, began: float, seconds: float, dropped: bool = False) -> None:
    """A complete sample while all places are used."""
    for number in range(10):
        algorithm.ended(began + number * 0.0125, seconds, 1000, dropped)


@pytest.mark.parametrize(
    ("least", "most", "limit"), [(2, 50, 18.0), (2, 18, 18.0), (2, 12, 12.0), (18, 50, 18.0), (25, 50, 25.0)]
)
@pytest.mark.parametrize("before", [Aimd, Vegas])
@pytest.mark.parametrize("after", [Aimd, Vegas])
def test_algorithm_continues_within_its_own_bounds(
    before: type[Aimd | Vegas], after: type[Aimd | Vegas], least: int, most: int, limit: float
) -> None:
    new = after(float(least), least, most)
    new.take_over(before(18.0, 1, 99))
    assert (new.limit, new.least, new.most) == (limit, least, most)


def test_aimd_continues_its_sample() -> None:
    old, new = Aimd(20.0, 2, 50), Aimd(10.0, 2, 50)
    old.ended(0.0, 0.01, 20, True)
    new.take_over(old)
    assert new.ended(0.1, 0.01, 20, False)
    assert new.limit == 18.0
    assert old.ended(0.1, 0.01, 20, True), "the other one has a sample of its own"
    other = Aimd(10.0, 2, 50)
    other.take_over(Vegas(20.0, 2, 50))
    assert not other.ended(0.1, 0.01, 20, True)


def test_vegas_continues_all_that_it_knows() -> None:
    def made(limit: float) -> Vegas:
        return Vegas(limit, 2, 50, memory=1.0)

    old, twin = made(20.0), made(20.0)
    for vegas in (old, twin):
        for began, seconds in ((0.0, 0.01), (0.2, 0.05), (0.4, 0.02), (1.1, 0.02)):  # now it tries half of it
            sampled(vegas, began, seconds)
        vegas.ended(1.3, 0.02, 30, False)
    assert old.limit < old.base_limit()
    new = made(5.0)
    new.take_over(old)
    assert new.base_limit() == old.base_limit()
    for began in (1.4, 1.6, 1.8, 2.2, 2.4):
        sampled(new, began, 0.03)
        sampled(twin, began, 0.03)
        assert new == twin


@pytest.mark.parametrize(("most", "found"), [(50, 29.0), (20, 20.0)])
def test_limit_that_vegas_is_to_resume_is_bounded_too(most: int, found: float) -> None:
    old = Vegas(20.0, 2, 50)
    old._resume = 29.0
    new = Vegas(4.0, 2, most)
    new.take_over(old)
    assert (new.limit, new.base_limit()) == (20.0, found)
    fixed = Aimd(4.0, 2, 50)
    fixed.take_over(old)
    assert fixed.limit == 29.0, "half of it is only a trial"


def adaptive(first: int = 10, **more: int) -> LimitConfig:
    return LimitConfig(first, algorithm=Aimd(float(first), more.get("least", 2), more.get("most", 50)))


def lowered(clock: Clock) -> ConcurrencyLimit:
    limit = ConcurrencyLimit("l", adaptive(20), clock)
    for clock.now in (0.0, 0.1):
        assert limit.try_acquire()
        limit.release(1.0, dropped=True)
    assert limit.limit == 18
    return limit


def test_adaptive_limit_starts_anew_after_a_fixed_one() -> None:
    limit = lowered(Clock())
    limit.configure(adaptive(30))
    assert limit.limit == 18
    limit.configure(limit.config)
    assert limit.limit == 18
    limit.configure(LimitConfig(5))
    assert (limit.limit, limit.copy_algorithm()) == (5, None)
    limit.configure(adaptive(30))
    assert limit.limit == 30


def test_limit_takes_over_what_another_has_found() -> None:
    clock = Clock()
    other, limit = lowered(clock), ConcurrencyLimit("m", adaptive(10), clock)
    found = other.copy_algorithm()
    with listening() as told:
        limit.take_over(found)
    assert limit.limit == 18
    assert told == [("limit_change", "m", "18")]
    for clock.now in (1.0, 1.1):
        assert limit.try_acquire()
        limit.release(1.0, dropped=True)
    assert (limit.limit, other.limit) == (16, 18)
    with listening() as told:
        limit.take_over(None)
        ConcurrencyLimit("fixed", 3).take_over(found)
    assert limit.limit == 16
    assert told == [("limit_change", "fixed", "3")]


def test_call_waiting_for_a_place_gets_one_taken_over() -> None:
    limit = ConcurrencyLimit("m", LimitConfig(1, 1, 60.0, algorithm=Aimd(1.0, 1, 50)))
    limit.acquire()
    waiting = threading.Thread(target=limit.acquire)
    waiting.start()
    wait_for(lambda: limit.queued, 20.0, "the call waits")
    limit.take_over(Aimd(2.0, 1, 50))
    waiting.join()
    assert limit.in_flight == 2


@pytest.mark.parametrize(("given", "tokens"), [(3.5, 3.5), (100.0, 100.0), (250.0, 100.0), (0.0, 0.0)])
def test_budget_takes_over_tokens_up_to_its_capacity(given: float, tokens: float) -> None:
    budget = RetryBudget("b", floor=7.0, clock=Clock())
    budget.take_over(given)
    assert budget.tokens == tokens


def test_shadow_keeps_counts_and_limit_when_its_policy_changes() -> None:
    def document(**parts: object) -> PolicyDocument:
        adaptive = {"algorithm": "aimd", "initialLimit": 1, "minLimit": 1, "maxLimit": 9}
        shadow = {"target": "a/b/*", "adaptiveConcurrency": adaptive, **parts}
        return PolicyDocument.model_validate({"shadows": [shadow]})

    clock = Clock()
    shadows = Shadows(document(), clock)
    (shadow,) = shadows
    for clock.now in (0.0, *[0.1 + number / 1000 for number in range(9)]):
        shadow.begin().end("OK")
    assert shadow._limit.limit == 2
    shadows.apply(document(retry={"maxAttempts": 7}))
    assert list(shadows) == [shadow]
    assert shadows.shadow_for("a/b/C") is shadow
    assert (shadow._limit.limit, shadow.calls) == (2, 10)
    assert shadows.shadow_for("b/b/C") is None
    shadows.apply(PolicyDocument())
    assert not shadows
    assert shadows.shadow_for("a/b/C") is None


def test_threads_that_call_during_reloads_share_one_pipeline() -> None:
    targets = ("api/store/*", "api/store/Read", "*/store/R*")
    documents = [PolicyDocument(policies=(Policy(target=target),)) for target in targets]
    for _ in range(20):
        made: list[str] = []
        pipelines = PipelineRegistry(
            PolicyDocument(), Policy(target="*/*/*"), on_new=lambda each, made=made: made.append(each)
        )  # type: ignore[misc]
        together = threading.Barrier(5)
        found: list[object] = []

        def call(
            pipelines: PipelineRegistry = pipelines, together: threading.Barrier = together, found: list[object] = found
        ) -> None:
            together.wait()
            found.extend(pipelines.pipeline_for("api", "store", "Read", ErrorClassifier()) for _ in range(50))

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        together.wait()
        for document in documents:
            pipelines.apply(document)
        for thread in threads:
            thread.join()
        assert len(set(map(id, found))) == 1
        assert [each.name for each in pipelines] == [
            pipelines.pipeline_for("api", "store", "Read", ErrorClassifier()).name
        ]
