"""The running platform while parts of it fail: what it answers, and what can be seen of it."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from aurum_sim.machine_types import MACHINE_TYPES
from tests.support import processes
from tests.support.http import Answer, http
from tests.support.platform import Platform
from tests.support.waiting import wait_for


def aurum(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.run(*arguments, environment=platform.environment("api"))


def add_pump(platform: Platform, machine_id: str, vibration: float = 2.5, readings: int = 40) -> None:
    assert (
        http("POST", f"{platform.api}/api/machines", {"machine_id": machine_id, "machine_type": "pump"}).status == 201
    )
    rows = [
        {"machine_id": machine_id, "sensor": sensor, "timestamp": time.time() - index, "value": value}
        for index in range(readings)
        for sensor, value in (("vibration_mm_s", vibration), ("flow_m3_h", 120.0))
    ]
    assert http("POST", f"{platform.api}/api/readings", {"readings": rows}).status == 200


def predict(platform: Platform, machine_id: str, **headers: str) -> Answer:
    return http("POST", f"{platform.api}/api/predict", {"machine_id": machine_id}, headers=headers)


def metric(platform: Platform, service: str, series: str, /, **labels: str) -> float:
    shown = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    series = f"{series}{{{shown}}}" if shown else series
    for line in platform.admin(service, "/metrics").body.decode().splitlines():
        if line.startswith(f"{series} "):
            return float(line.split()[1])
    return 0.0


def lines(platform: Platform, service: str, text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in platform.processes[service].lines()]
    return [line for line in found if text in line["message"]]


def own_state(platform: Platform) -> dict[str, Any]:
    services = http("GET", f"{platform.api}/api/resilience").json["services"]
    return next(each for each in services if each["service"] == "api")


def target(platform: Platform, name: str) -> dict[str, Any]:
    return next(each for each in own_state(platform)["targets"] if each["name"] == name)


def test_api_falls_back_to_last_good_prediction_then_rule(platform: Platform, models: Path) -> None:
    """Without prediction the API answers with the last good one, then by rule, then with 503."""
    policy = platform.folder / "policies.yaml"
    policy.parent.mkdir(parents=True, exist_ok=True)
    text = (
        "generation: {0}\n"
        "policies: [{{target: api/prediction/*, circuitBreaker: {{failMax: 3, open: 1s, openGrowth: 1}}, "
        "timeout: {{connect: 100ms}}, fallback: {{{1}}}}}]"
    )
    policy.write_text(text.format(1, "lastGood: true"))
    platform.extra = {"AURUM_MODEL_DIR": str(models), "AURUM_POLICY_FILE": str(policy)}
    for service in ("ingestion", "prediction", "api"):
        platform.start(service)
    add_pump(platform, "worn", vibration=7.1)
    wait_for(lambda: predict(platform, "worn").status == 200, 20, "a prediction")
    platform.processes["prediction"].kill(signal.SIGKILL)

    first = predict(platform, "worn")
    assert first.status == 200
    assert first.json["degraded"]
    assert "the last prediction" in first.json["degraded_reason"]
    assert first.json["age_seconds"] >= 0
    wait_for(lambda: predict(platform, "worn") and target(platform, "api/prediction")["breaker"] == "open", 20, "open")
    state = lambda: metric(platform, "api", "circuit_breaker_state", name="api/prediction")  # noqa: E731
    wait_for(lambda: predict(platform, "worn") and state() == 1, 20, "the metric says so")
    assert metric(platform, "api", "fallbacks_total", name="api/prediction", source="last_good") >= 1
    logged = lines(platform, "api", "answering with a degraded prediction")[0]
    assert logged["degraded_source"] == "last_good"
    assert logged["machine_id"] == "worn"
    assert logged["trace_id"]

    policy.write_text(text.format(2, "lastGood: false"))
    wait_for(lambda: own_state(platform)["policy"]["generation"] == 2, 10, "the new document is in force")
    assert target(platform, "api/prediction")["breaker"] in ("open", "half-open")  # its state was kept
    ruled = predict(platform, "worn").json
    assert "the fallback rule by limits is used" in ruled["degraded_reason"]
    assert ruled["risk_score"] == pytest.approx(0.5)  # vibration is at the alarm limit
    assert ruled["model_version"] is None
    assert ruled["rul"] is None
    assert metric(platform, "api", "fallbacks_total", name="api/prediction", source="rule") >= 1
    assert predict(platform, "nobody").status == 404

    policy.write_text(text.format(3, "lastGood: false, rule: false"))
    wait_for(lambda: own_state(platform)["policy"]["generation"] == 3, 10, "the new document is in force")
    refused = predict(platform, "worn")
    assert refused.status == 503
    assert refused.headers["retry-after"]

    platform.restart("prediction")
    wait_for(lambda: predict(platform, "worn").status == 200, 20, "predictions are back")
    wait_for(lambda: target(platform, "api/prediction")["breaker"] == "closed", 20, "the breaker closes")
    assert state() == 0


def test_killed_prediction_recovers_under_supervisor(platform: Platform, models: Path) -> None:
    """`aurum up` restarts a killed service while no request fails, and stops every process on SIGINT."""
    services = ("ingestion", "prediction", "api")
    for name in MACHINE_TYPES:  # a model for each, so that nothing has to be trained
        shutil.copytree(models / "pump", platform.folder / "models" / name)
        for card in (platform.folder / "models" / name).glob("*/card.json"):
            card.write_text(json.dumps({**json.loads(card.read_text()), "machine_type": name}))
            card.with_name("card.json.sha256").unlink()
    (platform.folder / "policies.yaml").write_text(
        "uid: beside\npolicies: [{target: api/prediction/*, timeout: {connect: 100ms}, "
        "circuitBreaker: {failMax: 2, open: 1s, openGrowth: 1}}]"
    )
    (platform.folder / "Procfile").write_text(
        "".join(
            f"{name}: env AURUM_ADMIN_PORT={platform.port(f'{name} admin')} {sys.executable} -m aurum.cli {name}\n"
            for name in services
        )
    )
    environment = platform.environment("api")
    environment.pop("AURUM_ADMIN_PORT")
    shown = platform.folder / "up.log"
    with shown.open("wb") as output:
        command = [sys.executable, "-m", "aurum.cli", "up", "--procfile", str(platform.folder / "Procfile")]
        up = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "AurumAI runs at" in shown.read_text() or up.poll() is not None, 60, "the platform runs")
        assert own_state(platform)["policy"]["uid"] == "beside"
        add_pump(platform, "pump-1")
        wait_for(lambda: predict(platform, "pump-1").status == 200, 20, "a prediction")
        killed = subprocess.run(
            ["pkill", "-9", "-P", str(up.pid), "-f", "aurum.cli prediction"], capture_output=True, check=False
        )
        assert killed.returncode == 0
        opened: list[str] = []

        def answered_through_it() -> bool:
            answer = predict(platform, "pump-1")
            assert answer.status == 200  # degraded perhaps, failed never
            opened.append(target(platform, "api/prediction")["breaker"])
            return "open" in opened and "is used" not in answer.json["degraded_reason"]  # its own, for lack of sensors

        wait_for(answered_through_it, 40, "the breaker has opened, and predictions are fresh again")
        wait_for(lambda: target(platform, "api/prediction")["breaker"] == "closed", 20, "the breaker closes")
        assert "prediction was killed by SIGKILL; restarting it" in shown.read_text()
        started = psutil.Process(up.pid).children(recursive=True)
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(20) == 0
    assert "has stopped" in shown.read_text()
    assert not [each for each in started if each.is_running()]


def test_request_timeout_bounds_calls_to_slow_service(platform: Platform, models: Path) -> None:
    """X-Request-Timeout bounds calls to a slow service, and abandoned work ends in each service."""
    platform.extra = {"AURUM_MODEL_DIR": str(models), "AURUM_FAULTS_ENABLED": "true"}
    for service in ("ingestion", "prediction", "api"):
        platform.start(service)
    add_pump(platform, "pump-1")
    wait_for(lambda: predict(platform, "pump-1").status == 200, 20, "a prediction")

    assert aurum(platform, "fault", "add", "ingestion", "delay", "--method", "Query", "--delay", "30s").returncode == 0
    answer = predict(platform, "pump-1", **{"X-Request-Timeout": "1"})
    assert answer.status == 200
    assert "the last prediction" in answer.json["degraded_reason"]
    series = http("GET", f"{platform.api}/api/machines/pump-1/metrics", headers={"X-Request-Timeout": "400ms"})
    assert series.status == 504

    def ended(service: str, method: str) -> float:
        return sum(
            metric(platform, service, "rpc_server_requests_total", method=f"/aurum.v1.{method}", code=code)
            for code in ("CANCELLED", "DEADLINE_EXCEEDED")
        )

    wait_for(lambda: ended("ingestion", "IngestionService/Query") >= 2, 10, "ingestion ends what nobody waits for")
    wait_for(lambda: ended("prediction", "PredictionService/Predict") >= 1, 10, "prediction too")
    wrong = predict(platform, "pump-1", **{"X-Request-Timeout": "soon"})
    assert wrong.status == 422
    assert wrong.json["errors"][0]["field"] == "X-Request-Timeout"
    assert predict(platform, "pump-1", **{"Aurum-Criticality": "vital"}).status == 422

    gone = {"method": "GET", "endpoint": "/api/machines/{machine_id}/metrics", "status_code": "499"}
    with socket.create_connection(("127.0.0.1", platform.port("api"))) as client:
        client.sendall(b"GET /api/machines/pump-1/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.3)
    wait_for(
        lambda: metric(platform, "api", "http_requests_total", **gone) == 1,
        10,
        "the request of a client that went is ended",
    )

    assert "1 faults ended" in aurum(platform, "fault", "clear", "ingestion").stdout
    assert http("GET", f"{platform.api}/api/machines/pump-1/metrics").status == 200
    shown = aurum(platform, "fault", "list", "prediction", "ingestion")
    assert "prediction: no faults" in shown.stdout
    wrong = aurum(platform, "fault", "add", "prediction", "delay", "--delay", "5")
    assert wrong.returncode == 1
    assert "delay: '5' is not a duration" in wrong.stderr
    assert "there is no service 'nothing'" in aurum(platform, "fault", "list", "nothing").stderr


def test_fault_injection_is_refused_unless_enabled(platform: Platform) -> None:
    """Fault injection is refused unless AURUM_FAULTS_ENABLED is set."""
    platform.start("ingestion")
    refused = aurum(platform, "fault", "add", "ingestion", "error")
    assert refused.returncode == 1
    assert "AURUM_FAULTS_ENABLED" in refused.stderr


def test_abort_fault_ends_the_process(platform: Platform) -> None:
    """An abort fault must name its method, and ends the process with exit code 70."""
    platform.extra = {"AURUM_FAULTS_ENABLED": "true"}
    for service in ("ingestion", "api"):
        platform.start(service)
    everything = aurum(platform, "fault", "add", "ingestion", "abort")
    assert "must name its method" in everything.stderr
    assert aurum(platform, "fault", "add", "ingestion", "abort", "--method", "ListMachines").returncode == 0
    http("GET", f"{platform.api}/api/machines")
    assert platform.processes["ingestion"].popen.wait(10) == 70


def test_failing_store_yields_503_until_it_recovers(platform: Platform) -> None:
    """Writes to a failing store are answered with 503, and succeed again once it recovers."""
    platform.extra = {"AURUM_FAULTS_ENABLED": "true", "AURUM_CIRCUIT_BREAKER_TIMEOUT": "1"}
    for service in ("ingestion", "api"):
        platform.start(service)
    rows = {"readings": [{"machine_id": "m", "sensor": "s", "timestamp": time.time(), "value": 1.0}]}
    assert http("POST", f"{platform.api}/api/readings", rows).status == 200
    fault = ("fault", "add", "ingestion", "error", "--method", "store/*", "--code", "UNAVAILABLE")
    assert aurum(platform, *fault).returncode == 0
    assert http("POST", f"{platform.api}/api/readings", rows).status == 503
    assert aurum(platform, "fault", "clear").returncode == 0
    wait_for(lambda: http("POST", f"{platform.api}/api/readings", rows).status == 200, 20, "it takes readings again")
    names = [each["name"] for each in json.loads(platform.admin("ingestion", "/policy").body)["targets"]]
    assert "ingestion/store" in names


def test_overloaded_api_rejects_queries_and_serves_alarms(platform: Platform) -> None:
    """An overloaded API rejects queries with 429 and Retry-After, and still serves alarms."""
    policy = platform.folder / "policies.yaml"
    policy.parent.mkdir(parents=True, exist_ok=True)
    shares = "shares: {alarm: 1, telemetry: 0.5, query: 0.5, batch: 0.5}"
    policy.write_text(f"servers: [{{server: api, admission: {{maxConcurrent: 4, maxQueued: 0, {shares}}}}}]")
    platform.extra = {"AURUM_FAULTS_ENABLED": "true", "AURUM_POLICY_FILE": str(policy)}
    for service in ("ingestion", "api"):
        platform.start(service)
    wait_for(lambda: http("GET", f"{platform.api}/api/machines").status == 200, 20, "an answer")
    slow = ("fault", "add", "api", "delay", "--method", "/api/machines", "--delay", "2s")
    assert aurum(platform, *slow).returncode == 0

    def ask(criticality: str) -> Answer:
        return http("GET", f"{platform.api}/api/machines", headers={"Aurum-Criticality": criticality})

    with ThreadPoolExecutor(20) as pool:
        queries = [pool.submit(ask, "query") for _ in range(8)]
        wait_for(lambda: json.loads(platform.admin("api", "/policy").body)["limits"][0]["in_flight"] == 2, 10, "full")
        alarms = [pool.submit(ask, "alarm") for _ in range(2)]
        assert http("GET", f"{platform.api}/health").status == 200
        answers = [each.result() for each in queries]
        assert [each.result().status for each in alarms] == [200, 200]
    refused = [each for each in answers if each.status == 429]
    assert len(refused) == 6
    counted = {"method": "GET", "endpoint": "/api/machines", "status_code": "429"}
    assert metric(platform, "api", "http_requests_total", **counted) == 6, "as requests for what they were for"
    assert refused[0].headers["retry-after"]
    assert refused[0].json["type"].endswith("concurrency-limit")
    series = "concurrency_limit_rejections_total"
    assert metric(platform, "api", series, name="api/calls", criticality="query") == 6


def test_recorded_calls_are_replayed_against_a_proposal(platform: Platform) -> None:
    """`aurum policy simulate` replays recorded calls against a proposed policy."""
    platform.extra["AURUM_OUTCOMES_ENABLED"] = "true"
    for service in ("ingestion", "api"):
        platform.start(service)
    for _ in range(20):
        assert http("GET", f"{platform.api}/api/machines").status == 200
    shown = aurum(platform, "policy", "show", "api", "ingestion")
    assert shown.returncode == 0, shown.stderr
    assert "api/ingestion" in shown.stdout
    for service in ("api", "ingestion"):
        platform.processes[service].kill(signal.SIGTERM)
    recorded = platform.folder / "outcomes" / "api.jsonl"
    assert recorded.read_text().count('"target":"api/ingestion/ListMachines"') == 20
    policy = platform.folder / "proposal.yaml"
    policy.write_text("policies: [{target: api/ingestion/*, circuitBreaker: {force: open}}]")
    result = aurum(platform, "policy", "simulate", str(policy), "--trace", str(recorded), "--json")
    assert result.returncode == 0, result.stderr
    replayed = json.loads(result.stdout)["targets"]["api/ingestion"]
    assert replayed["breaker_rejections"] == replayed["calls"] >= 20
    assert replayed["success_share"] == 0
    assert replayed["recorded_success_share"] > 0.5


def test_invalid_policy_is_reported_and_prevents_startup(platform: Platform) -> None:
    """`aurum policy check` reports an invalid policy, and a service does not start with one."""
    wrong = platform.folder / "wrong.yaml"
    wrong.parent.mkdir(parents=True, exist_ok=True)
    wrong.write_text("policies: [{target: api/prediction/*, timeout: {attempt: 5s, deadline: 1s}}]")
    checked = aurum(platform, "policy", "check", str(wrong))
    assert checked.returncode == 2
    assert "policies[0].timeout.attempt: 5s is above deadline (1s)" in checked.stderr
    wrong.write_text("policies: [{target: api/predicton/*}]")
    assert "matches no call" in aurum(platform, "policy", "check", str(wrong)).stdout
    wrong.write_text("policies: 3")
    platform.extra["AURUM_POLICY_FILE"] = str(wrong)
    process = platform.start("ingestion", ready=False)
    assert process.popen.wait(15) == 2
    assert "wrong.yaml: policies: Input should be a valid tuple" in process.lines()[-1]
