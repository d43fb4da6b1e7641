"""Semantics of policy documents: the effect of each field, matching, error messages, and the reference."""

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from aurum.resilience import BreakerConfig, LimitConfig, Policy, PolicyDocument, PolicyError, load_policy_document
from aurum.resilience.durations import Duration, Seconds
from aurum.resilience.limit_algorithms import Aimd, Vegas
from aurum.resilience.policy import (
    AdaptiveConcurrencySpec,
    AdmissionSpec,
    CircuitBreakerSpec,
    ContradictionError,
    describe,
    parse_policy_document,
)
from aurum.runtime.policy.call_catalog import calls_reference
from aurum.runtime.policy.reference import policy_reference, tables

ROOT = Path(__file__).parents[3]


def policy(**parts: Any) -> Policy:
    return Policy.model_validate({"target": "a/b/C", **parts})


def mistake(text: str, source: str = "the source") -> str:
    with pytest.raises(PolicyError) as caught:
        parse_policy_document(text, source)
    return str(caught.value)


def test_every_breaker_policy_field_is_applied() -> None:
    spec = CircuitBreakerSpec.model_validate(
        {
            "mode": "count",
            "failMax": 2,
            "windowCalls": 30,
            "window": "4s",
            "failureRate": 0.35,
            "slowCall": "600ms",
            "slowCallRate": 0.7,
            "minimumCalls": 8,
            "open": "9s",
            "openJitter": 0.15,
            "openGrowth": 1.1,
            "maxOpen": "12s",
            "halfOpenProbes": 13,
            "force": "closed",
        }
    )
    assert spec.config() == BreakerConfig("count", 2, 30, 4.0, 0.35, 0.6, 0.7, 8, 9.0, 0.15, 1.1, 12.0, 13, "closed")


def test_adaptive_policy_creates_its_algorithm() -> None:
    bounds = {"initialLimit": 7, "minLimit": 3, "maxLimit": 11}
    vegas = AdaptiveConcurrencySpec.model_validate(bounds).new()
    assert vegas == Vegas(7, 3, 11)
    aimd = AdaptiveConcurrencySpec.model_validate({**bounds, "algorithm": "aimd"}).new()
    assert aimd == Aimd(7, 3, 11, math.inf)
    slow = AdaptiveConcurrencySpec.model_validate({**bounds, "algorithm": "aimd", "slowCall": "300ms"}).new()
    assert slow == Aimd(7, 3, 11, 0.3)


def test_bulkhead_and_adaptive_policy_configure_limit() -> None:
    bulkhead = {"maxConcurrent": 12, "maxQueued": 5, "maxWait": "2s"}
    assert policy(bulkhead=bulkhead).limit() == LimitConfig(12, 5, 2.0)
    adaptive = {"initialLimit": 7, "minLimit": 3, "maxLimit": 11}
    assert policy(bulkhead=bulkhead, adaptiveConcurrency=adaptive).limit() == LimitConfig(
        7, 5, 2.0, algorithm=Vegas(7, 3, 11)
    )


def test_admission_policy_configures_limit_with_shares() -> None:
    parts: dict[str, Any] = {
        "maxConcurrent": 12,
        "maxQueued": 5,
        "maxWait": "2s",
        "shares": {"alarm": 0.9, "telemetry": 0.8, "query": 0.7, "batch": 0.6},
    }
    shares = (0.9, 0.8, 0.7, 0.6)
    assert AdmissionSpec.model_validate(parts).limit() == LimitConfig(12, 5, 2.0, shares)
    parts["adaptiveConcurrency"] = {"initialLimit": 7, "minLimit": 3, "maxLimit": 11}
    assert AdmissionSpec.model_validate(parts).limit() == LimitConfig(7, 5, 2.0, shares, Vegas(7, 3, 11))
    parts["maxConcurrent"] = 11
    AdmissionSpec.model_validate(parts)
    with pytest.raises(ValidationError, match=r"11 is above maxConcurrent \(10\)"):
        AdmissionSpec.model_validate({**parts, "maxConcurrent": 10})


DOCUMENT = """
default: {target: "*/*/*", retry: {maxAttempts: 9}}
policies: [{target: api/*/Read}, {target: "api/[a-m]*/*"}]
shadows: [{target: api/store/*}, {target: "api/*/*"}]
servers: [{server: store}, {server: "s*", admission: {maxQueued: 1}}]
"""


