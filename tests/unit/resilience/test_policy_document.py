"""Policy documents: validation errors with field paths, equivalent spellings, defaults and durations."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aurum.resilience import PolicyError, load_policy_document
from aurum.resilience.durations import format_duration, parse_duration
from aurum.resilience.policy import parse_policy_document
from aurum.runtime.policy.policies import default_policy
from aurum.runtime.settings import Settings, load_settings

MISTAKES = {
    "policies: [{target: a/b/C, retry: {maxAtempts: 3}}]": "policies[0].retry.maxAtempts: is not a field",
    "policies: [{target: a/b/C, timeout: {attempt: 500}}]": "policies[0].timeout.attempt: 500 has no unit",
    "policies: [{target: a/b/C, timeout: {attempt: 5 sec}}]": "policies[0].timeout.attempt: '5 sec' is not a duration",
    "policies: [{target: a/b/C, timeout: {attempt: 9s, deadline: 1s}}]": "policies[0].timeout.attempt: 9s is above",
    "policies: [{target: a/b/C, timeout: {attempt: 0s}}]": "policies[0].timeout.attempt: Input should be greater",
    "policies: [{target: a/b/C, retry: {baseDelay: 3s, maxDelay: 1s}}]": "policies[0].retry.baseDelay: 3s is above",
    "policies: [{target: a/b/C, retry: {maxAttempts: 99}}]": "policies[0].retry.maxAttempts: Input should be less",
    "policies: [{target: a/b/C, retry: {retryOn: [NOPE]}}]": "policies[0].retry.retryOn[0]: Input should be",
    "policies: [{target: a/b/C, hedge: {}}]": "policies[0].hedge.delay: Field required",
    "policies: [{target: a/b/C, hedge: {delay: 3s}}]": "policies[0].hedge.delay: 3s is not below timeout.attempt",
    "policies: [{target: a/b/C, circuitBreaker: {slowCall: 2s}}]": "policies[0].circuitBreaker.slowCall: 2s is not",
    "policies: [{target: a/b/C, circuitBreaker: {open: 90s}}]": "policies[0].circuitBreaker.open: 90s is above maxOpen",
    "policies: [{target: a/b/C, circuitBreaker: {mode: count, windowCalls: 5}}]": (
        "policies[0].circuitBreaker.minimumCalls: 20 is above windowCalls (5)"
    ),
    "policies: [{target: a/b/C, bulkhead: {maxQueued: 3}}]": "policies[0].bulkhead.maxWait: is 0s",
    "policies: [{target: a/b/C, adaptiveConcurrency: {minLimit: 30}}]": (
        "policies[0].adaptiveConcurrency.minLimit: 30 is above initialLimit (20)"
    ),
    "policies: [{target: a/b/C, adaptiveConcurrency: {maxLimit: 999}}]": (
        "policies[0].adaptiveConcurrency.maxLimit: 999 is above bulkhead.maxConcurrent"
    ),
    "policies: [{target: a/b/C, adaptiveConcurrency: {slowCall: 1s}}]": "adaptiveConcurrency.slowCall: means nothing",
    "policies: [{target: nonsense}]": "policies[0].target: 'nonsense' is not client/server/Method",
    "policies: [{target: a/b/C}, {target: a/b/C}]": "policies[1].target: 'a/b/C' is there before, at policies[0]",
    "servers: [{server: api, admission: {shares: {batch: 0.95}}}]": "servers[0].admission.shares.batch: 0.95 is above",
    "servers: [{server: api, admission: {maxWait: 0s}}]": "servers[0].admission.maxWait: is 0s",
    "generation: -1": "generation: Input should be greater",
    "policies: 3": "policies: Input should be a valid tuple",
    "- 3": "document: Input should be",
    "policies: [": "is not YAML",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_invalid_document_reports_field_path(text: str, tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        load_policy_document(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert MISTAKES[text] in str(caught.value)


def test_missing_or_binary_policy_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        load_policy_document(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="is not UTF-8"):
        load_policy_document(tmp_path / "binary.yaml")


def test_camel_and_snake_case_documents_are_equal() -> None:
    camel = parse_policy_document("policies: [{target: a/b/C, retry: {maxAttempts: 2, baseDelay: 50ms}}]", "x")
    snake = parse_policy_document(
        "policies:\n- target: a/b/C\n  retry:\n    base_delay: 0.05s\n    max_attempts: 2\n", "x"
    )
    assert camel == snake
    assert camel.content_hash == snake.content_hash
    assert camel.content_hash != parse_policy_document("generation: 1", "x").content_hash
    assert parse_policy_document(camel.model_dump_json(by_alias=True), "x") == camel


def test_empty_document_uses_default_policy_from_settings() -> None:
    document = parse_policy_document("", "x")
    assert document.for_call("api", "prediction", "Predict") is None
    default = default_policy(load_settings(Settings, timeout_read=1.5, circuit_breaker_fail_max=3))
    assert default.timeout.attempt == 1.5
    assert default.timeout.deadline == 3.75
    assert default.circuit_breaker.fail_max == 3


@given(st.floats(0, 1e9))
@example(1.501)  # which is not 1501 * 0.001
def test_durations_round_trip(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("1.5s", 1.5), ("2m30s", 150.0), ("1h", 3600.0), ("1h1m1s1ms", 3661.001), ("1501ms", 1.501)],
)
def test_durations_are_parsed(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 s", "-1s", "s", "1d", "1,5s", True, None, 3])
def test_invalid_duration_is_rejected(text: object) -> None:
    with pytest.raises(ValueError, match=r"unit|not a duration"):
        parse_duration(text)
