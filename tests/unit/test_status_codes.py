"""Spans, metrics, alerts, guards, policies and HTTP answers share one meaning of the status codes."""

import re
from typing import get_args

import grpc
import pytest
from charts.telemetry.selectors import HTTP_FAILED, RPC_FAILED

from aurum.api.metrics import track_request
from aurum.resilience.policy import CircuitBreakerSpec, RetrySpec
from aurum.resilience.status import HTTP_SERVER_FAULTS, MEANINGS, SERVER_FAULTS, Code, code_of_http, http_status
from aurum.runtime import metrics
from aurum.runtime.admin.process_stats import process_stats
from aurum.runtime.errors import (
    FAILURES,
    AurumError,
    CancelledCallError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
    UnimplementedError,
)
from aurum.runtime.policy.reference import policy_reference

CODES = sorted(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK)


def matched(selector: str, values: list[str]) -> set[str]:
    """The values that a PromQL matcher selects."""
    pattern = selector.partition("=~")[2].strip('"')
    return {value for value in values if re.fullmatch(pattern, value)}


def failed() -> float:
    return float(process_stats()["requests"]["failed"])


def test_every_grpc_code_has_one_meaning() -> None:
    assert sorted(MEANINGS) == CODES
    assert sorted(get_args(Code)) == CODES


def test_server_faults_are_those_of_opentelemetry() -> None:
    expected = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
    assert set(SERVER_FAULTS) == expected


@pytest.mark.parametrize("code", CODES)
def test_code_is_a_server_error_over_grpc_and_http_alike(code: str) -> None:
    status = http_status(code)
    at_fault = status in HTTP_SERVER_FAULTS
    assert (code in SERVER_FAULTS) == at_fault
    assert (code in matched(RPC_FAILED, CODES)) == at_fault
    assert (str(status) in matched(HTTP_FAILED, [str(status)])) == at_fault


@pytest.mark.parametrize("code", CODES)
def test_console_counts_server_faults_over_grpc_and_http(code: str) -> None:
    expected = 1 if code in SERVER_FAULTS else 0
    before = failed()
    metrics.track_rpc_server("/aurum.v1.IngestionService/Query", code, 0.01)
    assert failed() - before == expected
    track_request("GET", "/api/machines", http_status(code))
    assert failed() - before == 2 * expected


def test_http_errors_of_servers_have_their_codes_back() -> None:
    for code in (*SERVER_FAULTS, "RESOURCE_EXHAUSTED"):
        back = code_of_http(http_status(code))
        assert back == code or (back == "INTERNAL" and code in {"UNKNOWN", "DATA_LOSS"})
    assert code_of_http(502) == "UNAVAILABLE"
    assert {code_of_http(status) for status in (302, 400, 404, 409, 422)} == {"FAILED_PRECONDITION"}


def test_breakers_count_outages_by_default() -> None:
    """A missing method says nothing of the other methods, and a refusal for overload is one that breakers obey."""
    assert set(CircuitBreakerSpec().failure_codes) == set(SERVER_FAULTS) - {"UNIMPLEMENTED"}
    assert set(RetrySpec().retry_on) == {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED"}


@pytest.mark.parametrize(
    ("error", "replaced"),
    [
        (UnavailableError("x"), True),
        (UnimplementedError("x"), True),
        (InternalError("x"), True),
        (ResourceExhaustedError("x"), True),
        (CancelledCallError("x"), False),
        (InvalidArgumentError("x"), False),
    ],
)
def test_fallbacks_replace_answers_that_were_not_served(error: AurumError, replaced: bool) -> None:
    assert isinstance(error, FAILURES) == replaced


def test_policy_reference_shows_every_code() -> None:
    page = policy_reference()
    for code in CODES:
        assert f"| `{code}` | {http_status(code)} |" in page
    assert "| `UNIMPLEMENTED` | 501 | server | no | no |" in page
    assert "| `RESOURCE_EXHAUSTED` | 429 | overload | no | yes |" in page
