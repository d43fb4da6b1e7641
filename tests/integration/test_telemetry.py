"""One request is one trace, every metric is there, every log line is JSON: seen on real services."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from tests.support.http import http
from tests.support.otlp_receiver import Receiver, Span
from tests.support.platform import Platform
from tests.support.waiting import wait_for


@dataclass
class Observed:
    platform: Platform
    receiver: Receiver


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Observed]:
    """All six processes, tracing to a receiver in this one."""
    receiver = Receiver()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    folder = tmp_path_factory.mktemp("observed")
    inputs = {"inputs": [{"name": "drops", "protocol": "files", "folder": str(folder / "drops"), "settled": 0}]}
    (folder / "inputs.yaml").write_text(json.dumps(inputs))
    platform = Platform(
        folder,
        extra={
            "AURUM_MODEL_DIR": str(models),
            "AURUM_TRACING_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "AURUM_PREDICTION_WINDOW_LAG": "0",  # each prediction calls ingestion
            "AURUM_EDGE_INPUTS": str(folder / "inputs.yaml"),
        },
    )
    for service in ("ingestion", "prediction", "api", "edge"):
        platform.start(service)
    platform.start("iot-sim", "--machines", "3", "--machine-type", "pump")
    platform.start("edge-sim", "--machines", "6", "--up", "2", "--down", "1")
    yield Observed(platform, receiver)
    platform.stop()
    server.stop(0)


def predict(platform: Platform) -> Any:
    answer = http("POST", f"{platform.api}/api/predict", {"machine_id": "pump-001"}, {"X-Request-ID": "the-request"})
    return answer.json if answer.status == 200 else None


def test_prediction_is_one_trace_through_three_services(observed: Observed) -> None:
    wait_for(lambda: predict(observed.platform), 30, "a prediction of a simulated machine")
    prediction = predict(observed.platform)
    spans: list[Span] = wait_for(
        lambda: (
            {span.service for span in observed.receiver.trace(prediction["trace_id"])}
            >= {"api", "prediction", "ingestion"}
            and observed.receiver.trace(prediction["trace_id"])
        ),
        15,
        "spans of three services",
    )
    by_id = {span.span_id: span for span in spans}
    names = {(span.service, span.name): span for span in spans}
    root = names["api", "POST /api/predict"]
    assert root.parent_id == ""
    assert root.attributes["http.request.method"].string_value == "POST"
    assert root.attributes["http.route"].string_value == "/api/predict"
    predicting = names["prediction", "aurum.v1.PredictionService/Predict"]
    asking = by_id[predicting.parent_id]
    assert asking.service == "api"
    assert asking.parent_id == root.span_id
    querying = names["ingestion", "aurum.v1.IngestionService/Query"]
    assert by_id[querying.parent_id].service == "prediction"
    assert by_id[by_id[querying.parent_id].parent_id] is predicting


def test_edge_input_is_traced_through_to_ingestion(observed: Observed) -> None:
    table = f"machine_id,timestamp,sensor,value\npress-1,{time.time():.3f},load,7\n"
    (observed.platform.folder / "drops" / "one.csv").write_text(table)

    def traced() -> list[Span]:
        spooled = [span for span in observed.receiver.spans if span.name == "spool input"]
        return [span for each in spooled for span in observed.receiver.trace(each.trace_id) if span.service != "edge"]

    stored = wait_for(traced, 30, "spans of ingestion in the trace of an input")
    assert {(span.service, span.name) for span in stored} >= {("ingestion", "aurum.v1.IngestionService/Ingest batch")}
    (spooled,) = [span for span in observed.receiver.spans if span.name == "spool input"]
    assert spooled.attributes["aurum.input"].string_value == "drops"
    assert spooled.attributes["aurum.readings"].int_value == 1


def test_service_logs_contain_trace_and_request_id(observed: Observed) -> None:
    wait_for(lambda: predict(observed.platform), 30, "a prediction")
    prediction = predict(observed.platform)
    for service in ("api", "prediction", "ingestion"):
        process = observed.platform.processes[service]

        def logged(process: Any = process) -> list[Any]:
            lines = [json.loads(line) for line in process.lines()]
            return [line for line in lines if line.get("trace_id") == prediction["trace_id"]]

        lines = wait_for(logged, 10, f"a line of {service} with the trace id")
        assert lines[0]["request_id"] == "the-request"
        assert lines[0]["machine_id" if service != "api" else "endpoint"]


def test_log_lines_are_json_and_requests_have_trace_id(observed: Observed) -> None:
    wait_for(lambda: predict(observed.platform), 30, "a prediction")
    assert http("POST", f"{observed.platform.api}/api/predict", {"machine_id": "nobody"}).status == 404
    assert http("GET", f"{observed.platform.api}/api/machines/nobody/metrics").status == 404
    for service, process in observed.platform.processes.items():
        lines = [json.loads(line) for line in process.lines()]
        assert lines, service
        for line in lines:
            assert {"timestamp", "severity", "logger", "message", "service", "app_version"} <= line.keys()
            assert not line["logger"].startswith("grpc"), line  # it logs only what was not handled
            if line["logger"] == "aurum.access" and line.get("endpoint") != "/api/events":
                assert re.fullmatch("[0-9a-f]{32}", line["trace_id"]), line


METRICS = """
    http_requests_total http_request_duration_seconds http_requests_in_progress
    db_queries_total db_query_duration_seconds db_connections_active
    ml_predictions_total ml_prediction_duration_seconds ml_prediction_risk_score
    data_ingestion_total data_ingestion_errors_total data_ingestion_duration_seconds
    circuit_breaker_state circuit_breaker_failures_total retry_attempts_total errors_total system_info
    rpc_server_requests_total rpc_server_duration_seconds rpc_client_requests_total rpc_client_duration_seconds
    retry_budget_tokens retry_budget_exhausted_total concurrency_limit policy_generation
    edge_spool_bytes edge_spool_batches edge_spool_oldest_age_seconds edge_spool_seconds_until_full prediction_drift