def test_first_match_applies_to_call_shadow_and_server() -> None:
    document = parse_policy_document(DOCUMENT, "x")

    def target(server: str, method: str) -> str | None:
        found = document.for_call("api", server, method)
        return found and found.target

    assert target("store", "Read") == "api/*/Read"
    assert target("index", "Write") == "api/[a-m]*/*"
    assert target("store", "Write") == "*/*/*"
    assert target("store", "read") == "*/*/*", "in the case that it is written in"
    shadows = [document.shadow_of(name) for name in ("api/store/Read", "api/index/Read", "edge/store/Read")]
    assert [found and found.target for found in shadows] == ["api/store/*", "api/*/*", None]
    servers = [document.for_server(name) for name in ("store", "spool", "api")]
    assert [found and found.server for found in servers] == ["store", "s*", None]


def test_empty_document_matches_nothing() -> None:
    document = PolicyDocument()
    assert document.for_call("a", "b", "C") is None
    assert document.shadow_of("a/b/C") is None
    assert document.for_server("a") is None
    assert parse_policy_document("{}", "x") == parse_policy_document("# nothing", "x") == document


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{a: 1, extra: 2}", "a: is not a field that there is here"),
        ("servers: [{}]", "servers[0].server: Field required"),
        ("policies: [{target: x}]", "policies[0].target: 'x' is not client/server/Method"),
        ("policies: [{target: a//C}]", "policies[0].target: 'a//C' is not client/server/Method"),
        ("[1]", "document: Input should be a valid dictionary or instance of PolicyDocument"),
        (
            "policies: [{target: a/b/C, retry: {baseDelay: 3s, maxDelay: 500ms}}]",
            "policies[0].retry.baseDelay: 3s is above maxDelay (500ms)",
        ),
        (
            "policies: [{target: a/b/C, timeout: {attempt: 3s, deadline: 2s}}]",
            "policies[0].timeout.attempt: 3s is above deadline (2s)",
        ),
        (
            "policies: [{target: a/b/C, circuitBreaker: {open: 2m, maxOpen: 1m}}]",
            "policies[0].circuitBreaker.open: 120s is above maxOpen (60s)",
        ),
        (
            "servers: [{server: a, admission: {shares: {query: 0.95, telemetry: 0.5}}}]",
            "servers[0].admission.shares.query: 0.95 is above telemetry (0.5)",
        ),
        (
            "policies: [{target: a/b/C}, {target: a/b/D}, {target: a/b/D}]",
            "policies[2].target: 'a/b/D' is there before, at policies[1]; only that is used",
        ),
        (
            "servers: [{server: a}, {server: a}]",
            "servers[1].server: 'a' is there before, at servers[0]; only that is used",
        ),
        (
            "shadows: [{target: a/b/C}, {target: a/b/C}]",
            "shadows[1].target: 'a/b/C' is there before, at shadows[0]; only that is used",
        ),
        (
            "policies: [{target: a/b/C, retry: {baseDelay: 1}}]",
            "policies[0].retry.baseDelay: 1 has no unit; write 1s or 1ms",
        ),
    ],
)
def test_invalid_policy_error_is_one_sentence(text: str, problem: str) -> None:
    assert mistake(text) == f"the source: {problem} (line 1)"


def test_yaml_error_is_reported_on_one_line() -> None:
    problem = mistake("policies: [\n  {", "p.yaml")
    assert problem.startswith("p.yaml: is not YAML: while parsing a flow")
    assert "expected" in problem
    assert "\n" not in problem
    assert "  " not in problem
    assert "XX" not in problem


def test_equal_bounds_are_accepted() -> None:
    parse_policy_document(
        """
        policies:
        - target: a/b/C
          retry: {baseDelay: 2s, maxDelay: 2s}
          timeout: {attempt: 1s, deadline: 1s}
          circuitBreaker: {open: 1s, maxOpen: 1s, mode: count, minimumCalls: 5, windowCalls: 5}
          adaptiveConcurrency: {minLimit: 5, initialLimit: 5, maxLimit: 5}
          bulkhead: {maxConcurrent: 5}
        """,
        "x",
    )


def test_error_description_names_field() -> None:
    with pytest.raises(ValidationError) as caught:
        AdaptiveConcurrencySpec.model_validate({"slowCall": "1s"})
    assert describe(caught.value) == "slowCall: means nothing to vegas; it is for aimd"
    error = ContradictionError("open", "is wrong")
    assert (error.field, str(error)) == ("open", "is wrong")


