"""PipelineRegistry by target: selection, naming, and state preserved across policy documents."""

import asyncio
from typing import Any

import pytest

from aurum.resilience import ErrorClassifier, Pipeline, PipelineRegistry, Policy, PolicyDocument
from aurum.resilience.policy import parse_policy_document
from tests.support.resilience import Clock

DEFAULT = Policy(target="*/*/*")
TEXT = """
policies:
- {target: api/store/Read, circuitBreaker: {failMax: %d}}
- {target: api/store/*, circuitBreaker: {failMax: 3}}
"""
ERRORS = ErrorClassifier()


def parsed(first: int = 2, more: str = "") -> PolicyDocument:
    return parse_policy_document(TEXT % first + more, "x")


def fail_max(pipeline: Pipeline) -> int:
    assert pipeline.breaker
    return pipeline.breaker.config.fail_max


def test_calls_under_one_policy_share_a_pipeline() -> None:
    made: list[str] = []
    pipelines = PipelineRegistry(parsed(), DEFAULT, clock=Clock(), on_new=lambda pipeline: made.append(pipeline.name))
    read = pipelines.pipeline_for("api", "store", "Read", ERRORS)
    write = pipelines.pipeline_for("api", "store", "Write", ERRORS)
    assert pipelines.pipeline_for("api", "store", "List", ERRORS) is write
    assert pipelines.pipeline_for("api", "store", "Read", ERRORS) is read
    other = pipelines.pipeline_for("edge", "store", "Write", ERRORS)
    assert pipelines.pipeline_for("edge", "index", "Write", ERRORS) is not other
    assert made == ["api/store/Read", "api/store", "edge/store", "edge/index"]
    assert [pipeline.name for pipeline in pipelines] == made
    assert [fail_max(pipeline) for pipeline in pipelines] == [2, 3, 5, 5]
    assert pipelines.policy_of("api", "store", "Read").target == "api/store/Read"
    assert pipelines.policy_of("edge", "store", "Read") is DEFAULT


def test_each_instance_has_its_own_pipeline() -> None:
    pipelines = PipelineRegistry(parsed(), DEFAULT)
    names = [
        pipelines.pipeline_for("api", "store", method, ERRORS, instance=instance).name
        for method in ("Read", "Write")
        for instance in ("", "one", "two")
    ]
    assert names == [
        "api/store/Read",
        "api/store/Read:one",
        "api/store/Read:two",
        "api/store",
        "api/store:one",
        "api/store:two",
    ]


def test_pipeline_uses_given_errors_timeout_and_clock() -> None:
    clock = Clock(7.0)
    pipelines = PipelineRegistry(parsed(), DEFAULT, clock=clock)
    records: list[tuple[str, float, str, int]] = []
    pipelines.record = lambda *record: records.append(record)
    pipeline = pipelines.pipeline_for(
        "api", "store", "Write", ErrorClassifier(code=lambda error: "ABORTED"), lambda policy: 0.125
    )
    timeouts: list[float] = []

    async def attempt(timeout: float) -> None:
        timeouts.append(timeout)
        clock.now += 0.5
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        asyncio.run(pipeline.call_async(attempt, idempotent=False, timed=False))
    assert timeouts == [0.125]
    assert records == [("api/store", 0.5, "ABORTED", 1)]
    assert PipelineRegistry(parsed(), DEFAULT).pipeline_for("a", "b", "C", ERRORS).record is None


SHADOW = "shadows: [{target: api/store/*}]"


def test_pipelines_have_shadows_only_while_configured() -> None:
    pipelines = PipelineRegistry(parsed(), DEFAULT)
    pipeline = pipelines.pipeline_for("api", "store", "Read", ERRORS)
    assert pipeline.shadows is None
    pipelines.apply(parsed(2, SHADOW))
    assert pipeline.shadows is pipelines.shadows
    assert pipelines.pipeline_for("api", "store", "Write", ERRORS).shadows is pipelines.shadows
    pipelines.apply(parsed())
    assert [each.shadows for each in pipelines] == [None, None]
    begun = PipelineRegistry(parsed(2, SHADOW), DEFAULT, clock=Clock(4.0))
    (shadow,) = begun.shadows
    assert shadow.begin().began == 4.0


def open_breaker(pipeline: Pipeline) -> None:
    breaker = pipeline.breaker
    assert breaker
    for _ in range(breaker.config.fail_max):
        breaker.failed(breaker.acquire(), ConnectionError())


def states(pipelines: PipelineRegistry) -> dict[str, tuple[str, int]]:
    return {each.name: (each.breaker.current_state, fail_max(each)) for each in pipelines if each.breaker}


def test_new_document_preserves_pipelines_of_same_target() -> None:
    pipelines = PipelineRegistry(parsed(), DEFAULT, clock=Clock())
    read = pipelines.pipeline_for("api", "store", "Read", ERRORS)
    pipelines.pipeline_for("api", "store", "Write", ERRORS)
    open_breaker(read)
    document = parsed(9)
    pipelines.apply(document)
    assert pipelines.document is document
    assert pipelines.pipeline_for("api", "store", "Read", ERRORS) is read
    assert states(pipelines) == {"api/store/Read": ("open", 9), "api/store": ("closed", 3)}


def test_split_and_joined_pipelines_inherit_state() -> None:
    made: list[str] = []
    pipelines = PipelineRegistry(
        PolicyDocument(), DEFAULT, clock=Clock(), on_new=lambda pipeline: made.append(pipeline.name)
    )
    pipelines.record = record = lambda *parts: None
    for instance in ("", "two"):
        for method in ("Read", "Write"):
            pipelines.pipeline_for("api", "store", method, ERRORS, lambda policy: 0.5, instance=instance)
    open_breaker(pipelines.pipeline_for("api", "store", "Read", ERRORS))
    pipelines.apply(parsed())
    assert states(pipelines) == {
        "api/store/Read": ("open", 2),
        "api/store": ("open", 3),
        "api/store/Read:two": ("closed", 2),
        "api/store:two": ("closed", 3),
    }
    assert {each.record for each in pipelines} == {record}
    before = pipelines.pipeline_for("api", "store", "Read", ERRORS)
    pipelines.apply(PolicyDocument())
    assert states(pipelines) == {"api/store": ("open", 5), "api/store:two": ("closed", 5)}
    after = pipelines.pipeline_for("api", "store", "Read", ERRORS)
    assert after is pipelines.pipeline_for("api", "store", "Write", ERRORS)
    assert after is not before
    assert made == ["api/store", "api/store:two", "api/store/Read", "api/store/Read:two"]


@pytest.mark.parametrize("later", [False, True])
def test_pipeline_unused_by_a_document_is_dropped(later: bool) -> None:
    pipelines = PipelineRegistry(parsed(), DEFAULT)
    seen: dict[str, Any] = {"Read": pipelines.pipeline_for("api", "store", "Read", ERRORS)}
    if later:
        pipelines.apply(PolicyDocument())
        assert [each.name for each in pipelines] == ["api/store"]
        pipelines.apply(parsed())
        assert pipelines.pipeline_for("api", "store", "Read", ERRORS) is seen["Read"]
    assert [each.name for each in pipelines] == ["api/store/Read"]
