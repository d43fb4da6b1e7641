"""The names and calls that users of the platform before know."""

import io
import json
import logging

import httpx
import pytest
from prometheus_client import REGISTRY

from aurum.compat import (
    CircuitBreakerError,
    ContextualJSONFormatter,
    ResilientCircuitBreaker,
    RetryPolicy,
    TimeoutConfig,
    get_logger,
    get_tracer,
    reset_request_context,
    set_request_context,
    set_span_attributes,
    setup_logging,
    traced_async_operation,
    traced_operation,
    track_circuit_breaker_failure,
    track_circuit_breaker_state,
    track_db_query,
    track_error,
    track_ingestion,
    track_prediction,
    track_request,
    track_request_duration,
    track_retry,
    with_async_retry,
    with_retry,
)
from aurum.runtime.settings import Settings, load_settings


def value(name: str, /, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_log_line_contains_context_and_extra_fields(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        setup_logging()
        token = set_request_context(request_id="r-1", machine_id="pump-1")
        get_logger("plant").info("stored", extra={"metric_count": 5})
        reset_request_context(token)
        line = json.loads(capsys.readouterr().out.splitlines()[-1])
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert line["message"] == "stored"
    assert line["metric_count"] == 5
    assert (line["request_id"], line["machine_id"]) == ("r-1", "pump-1")
    assert line["severity"] == "INFO"
    assert line["logger"] == "plant"
    assert line["app_name"] == "AurumAI Platform"
    assert {"app_version", "environment"} <= line.keys()
    assert line["timestamp"].endswith("Z")
    assert len(line["timestamp"].rpartition(".")[2]) == len("123Z")


def test_ecs_log_line_uses_ecs_names() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ContextualJSONFormatter(service="api", ecs=True))
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.warning("careful")
    line = json.loads(stream.getvalue())
    assert line["log.level"] == "WARNING"
    assert line["service.name"] == "api"
    assert "@timestamp" in line
    assert "severity" not in line


def test_metrics_helpers_count() -> None:
    labels = {"method": "GET", "endpoint": "/x", "status_code": "200"}
    before = value("http_requests_total", **labels)
    track_request("GET", "/x", 200)
    track_request_duration("GET", "/x", 0.2)
    assert value("http_requests_total", **labels) == before + 1
    track_prediction(machine_type="pump", model_version="1", duration=0.01, risk_score=0.4)
    assert value("ml_predictions_total", machine_type="pump", model_version="1", degraded="false") >= 1
    track_ingestion(readings=10, duration=0.1)
    assert value("data_ingestion_total", transport="unary", result="accepted") >= 10
    track_db_query("select", 0.1)
    track_circuit_breaker_state("b", "open")
    assert value("circuit_breaker_state", name="b") == 1
    track_circuit_breaker_failure("b")
    track_retry("b")
    track_error("ValueError")
    assert value("errors_total", type="ValueError") >= 1


async def test_tracing_helpers_yield_spans() -> None:
    with traced_operation("outer", {"a": 1}) as outer:
        set_span_attributes({"machine": "pump-1"})
        async with traced_async_operation("inner", kind_of="test") as inner:
            assert inner.get_span_context() is not None
    assert outer.get_span_context() is not None
    assert get_tracer("x") is get_tracer("x")


def test_with_retry_tries_again() -> None:
    calls = []

    @with_retry(max_attempts=3, base_delay=0.0)
    def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("not yet")
        return "done"

    assert flaky() == "done"
    assert len(calls) == 3


async def test_with_async_retry_raises_the_last_error() -> None:
    calls = []

    @with_async_retry(max_attempts=2, base_delay=0.0)
    async def failing() -> None:
        calls.append(1)
        raise ConnectionError(str(len(calls)))

    with pytest.raises(ConnectionError, match="2"):
        await failing()


async def test_circuit_breaker_opens_and_closes_again() -> None:
    now = [0.0]
    breaker = ResilientCircuitBreaker(name="db", fail_max=2, timeout_duration=60.0, clock=lambda: now[0])

    async def fail() -> None:
        raise ConnectionError

    for _ in range(2):
        with pytest.raises(ConnectionError):
            await breaker.call_async(fail)
    assert breaker.current_state == "open"
    with pytest.raises(CircuitBreakerError):
        breaker.call(lambda: 1)
    now[0] = 61.0
    assert breaker.call(lambda: 1) == 1
    assert breaker.current_state == "closed"


def test_timeout_config_converts_to_httpx() -> None:
    timeouts = TimeoutConfig(connect=1.0, read=2.0, write=3.0, pool=4.0, db=5.0)
    assert timeouts.to_httpx() == httpx.Timeout(connect=1.0, read=2.0, write=3.0, pool=4.0)
    with pytest.raises(ValueError, match="read"):
        TimeoutConfig(read=0)


def test_retry_policy_rejects_zero_attempts() -> None:
    with pytest.raises(ValueError, match="max_attempts"):
        RetryPolicy(max_attempts=0)


@pytest.mark.parametrize(
    "name", ["AURUM_TRACING_OTLP_ENDPOINT", "TRACING_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]
)
def test_otlp_endpoint_setting_keeps_earlier_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://collector:4317")
    assert load_settings(Settings).tracing_otlp_endpoint == "http://collector:4317"


def test_prefixed_setting_name_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    monkeypatch.setenv("AURUM_LOG_LEVEL", "debug")
    assert load_settings(Settings).log_level == "DEBUG"


def test_every_earlier_setting_exists() -> None:
    names = (
        "log_format log_to_file log_file_path tracing_enabled tracing_otlp_endpoint tracing_console_export "
        "retry_max_attempts retry_base_delay retry_max_delay circuit_breaker_enabled circuit_breaker_fail_max "
        "circuit_breaker_timeout timeout_connect timeout_read timeout_write timeout_pool timeout_db"
    )
    assert set(names.split()) <= set(Settings.model_fields)
