"""Shadow decisions: counters for outcomes of attempts, and matching of shadows to calls."""

from typing import Any

import pytest

from aurum.resilience import Criticality, Policy, criticality_scope
from aurum.resilience.policy import parse_policy_document
from aurum.resilience.shadow import Shadow, Shadows
from tests.support.resilience import Clock, listening


def policy(**parts: Any) -> Policy:
    return Policy.model_validate({"target": "a/b/C", **parts})


def ends(shadow: Shadow, clock: Clock, *codes: str | None, seconds: float = 0.0) -> dict[str, int]:
    for code in codes:
        watched = shadow.begin()
        clock.now += seconds
        watched.end(code)
    return {str(decision): count for decision, count in shadow.decisions.items()}


BREAKER = {"failMax": 2, "open": "10s", "openJitter": 0, "failureCodes": ["INTERNAL"]}


def test_shadow_breaker_counts_only_its_failure_codes() -> None:
    clock = Clock(5.0)
    shadow = Shadow(policy(circuitBreaker=BREAKER), clock)
    assert shadow.name == "a/b/C"
    with listening() as told:
        assert ends(shadow, clock, "INTERNAL", "OK", "INTERNAL", "UNAVAILABLE", "INTERNAL", None) == {}
        assert ends(shadow, clock, "INTERNAL") == {"opening": 1}
        assert ends(shadow, clock, "OK", "OK") == {"opening": 1, "breaker_rejection": 2}
    assert shadow.calls == 9
    assert told == [
        ("shadow_decision", "a/b/C", "opening"),
        ("shadow_decision", "a/b/C", "breaker_rejection"),
        ("shadow_decision", "a/b/C", "breaker_rejection"),
    ]
    clock.now = 15.0
    assert ends(shadow, clock, "OK", "INTERNAL") == {"opening": 1, "breaker_rejection": 2}


def test_shadow_without_breaker_counts_no_openings() -> None:
    clock = Clock()
    shadow = Shadow(policy(circuitBreaker={**BREAKER, "enabled": False}), clock)
    assert ends(shadow, clock, *["INTERNAL"] * 9) == {}


def test_shadow_counts_late_successes_as_timeouts() -> None:
    clock = Clock()
    breaker = {**BREAKER, "failMax": 1, "failureCodes": ["DEADLINE_EXCEEDED"]}
    shadow = Shadow(policy(circuitBreaker=breaker, timeout={"attempt": "500ms"}), clock)
    assert ends(shadow, clock, "OK", seconds=0.5) == {}
    assert ends(shadow, clock, "INTERNAL", None, seconds=9.0) == {}
    with listening() as told:
        assert ends(shadow, clock, "OK", seconds=0.75) == {"timeout": 1, "opening": 1}
    assert [value for _, _, value in told] == ["timeout", "opening"]


def test_shadow_breaker_receives_call_durations() -> None:
    for code in ("OK", "INTERNAL"):
        clock = Clock(7.0)
        parts = {"mode": "count", "minimumCalls": 1, "slowCall": "500ms", "failureCodes": ["UNKNOWN"]}
        shadow = Shadow(policy(circuitBreaker=parts), clock)
        assert ends(shadow, clock, code, seconds=0.25) == {}
        shadow = Shadow(policy(circuitBreaker=parts), clock)
        assert ends(shadow, clock, code, seconds=0.5) == {"opening": 1}


def test_shadow_limit_counts_rejections_and_releases_slots() -> None:
    clock = Clock()
    shadow = Shadow(policy(bulkhead={"maxConcurrent": 2}, circuitBreaker={**BREAKER, "failMax": 1}), clock)
    for _ in range(2):
        watched = [shadow.begin() for _ in range(3)]
        for each, code in zip(watched, (None, "OK", "INTERNAL"), strict=True):
            each.end(code)  # the last one had no place, so the breaker has not seen it
    assert dict(shadow.decisions) == {"limit_rejection": 2}


def test_shadow_limit_adapts_to_overload() -> None:
    for code, seconds, refused in (("OK", 0.1, 2), ("UNAVAILABLE", 0.1, 3), (None, 0.1, 2)):
        clock = Clock()
        adaptive = {"algorithm": "aimd", "initialLimit": 4, "minLimit": 1, "maxLimit": 9}
        shadow = Shadow(policy(adaptiveConcurrency=adaptive), clock)
        with criticality_scope(Criticality.BATCH):
            ends(shadow, clock, code, code, seconds=seconds)
            assert not shadow.decisions
            for _ in range(6):
                shadow.begin()
        assert dict(shadow.decisions) == {"limit_rejection": refused}


def test_reconfigured_shadow_keeps_counts_and_window() -> None:
    clock = Clock()
    shadow = Shadow(policy(circuitBreaker=BREAKER), clock)
    ends(shadow, clock, "INTERNAL", "INTERNAL", "OK")
    clock.now = 10.0
    ends(shadow, clock, "OK")  # closed again
    ends(shadow, clock, "INTERNAL")
    other = policy(
        circuitBreaker={**BREAKER, "failMax": 3, "failureCodes": ["INTERNAL", "ABORTED"]},
        bulkhead={"maxConcurrent": 1},
        timeout={"attempt": "1s"},
    )
    shadow.configure(other)
    assert shadow.policy == other
    assert ends(shadow, clock, "ABORTED") == {"opening": 1, "breaker_rejection": 1}
    assert ends(shadow, clock, "ABORTED") == {"opening": 2, "breaker_rejection": 1}
    shadow.begin()
    assert shadow.begin().placed is False
    assert shadow.decisions["limit_rejection"] == 1
    assert shadow.calls == 9


def document(*targets: str, fail_max: int = 2) -> Any:
    listed = ", ".join(f"{{target: {each}, circuitBreaker: {{failMax: {fail_max}}}}}" for each in targets)
    return parse_policy_document(f"shadows: [{listed}]", "x")


def test_shadows_are_matched_by_call_and_kept_by_target() -> None:
    clock = Clock(3.0)
    shadows = Shadows(document("a/b/Read", "a/b/*"), clock)
    assert shadows
    assert [shadow.name for shadow in shadows] == ["a/b/Read", "a/b/*"]
    read, other = (shadows.shadow_for(call) for call in ("a/b/Read", "a/b/Write"))
    assert read
    assert other
    assert (read.name, other.name) == ("a/b/Read", "a/b/*")
    assert shadows.shadow_for("a/b/Read") is read
    assert (shadows.shadow_for("a/c/Read"), shadows.shadow_for("a/c/Read")) == (None, None)
    assert read.begin().began == 3.0
    shadows.apply(document("a/b/*", "a/c/*", fail_max=7))
    assert shadows.shadow_for("a/b/Read") is other
    assert other.policy.circuit_breaker.fail_max == 7
    third = shadows.shadow_for("a/c/Read")
    assert third
    assert third.begin().began == 3.0
    assert [shadow.name for shadow in shadows] == ["a/b/*", "a/c/*"]
    shadows.apply(document())
    assert not shadows
    assert shadows.shadow_for("a/b/Read") is None


@pytest.mark.parametrize("same", [True, False])
def test_unchanged_shadow_is_not_reconfigured(same: bool) -> None:
    clock = Clock()
    shadows = Shadows(document("a/b/*"), clock)
    shadow = shadows.shadow_for("a/b/C")
    assert shadow
    before = shadow.policy
    shadows.apply(document("a/b/*", fail_max=2 if same else 3))
    assert shadows.shadow_for("a/b/C") is shadow
    assert (shadow.policy is before) is same
