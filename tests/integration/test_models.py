"""Models as they serve: many at once, another champion under load, a shadow, predictions made again, drift."""

import json
import math
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import numpy as np
import pytest

from aurum.prediction.model.model import load_model
from aurum.prediction.model.model_files import read_serving
from aurum.readings.batch import now_us
from aurum.readings.history import Run
from aurum.v1 import prediction_pb2, prediction_pb2_grpc
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure
from tests.support.http import http
from tests.support.models import pump_version, unskilled_version
from tests.support.platform import Platform
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Two versions of a pump's model, the second serves; predictions are looked at again after a second."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (1, 2):
        pump_version(folder / "models", f"seed-{seed}", seed)
    running = Platform(
        folder,
        extra={
            "AURUM_PREDICTION_RESCORE_AFTER": "1",
            "AURUM_PREDICTION_RESCORE_RATE": "200",
            "AURUM_PREDICTION_HISTORY_INTERVAL": "0",
            "AURUM_PREDICTION_OUTCOME_INTERVAL": "1",
            "AURUM_PREDICTION_WINDOW_LAG": "0",  # readings are in the next prediction, and requests in the drift
            "AURUM_LOG_LEVEL": "INFO",
        },
    )
    for service in ("ingestion", "prediction", "api"):
        running.start(service)
    yield running
    running.stop()


