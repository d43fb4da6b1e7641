"""The first models, which prediction trains in the background: how far they are, and what ends their training."""

import os
import signal
from pathlib import Path
from typing import Any

import grpc

from aurum.readings.batch import now_us
from aurum.v1 import prediction_pb2, prediction_pb2_grpc
from tests.support.http import http
from tests.support.models import pump_model
from tests.support.platform import Platform
from tests.support.waiting import wait_for


def states(platform: Platform) -> dict[str, str]:
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('prediction')}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        answer = stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=10)
    return {each.machine_type: each.state for each in answer.trainings}


def trainers(platform: Platform) -> dict[int, str]:
    """The processes that train into the platform's folder, and what each trains."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if str(platform.folder / "models") in arguments:
            found[int(process.name)] = arguments[arguments.index("--machine-type") + 1]
    return found


def predicted(platform: Platform) -> dict[str, Any]:
    answer: dict[str, Any] = http("POST", f"{platform.api}/api/machines/p1/predict").json
    return answer


def test_missing_models_are_trained_while_the_rule_answers(platform: Platform) -> None:
    """At the lowest priority; each model serves as soon as it is there. A kill is told, and the next start goes on."""
    pump_model(platform.folder / "models")
    platform.extra["AURUM_PREDICTION_TRAIN_MISSING"] = "pump,motor,conveyor"
    for service in ("ingestion", "prediction", "api"):
        platform.start(service)
    wait_for(lambda: states(platform)["motor"] == "running", 20, "the first training")
    assert states(platform) == {"pump": "done", "motor": "running", "conveyor": "waiting"}
    running = wait_for(lambda: trainers(platform), 20, "a process that trains")
    assert list(running.values()) == ["motor"]
    assert os.getpriority(os.PRIO_PROCESS, next(iter(running))) == 19
    readings = [
        {"machine_id": "p1", "sensor": "power_kw", "timestamp": now_us() / 1e6 - second, "value": 40.0}
        for second in range(30)
    ]
    assert http("POST", f"{platform.api}/api/readings", {"readings": readings}).status == 200
    http("POST", f"{platform.api}/api/machines", {"machine_id": "p1", "machine_type": "motor", "site": ""})
    assert predicted(platform)["source"] == "rule"

    os.kill(next(iter(running)), signal.SIGKILL)
    wait_for(lambda: states(platform)["conveyor"] == "running", 20, "the next training")
    items = http("GET", f"{platform.api}/api/models").json["training"]
    motor = next(each for each in items if each["machine_type"] == "motor")
    assert motor["state"] == "failed"
    assert motor["problem"] == "its process was killed by SIGKILL; it is trained at the next start"
    assert platform.metric("prediction", 'prediction_first_models{state="failed"}') == 1

    platform.processes["prediction"].kill(signal.SIGTERM)
    wait_for(lambda: not trainers(platform), 10, "the training ends with the service")
    platform.restart("prediction")
    wait_for(lambda: states(platform)["motor"] == "running", 20, "the training that was killed")
    wait_for(lambda: states(platform)["motor"] == "done", 120, "the model of a motor")
    loaded = wait_for(
        lambda: [each for each in http("GET", f"{platform.api}/api/models").json["items"] if each["champion"]][1:],
        20,
        "the model serves without a restart",
    )
    assert [each["machine_type"] for each in (*loaded,)] in (["motor"], ["pump"])


def test_a_service_that_is_killed_takes_its_training_along(platform: Platform) -> None:
    platform.extra["AURUM_PREDICTION_TRAIN_MISSING"] = "motor"
    platform.start("ingestion")
    platform.start("prediction")
    wait_for(lambda: trainers(platform), 20, "a process that trains")
    platform.processes["prediction"].kill(signal.SIGKILL)
    wait_for(lambda: not trainers(platform), 10, "the training ends with the service")


def test_what_a_failed_training_said_is_told(platform: Platform) -> None:
    platform.extra["AURUM_PREDICTION_TRAIN_MISSING"] = "no_such_type"
    for service in ("ingestion", "prediction", "api"):
        platform.start(service)
    wait_for(lambda: states(platform) == {"no_such_type": "failed"}, 30, "the training fails")
    (told,) = http("GET", f"{platform.api}/api/models").json["training"]
    assert "no_such_type" in told["problem"]
    assert told["problem"].endswith("; it is trained again at the next start")
