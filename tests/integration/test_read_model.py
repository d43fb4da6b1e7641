"""The API as a read model: it shows what scorers publish and record, and computes none of it, in every replica."""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from aurum.alarms.journal import to_event
from aurum.alarms.lifecycle import Transition
from aurum.readings.batch import now_us
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

INTERVAL = 3.0  # seconds, longer than between two scorings of a machine
RULES = "rules: [{name: hot, text: Too hot, priority: high, sensor: {sensor: heat, above: 80}}]"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Ingestion and the API; the tests publish and record what scorers do."""
    folder = tmp_path_factory.mktemp("read-model")
    (folder / "rules.yaml").write_text(RULES)
    running = Platform(folder, extra={"AURUM_ALARM_RULES": str(folder / "rules.yaml"), "AURUM_API_FIRST_LOOK": "0.1"})
    running.start("ingestion")
    running.start("api")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def replicas(plant: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Platform]]:
    """Two replicas of the API over the same ingestion."""
    ports = {name: port for name, port in plant.ports.items() if not name.startswith("api")}
    replica = Platform(tmp_path_factory.mktemp("replica"), ports=ports, extra=plant.extra)
    replica.start("api")
    yield plant, replica
    replica.stop()


@pytest.fixture
def ingestion(plant: Platform) -> Iterator[ingestion_pb2_grpc.IngestionServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{plant.port('ingestion')}") as channel:
        yield ingestion_pb2_grpc.IngestionServiceStub(channel)


def read(platform: Platform, machine: str, heat: float) -> int:
    """Returns the time of the reading in µs."""
    at = time.time()
    reading = {"machine_id": machine, "sensor": "heat", "timestamp": at, "value": heat}
    assert http("POST", f"{platform.api}/api/readings", {"readings": [reading]}).status == 200
    return int(at * 1e6)


def calls(platform: Platform, service: str, side: str, method: str) -> float:
    """The successful calls of a method, as the client or the server counts them."""
    return platform.metric(service, f'rpc_{side}_requests_total{{code="OK",method="/aurum.v1.{method}"}}')


def test_published_prediction_is_shown_by_every_replica(
    replicas: tuple[Platform, Platform], ingestion: ingestion_pb2_grpc.IngestionServiceStub
) -> None:
    at = read(replicas[0], "oven", 50)
    prediction = prediction_pb2.PredictResponse(machine_id="oven", risk_score=0.25, as_of_us=at)
    ingestion.PublishPredictions(ingestion_pb2.PublishPredictionsRequest(predictions=[prediction]))
    for replica in replicas:
        wait_for(
            lambda api=replica.api: http("GET", f"{api}/api/machines/oven").json.get("risk_score") == 0.25, 15, "risk"
        )


def test_unknown_risk_and_rule_are_shown_as_such(
    plant: Platform, ingestion: ingestion_pb2_grpc.IngestionServiceStub
) -> None:
    at = read(plant, "loom", 50), read(plant, "lathe", 50)
    why = "model loom v1 has no proven skill for the risk"
    unknown = prediction_pb2.PredictResponse(
        machine_id="loom", model_version="v1", risk_unknown_reason=why, degraded=True, as_of_us=at[0]
    )
    ruled = prediction_pb2.PredictResponse(
        machine_id="lathe", risk_score=0.95, rule="limits", degraded=True, as_of_us=at[1]
    )
    ingestion.PublishPredictions(ingestion_pb2.PublishPredictionsRequest(predictions=[unknown, ruled]))
    wait_for(lambda: http("GET", f"{plant.api}/api/machines/lathe").json.get("rule") == "limits", 15, "rule")
    wait_for(lambda: http("GET", f"{plant.api}/api/machines/loom").json.get("risk_unknown_reason") == why, 15, "reason")
    loom, lathe = (http("GET", f"{plant.api}/api/machines/{name}").json for name in ("loom", "lathe"))
    assert (loom["risk_score"], loom["source"], loom["rule"]) == (None, "model", None)
    assert (lathe["risk_score"], lathe["source"], lathe["risk_unknown_reason"]) == (0.95, "rule", None)
    answer = http("POST", f"{plant.api}/api/machines/loom/predict").json
    assert (answer["risk_score"], answer["risk_unknown_reason"]) == (None, why)


def test_last_published_prediction_answers_without_prediction(
    plant: Platform, ingestion: ingestion_pb2_grpc.IngestionServiceStub
) -> None:
    """While no prediction service runs, a request gets the last prediction with its age, marked as degraded."""
    at = read(plant, "press", 50)
    prediction = prediction_pb2.PredictResponse(machine_id="press", risk_score=0.75, as_of_us=at)
    ingestion.PublishPredictions(ingestion_pb2.PublishPredictionsRequest(predictions=[prediction]))
    wait_for(lambda: http("GET", f"{plant.api}/api/machines/press").json.get("risk_score") == 0.75, 15, "risk")
    answer = http("POST", f"{plant.api}/api/machines/press/predict").json
    assert (answer["risk_score"], answer["degraded"]) == (0.75, True)
    assert answer["age_seconds"] is not None
    assert "the last prediction" in answer["degraded_reason"]


def test_recorded_transition_is_an_alarm_of_every_replica(
    replicas: tuple[Platform, Platform], ingestion: ingestion_pb2_grpc.IngestionServiceStub
) -> None:
    at = read(replicas[0], "kiln", 99)

    def alarm(replica: Platform) -> dict[str, object]:
        items = http("GET", f"{replica.api}/api/alarms?machine_id=kiln").json.get("items", [])
        return dict(items[0]) if items else {}

    raised = Transition("raised", "kiln", "hot", at, value=99)
    for _ in range(2):  # by two scorers that overlap
        ingestion.RecordEvents(ingestion_pb2.RecordEventsRequest(events=[to_event(raised)]))
    for replica in replicas:
        wait_for(lambda each=replica: alarm(each).get("state") == "unacknowledged", 15, "the alarm")
        assert (alarm(replica)["text"], alarm(replica)["priority"], alarm(replica)["count"]) == ("Too hot", "high", 1)
    assert http("POST", f"{replicas[1].api}/api/alarms/kiln~hot/ack", {"by": "Ada"}).status == 200
    wait_for(lambda: alarm(replicas[0]).get("acknowledged_by") == "Ada", 15, "the acknowledgement of the other replica")


def test_second_api_replica_causes_no_model_calls(tmp_path: Path, models: Path) -> None:
    """Two replicas cause as many model calls and transitions as one: none of their own."""
    running = Platform(tmp_path, extra={"AURUM_MODEL_DIR": str(models)})
    for service in ("ingestion", "prediction", "api"):
        running.start(service)
    ports = {name: port for name, port in running.ports.items() if not name.startswith("api")}
    second = Platform(tmp_path / "second", ports=ports, extra=running.extra)
    pumps = [f"pump-{number}" for number in range(10)]

    def predicted(replica: Platform) -> bool:
        machines = http("GET", f"{replica.api}/api/machines").json["items"]
        return len([each for each in machines if each["risk_score"] is not None]) == len(pumps)

    def model_calls() -> float:
        return running.metric("prediction", "ml_prediction_duration_seconds_count")

    try:
        for pump in pumps:
            machine = {"machine_id": pump, "machine_type": "pump"}
            assert http("POST", f"{running.api}/api/machines", machine).status == 201
        assert http("POST", f"{running.api}/api/readings", {"readings": worn(pumps)}).status == 200
        wait_for(lambda: predicted(running), 30, "the predictions")
        called = [-1.0, 0.0]

        def settled() -> bool:
            time.sleep(INTERVAL)
            called.append(model_calls())
            return called[-1] == called[-2]

        wait_for(settled, 60, "the scorer has no new readings")
        second.start("api")
        wait_for(lambda: predicted(second), 30, "the predictions in the second replica")
        time.sleep(INTERVAL)
        assert model_calls() == called[-1] > 0
        assert calls(running, "api", "client", "IngestionService/Write") == 1
        assert calls(running, "prediction", "server", "PredictionService/Predict") == 0
        assert calls(running, "prediction", "server", "PredictionService/PredictBatch") == 0
        for replica in (running, second):
            assert calls(replica, "api", "client", "IngestionService/RecordEvents") == 0
    finally:
        second.stop()
        running.stop()


def worn(pumps: Sequence[str]) -> list[dict[str, object]]:
    """Readings of pumps that are close to their failure."""
    run = run_to_failure(PUMP, 1, seed=42)[0]
    end = len(run.timestamps) - 8
    offset = now_us() - int(run.timestamps[end - 1])
    return [
        {"machine_id": pump, "sensor": sensor, "timestamp": (int(at) + offset) / 1e6, "value": value}
        for pump in pumps
        for sensor, column in run.columns.items()
        for at, value in zip(run.timestamps[end - 100 : end], column[end - 100 : end].tolist(), strict=True)
        if not math.isnan(value)
    ]