@pytest.fixture
def stub(plant: Platform) -> Iterator[prediction_pb2_grpc.PredictionServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{plant.port('prediction')}") as channel:
        yield prediction_pb2_grpc.PredictionServiceStub(channel)


def send(platform: Platform, run: Run, rows: slice, name: str) -> None:
    shift = now_us() - int(run.timestamps[-1])
    readings = [
        {"machine_id": name, "sensor": sensor, "timestamp": (int(at) + shift) / 1e6, "value": value}
        for sensor, column in run.columns.items()
        for at, value in zip(run.timestamps[rows], column[rows].tolist(), strict=True)
        if not math.isnan(value)
    ]
    assert http("POST", f"{platform.api}/api/readings", {"readings": readings}).status == 200


def add(platform: Platform, name: str, run: Run, rows: slice) -> None:
    machine = {"machine_id": name, "machine_type": "pump", "site": "lab"}
    assert http("POST", f"{platform.api}/api/machines", machine).status == 201
    send(platform, run, rows, name)


def test_batch_prediction_from_columns_matches_the_model(
    plant: Platform, stub: prediction_pb2_grpc.PredictionServiceStub
) -> None:
    root = plant.folder / "models"
    serving = read_serving(root, "pump")
    assert serving is not None
    model = load_model(root / "pump" / serving.version)
    rng = np.random.default_rng(0)
    edges = dict(zip(model.card.drift.features, model.card.drift.ranges, strict=True))
    rows = np.column_stack([rng.uniform(*edges.get(name, (0.0, 1.0)), 500) for name in model.spec.names])
    rows[3, 4] = np.nan
    shuffled = rng.permutation(len(model.spec.names))

    def asked(names: list[str], values: bytes) -> prediction_pb2.PredictBatchRequest:
        return prediction_pb2.PredictBatchRequest(
            rows=prediction_pb2.FeatureRows(machine_type="pump", features=names, values=values)
        )

    names = [model.spec.names[index] for index in shuffled]
    (answer,) = stub.PredictBatch(iter([asked(names, rows[:, shuffled].astype("<f8").tobytes())]), timeout=10)
    told = model.predict(rows)
    assert answer.rows.model_version == model.card.version
    assert np.allclose(answer.rows.risk_score, told.risk)
    assert np.allclose(answer.rows.rul, told.rul)
    assert np.allclose(answer.rows.lower, told.quantiles[:, 0])
    assert np.allclose(answer.rows.anomaly_score, told.anomaly)
    for wrong, words in (
        (asked([*names[:-1], "humour"], rows.tobytes()), "'humour' is not a feature of model pump"),
        (asked(names[:-1], rows[:, 1:].tobytes()), f"lacks '{names[-1]}'"),
        (asked(names, rows.tobytes()[:-1]), "which are not rows of"),
        (asked(names, np.full((1, len(names)), np.inf).tobytes()), "is infinite in row 1"),
        (asked([names[0], *names[:-1]], rows.tobytes()), "is repeated"),
        (asked(names, np.zeros((5000, len(names))).tobytes()), "4096 are allowed"),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            list(stub.PredictBatch(iter([wrong]), timeout=10))
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert words in raised.value.details()


def test_model_rollback_under_load_fails_no_request(
    plant: Platform, stub: prediction_pb2_grpc.PredictionServiceStub
) -> None:
    add(plant, "pump-1", run_to_failure(PUMP, 1, seed=5)[0], slice(0, 250))
    versions: list[str] = []
    failed: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answer = http("POST", f"{plant.api}/api/predict", {"machine_id": "pump-1"})
            if answer.status == 200 and not answer.json["degraded"]:
                versions.append(answer.json["model_version"])
            else:
                failed.append(answer.body)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    models = {model.version: model for model in stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=5).models}
    champion = next(version for version, model in models.items() if model.active)
    other = next(version for version, model in models.items() if model.previous)
    for _ in range(6):
        time.sleep(0.2)
        stub.RollbackModel(prediction_pb2.RollbackModelRequest(machine_type="pump"), timeout=5)
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert set(versions) == {champion, other}


def test_shadow_model_is_compared_without_effect(
    plant: Platform, stub: prediction_pb2_grpc.PredictionServiceStub
) -> None:
    add(plant, "pump-2", run_to_failure(PUMP, 1, seed=5)[0], slice(0, 250))
    before = http("POST", f"{plant.api}/api/predict", {"machine_id": "pump-2"}).json
    listed = {model["version"]: model for model in http("GET", f"{plant.api}/api/models").json["items"]}
    other = next(version for version, model in listed.items() if model["previous"])
    shadow = prediction_pb2.ActivateModelRequest(machine_type="pump", version=other, shadow=True)
    assert stub.ActivateModel(shadow, timeout=5).model.shadow
    after = http("POST", f"{plant.api}/api/predict", {"machine_id": "pump-2"}).json
    assert (after["model_version"], after["risk_score"]) == (before["model_version"], before["risk_score"])
    assert after["inputs_sha256"] == before["inputs_sha256"]
    assert plant.metric("prediction", "prediction_shadow_risk_difference_count") >= 1
    assert next(m for m in http("GET", f"{plant.api}/api/models").json["items"] if m["shadow"])["version"] == other


def test_drift_is_reported_by_feature(plant: Platform) -> None:
    run = run_to_failure(PUMP, 1, seed=5)[0]
    strange = {
        name: column * (1.0 if name in ("operating_hours", "fault") else 6.0) for name, column in run.columns.items()
    }
    add(plant, "odd", Run("odd", True, run.timestamps, strange), slice(0, 250))

    def drifting() -> bool:
        """Other machines are scored beside it, as often as there is time for."""
        for _ in range(60):
            assert http("POST", f"{plant.api}/api/predict", {"machine_id": "odd"}).status == 200
        (champion,) = [model for model in http("GET", f"{plant.api}/api/models").json["items"] if model["champion"]]
        assert len(champion["drift"]) == 8
        return bool(max(each["out_of_range"] for each in champion["drift"]) > 0.3)

    wait_for(drifting, 30, "three tenths of what was predicted lately is out of range")
    assert plant.metric("prediction", "prediction_out_of_range_ratio") > 0.3
    assert plant.metric("prediction", "prediction_batch_size_count") >= 60


def test_late_readings_trigger_rescoring(plant: Platform) -> None:
    run = run_to_failure(PUMP, 1, seed=5)[0]
    hot = np.array(run.columns["vibration_mm_s"])
    hot[180:240] += 8.0
    run = Run("late", True, run.timestamps, {**run.columns, "vibration_mm_s": hot})
    add(plant, "late", run, slice(0, 180))
    send(plant, run, slice(240, 250), "late")
    first = http("POST", f"{plant.api}/api/predict", {"machine_id": "late"}).json
    send(plant, run, slice(180, 240), "late")  # what the gateway had held back

    def both() -> list[dict[str, object]] | None:
        items = http("GET", f"{plant.api}/api/machines/late/predictions?limit=1000").json["items"]
        of_then = [item for item in items if item["as_of"] == first["as_of"]]
        return of_then if {item["rescored"] for item in of_then} == {False, True} else None

    found = wait_for(both, 20, "the prediction of that moment was made again")
    again = next(item for item in found if item["rescored"])
    # The API evaluates alarms meanwhile, so predictions of this moment from the late readings may be there as well
    original = next(item for item in found if not item["rescored"] and item["inputs_sha256"] == first["inputs_sha256"])
    assert original["risk_score"] == first["risk_score"]
    assert again["inputs_sha256"] != original["inputs_sha256"]
    assert again["risk_score"] != original["risk_score"]
    assert plant.metric("prediction", 'prediction_rescored_total{result="changed"}') >= 1
    assert datetime.fromisoformat(str(again["as_of"])) <= datetime.now(UTC)


def test_late_readings_do_not_replace_prediction_history(plant: Platform) -> None:
    run = run_to_failure(PUMP, 1, seed=6)[0]
    add(plant, "kept", run, slice(0, 180))
    send(plant, run, slice(240, 250), "kept")
    before = http("POST", f"{plant.api}/api/predict", {"machine_id": "kept"}).json
    send(plant, run, slice(180, 240), "kept")
    after = http("POST", f"{plant.api}/api/predict", {"machine_id": "kept"}).json
    assert before["as_of"] == after["as_of"]
    assert before["inputs_sha256"] != after["inputs_sha256"]

    def both() -> bool:
        items = http("GET", f"{plant.api}/api/machines/kept/predictions?limit=1000").json["items"]
        told = {item["inputs_sha256"] for item in items if item["as_of"] == before["as_of"] and not item["rescored"]}
        return told >= {before["inputs_sha256"], after["inputs_sha256"]}

    wait_for(both, 20, "both predictions are in the history")


def test_advice_compares_cost_of_each_decision(plant: Platform) -> None:
    run = run_to_failure(PUMP, 1, seed=5)[0]
    add(plant, "worn", run, slice(len(run.timestamps) - 200, len(run.timestamps) - 6))
    found = http("GET", f"{plant.api}/api/machines/worn/advice")
    assert found.status == 200, found.body
    options = {option["when"]: option for option in found.json["options"]}
    assert found.json["best"] == "now"
    assert found.json["next_best"] == "at_failure"
    assert found.json["saves"] == found.json["saves_on_failure"] > 1000
    assert options["now"]["money"] == 900
    assert options["at_failure"]["failure_probability"] == 1
    assert "planned_stop" not in options
    soon = http("GET", f"{plant.api}/api/machines/worn/advice?planned_stop=1").json
    assert next(o for o in soon["options"] if o["when"] == "planned_stop")["failure_probability"] < 0.5
    path = f"{plant.api}/api/machines/worn/planned-stops"
    dates = [datetime.now(UTC) + timedelta(hours=hours) for hours in (0.5, 300)]
    stops = [http("POST", path, {"at": date.isoformat()}) for date in dates]
    assert [stop.status for stop in stops] == [201, 201]
    assert http("POST", path, {"at": dates[0].isoformat()}).json["id"] == stops[0].json["id"]
    listed = http("GET", path).json["items"]
    assert [round(stop["in_hours"], 1) for stop in listed] == [0.5, 300]
    planned = http("GET", f"{plant.api}/api/machines/worn/advice").json
    assert [option["when"] for option in planned["options"]] == ["now", "planned_stop", "planned_stop", "at_failure"]
    assert 0.4 < planned["options"][1]["after"] <= 0.5
    assert datetime.fromisoformat(planned["options"][1]["at"]) == dates[0]
    assert abs(planned["saves"]) < planned["saves_on_failure"]
    assert http("DELETE", f"{path}/{stops[1].json['id']}").status == 204
    assert [stop["id"] for stop in http("GET", path).json["items"]] == [stops[0].json["id"]]
    assert http("DELETE", f"{path}/{stops[1].json['id']}").status == 404
    past = http("POST", path, {"at": "2020-01-01T00:00:00Z"})
    assert past.status == 422
    assert "must be in the future" in json.dumps(past.json)
    sundial = {"machine_id": "sundial-1", "machine_type": "sundial", "site": ""}
    assert http("POST", f"{plant.api}/api/machines", sundial).status == 201
    rows = [{"machine_id": "sundial-1", "sensor": "x", "timestamp": time.time() - n, "value": n % 3} for n in range(30)]
    assert http("POST", f"{plant.api}/api/readings", {"readings": rows}).status == 200
    refused = http("GET", f"{plant.api}/api/machines/sundial-1/advice")
    assert refused.status == 409
    assert "no model predicts its RUL" in json.dumps(refused.json)


def test_predictions_are_compared_with_what_happened(plant: Platform) -> None:
    """Forecasts of a life that ends in a recorded failure become a scorecard, metrics, and an answer of the API."""
    (run,) = run_to_failure(PUMP, 1, seed=41)
    name, rows = "pump-outcome", len(run.timestamps)
    send(plant, run, slice(0, 1), name)
    body = {"machine_id": name, "machine_type": "pump"}
    assert http("POST", f"{plant.api}/api/machines", body).status == 201
    for start in range(1, rows, rows // 24 + 1):
        send(plant, run, slice(start, start + rows // 24 + 1), name)
        assert http("POST", f"{plant.api}/api/machines/{name}/predict").status == 200
    failure = {"text": "Stopped", "kind": "failure", "failure_mode": "bearing"}
    assert http("POST", f"{plant.api}/api/machines/{name}/maintenance", failure).status == 201

    def months() -> list[dict[str, Any]]:
        items = http("GET", f"{plant.api}/api/outcomes?machine_type=pump").json["items"]
        return [item for item in items if item["predicted_failures"]]

    wait_for(months, 30, "the failure and the warning before it are in a scorecard")
    (found,) = months()
    assert (found["failures"], found["predicted_failures"]) == (1, 1)
    assert found["lead_time"] > 0
    items = http("GET", f"{plant.api}/api/outcomes?machine_type=pump").json["items"]  # the life may span two months
    assert sum(item["predictions"] for item in items) > 0
    for item in items:
        assert sum(each["predictions"] for each in item["calibration"]) == item["predictions"]
    metric = 'prediction_outcome_failures{machine_type="pump",result="predicted"}'
    wait_for(lambda: plant.metric("prediction", metric) == 1, 15, "the metric shows it too")
    assert http("GET", f"{plant.api}/api/outcomes?machine_type=oven").json["items"] == []


def test_model_without_skill_gives_no_advice(plant: Platform, stub: prediction_pb2_grpc.PredictionServiceStub) -> None:
    version = unskilled_version(plant.folder / "models")
    run = run_to_failure(PUMP, 1, seed=5)[0]
    add(plant, "unsure", run, slice(0, 200))
    request = prediction_pb2.ActivateModelRequest(machine_type="pump", version=version)
    with pytest.raises(grpc.RpcError) as refused:
        stub.ActivateModel(request, timeout=5)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "no proven skill" in refused.value.details()
    request.force = True
    model = stub.ActivateModel(request, timeout=5).model
    assert model.forced
    assert model.without_skill
    told = http("POST", f"{plant.api}/api/predict", {"machine_id": "unsure"}).json
    assert told["model_version"] == version
    assert isinstance(told["risk_score"], float)
    assert "no proven skill for the risk" in told["without_skill"]
    listed = {each["version"]: each for each in http("GET", f"{plant.api}/api/models").json["items"]}
    assert listed[version]["forced"]
    assert {each["baseline"] for each in listed[version]["skill"]} >= {"base rate", "median life minus age"}
    advice = http("GET", f"{plant.api}/api/machines/unsure/advice")
    assert advice.status == 409
    assert advice.json["type"].endswith(":no-skill")
    stub.RollbackModel(prediction_pb2.RollbackModelRequest(machine_type="pump"), timeout=5)