"""


def test_every_metric_is_exported_by_some_service(observed: Observed) -> None:
    platform = observed.platform
    wait_for(lambda: predict(platform), 30, "a prediction")
    http("POST", f"{platform.api}/api/readings", {"readings": [{"machine_id": "x"}]})  # an error to be counted
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        write = channel.unary_unary("/aurum.v1.IngestionService/Write")
        with pytest.raises(grpc.RpcError):
            write(b"", timeout=5)

    found: set[str] = set()
    for service in platform.processes:
        for line in platform.admin(service, "/metrics").body.decode().splitlines():
            if not line.startswith("#"):
                name = re.split("[{ ]", line, maxsplit=1)[0]
                found.add(re.sub("_(bucket|count|sum)$", "", name))
    assert not set(METRICS.split()) - found
    exemplar = platform.admin("api", "/metrics").body.decode()
    assert re.search(r'http_request_duration_seconds_bucket\{.*# \{.*trace_id="[0-9a-f]{32}"', exemplar)
    assert "machine_id=" not in exemplar


def test_metric_labels_do_not_grow_with_paths_and_machines(observed: Observed) -> None:
    platform = observed.platform
    series = lambda: len(platform.admin("api", "/metrics").body.splitlines())  # noqa: E731
    machines = 50
    http("GET", f"{platform.api}/nothing/here")
    http("GET", f"{platform.api}/api/machines/nobody-0")
    before = series()
    for index in range(machines):
        http("GET", f"{platform.api}/nothing/{index}")
        http("GET", f"{platform.api}/api/machines/nobody-{index}")
    assert series() < before + machines  # the background may have made its first call of a kind meanwhile
    assert b"nobody-" not in platform.admin("api", "/metrics").body


def test_missing_collector_fails_no_request(platform: Platform, models: Path) -> None:
    platform.extra = {"AURUM_MODEL_DIR": str(models), "AURUM_TRACING_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    process = platform.start("ingestion")
    platform.start("api")
    body = {"readings": [{"machine_id": "m", "sensor": "s", "timestamp": time.time(), "value": 1}]}
    assert all(http("POST", f"{platform.api}/api/readings", body).status == 200 for _ in range(20))
    wait_for(
        lambda: re.search(rb"spans_dropped_total [1-9]", platform.admin("api", "/metrics").body), 30, "dropped spans"
    )
    time.sleep(5)  # some more attempts
    lines = [json.loads(line) for line in platform.processes["api"].lines()]
    (said,) = [line["message"] for line in lines if "takes no spans" in line["message"]]
    assert said.startswith("http://127.0.0.1:1 takes no spans")
    assert not [line for line in lines if line["logger"].startswith("opentelemetry")], "said once, not at each attempt"
    started = time.monotonic()
    assert process.kill(15) == 0
    assert time.monotonic() - started < 10