def test_unreadable_policy_file_is_reported_with_reason(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    with pytest.raises(PolicyError) as caught:
        load_policy_document(path)
    assert str(caught.value) == f"{path}: cannot be read: No such file or directory"
    path.write_bytes(b"uid: \xff")
    with pytest.raises(PolicyError) as caught:
        load_policy_document(path)
    assert str(caught.value) == f"{path}: is not UTF-8: invalid start byte at byte 5"
    path.write_bytes("uid: Prüfstand".encode())
    assert load_policy_document(path).uid == "Prüfstand"
    path.write_text("generation: x")
    with pytest.raises(PolicyError) as caught:
        load_policy_document(path)
    assert str(caught.value).startswith(f"{path}: generation: Input should be a valid integer")


def test_policy_reference_matches_documentation() -> None:
    assert policy_reference() + calls_reference() == (ROOT / "docs" / "policies.md").read_text()


class Inner(BaseModel):
    """What is
    inside."""


class Bare(BaseModel):
    size: int


class Outer(BaseModel):
    """A model
    of many kinds."""

    first: int = Field(alias="firstName", description="The first.")
    flag: bool = False
    wait: Duration = Seconds(0.25)
    share: float = 0.5
    names: tuple[str, ...] = ("a", "b")
    none: int | None = None
    empty: tuple[str, ...] = ()
    inner: Inner = Field(default_factory=Inner)
    several: tuple[Inner, ...] = ()
    maybe: Inner | None = None
    said: Inner = Field(default_factory=Inner, description="Said.")


def test_reference_table_shows_each_kind_of_default() -> None:
    lines = tables([("outer", Outer), ("bare[]", Bare)])
    assert lines == [
        "",
        "## outer",
        "",
        "A model of many kinds.",
        "",
        "| field | default | what |",
        "| --- | --- | --- |",
        "| `firstName` | required | The first. |",
        "| `flag` | `false` |  |",
        "| `wait` | `250ms` |  |",
        "| `share` | `0.5` |  |",
        "| `names` | `a`, `b` |  |",
        "| `none` | none |  |",
        "| `empty` | none |  |",
        "| `inner` | see below | What is inside. |",
        "| `several` | none | What is inside. |",
        "| `maybe` | none | What is inside. |",
        "| `said` | see below | Said. |",
        "",
        "## bare[]",
        "",
        "| field | default | what |",
        "| --- | --- | --- |",
        "| `size` | required |  |",
    ]


OUTLASTED = "so that a probe may take longer, and all other calls are refused until it has ended"


@pytest.mark.parametrize(
    ("parts", "warnings"),
    [
        ({}, []),
        ({"circuitBreaker": {"open": "2s"}}, []),
        (
            {"circuitBreaker": {"open": "1999ms"}},
            [f"circuitBreaker.open: 1.999s is below timeout.attempt (2s), {OUTLASTED}"],
        ),
        ({"circuitBreaker": {"open": "1s", "enabled": False}}, []),
        ({"circuitBreaker": {"open": "1s"}, "timeout": {"deadline": "1s"}}, []),
        ({"circuitBreaker": {"open": "2s"}, "timeout": {"db": "2s"}}, []),
        (
            {"circuitBreaker": {"open": "2s"}, "timeout": {"db": "3s"}},
            [f"circuitBreaker.open: 2s is below timeout.db (3s), {OUTLASTED}"],
        ),
        (
            {"circuitBreaker": {"open": "1s"}, "timeout": {"deadline": "4s", "db": "9s"}},
            [
                f"circuitBreaker.open: 1s is below timeout.attempt (2s), {OUTLASTED}",
                f"circuitBreaker.open: 1s is below timeout.db (4s), {OUTLASTED}",
            ],
        ),
    ],
)
def test_open_time_below_attempt_timeout_is_warned_of(parts: dict[str, Any], warnings: list[str]) -> None:
    assert policy(**parts).warnings() == warnings


def test_document_warns_with_path_of_policy() -> None:
    short = "circuitBreaker: {open: 1s}"
    text = f"policies: [{{target: a/b/*}}, {{target: a/*/*, {short}}}]\nshadows: [{{target: a/b/*, {short}}}]\n"
    text += f"default: {{target: '*/*/*', {short}}}"
    found = [warning.partition(":")[0] for warning in parse_policy_document(text, "x").warnings()]
    assert found == [f"{path}.circuitBreaker.open" for path in ("policies[1]", "shadows[0]", "default")]
    assert PolicyDocument().warnings() == []


def test_shipped_policies_are_not_warned_of() -> None:
    assert load_policy_document(ROOT / "policies.yaml").warnings() == []
