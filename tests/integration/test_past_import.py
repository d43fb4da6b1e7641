"""The past that a simulator gives to its machines: in an empty store, once, and also after a kill."""

import asyncio
import json
import signal
from typing import Any

import grpc
import pytest

from aurum.alarms.journal import EVENT_KIND, from_event
from aurum.maintenance.records import RECORD
from aurum.prediction.serving.history import KIND as PREDICTION
from aurum.prediction.serving.predictor import Predictor
from aurum.prediction.serving.readings_client import ReadingsClient
from aurum.prediction.serving.registry import ModelRegistry
from aurum.prediction.serving.scoring import Prediction
from aurum.readings.simulated_past import KIND, pasts_of
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2
from tests.support.http import http
from tests.support.models import pump_model
from tests.support.platform import Platform
from tests.support.waiting import wait_for

MACHINES = 12
PAST_RULES = """
rules:
  - {name: likely, text: A failure is likely, priority: high, risk: {above: 0.0785}}
  - {name: silent, text: No readings, stale: {after_seconds: 60}}
"""
SIMULATOR = (
    "--to",
    "ingestion",
    "--machines",
    str(MACHINES),
    "--past-days",
    "3",
    "--speed-up",
    "120",
    "--backfill",
    "0",
)


def events(platform: Platform, kind: str, machine_id: str = "") -> list[ingestion_pb2.Event]:
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        request = ingestion_pb2.ListEventsRequest(kind=kind, machine_id=machine_id, limit=1000)
        return list(stub.ListEvents(request, timeout=10).events)


def machines(platform: Platform) -> list[ingestion_pb2.Machine]:
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        return list(stub.ListMachines(ingestion_pb2.ListMachinesRequest(page_size=1000), timeout=10).machines)


def stored(platform: Platform, end_us: int) -> dict[tuple[str, str], int]:
    """The number of readings of each series up to the end of the past."""
    found: dict[tuple[str, str], int] = {}
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        for machine in machines(platform):
            request = ingestion_pb2.QueryRequest(machine_ids=[machine.machine_id], end_us=end_us + 1)
            for answer in stub.Query(request, timeout=20):
                for series in answer.series:
                    found[series.machine_id, series.sensor] = len(series.values)
    return found


def complete(platform: Platform) -> Any:
    return next((past for past in pasts_of(events(platform, KIND)) if past.complete), None)


def recorded(platform: Platform) -> dict[str, list[tuple[str, int, str]]]:
    kinds = {EVENT_KIND: [""], RECORD: [machine.machine_id for machine in machines(platform)]}
    return {
        kind: [
            (machine_id, event.at_us, event.id) for machine_id in owners for event in events(platform, kind, machine_id)
        ]
        for kind, owners in kinds.items()
    }


def test_killed_import_of_a_past_is_completed_without_duplicates(platform: Platform) -> None:
    """A kill in the middle, a second start and a third one leave the store as one undisturbed import does."""
    platform.start("ingestion")
    platform.start("iot-sim", *SIMULATOR, ready=False)
    wait_for(lambda: events(platform, KIND), 30, "the import begins")
    platform.processes["iot-sim"].kill(signal.SIGKILL)
    begun = pasts_of(events(platform, KIND))[0]
    platform.restart("iot-sim")
    past = wait_for(lambda: complete(platform), 60, "the import is complete")
    assert (past.start_us, past.end_us) == (begun.start_us, begun.end_us), "it goes on with the same past"
    counts = stored(platform, past.end_us)
    assert len(counts) == 10 * MACHINES
    assert {count for (_, sensor), count in counts.items() if sensor == "operating_hours"} == {3 * 24 * 60}
    before = recorded(platform)
    assert len(before[RECORD]) == len(set(before[RECORD])) > 0
    platform.processes["iot-sim"].kill(signal.SIGTERM)
    platform.restart("iot-sim")
    assert stored(platform, past.end_us) == counts
    assert recorded(platform) == before
    assert len(pasts_of(events(platform, KIND))) == 1
    texts = [json.loads(event.content)["by"] for event in events(platform, RECORD, before[RECORD][0][0])]
    assert set(texts) == {"simulated plant"}


def test_store_with_readings_gets_no_simulated_past(platform: Platform) -> None:
    platform.start("ingestion")
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        series = ingestion_pb2.Series(machine_id="own", sensor="s", timestamps_us=[1_700_000_000_000_000], values=[1.0])
        batch = ingestion_pb2.Batch(source_id="own", sequence=1, series=[series])
        ingestion_pb2_grpc.IngestionServiceStub(channel).Write(ingestion_pb2.WriteRequest(batch=batch), timeout=10)
    platform.start("iot-sim", *SIMULATOR)
    wait_for(lambda: len([each for each in machines(platform) if each.last_seen_us]) > MACHINES, 30, "live readings")
    assert events(platform, KIND) == []
    assert events(platform, EVENT_KIND) == []


def test_too_large_fleet_gets_no_past_and_says_so(platform: Platform) -> None:
    platform.start("ingestion")
    simulator = platform.start("iot-sim", "--to", "ingestion", "--machines", "201", "--past-days", "1")
    assert any("at most 200 can have one" in line for line in simulator.lines())
    assert events(platform, KIND) == []


@pytest.fixture
def predicted(platform: Platform) -> Platform:
    """A plant whose past is imported and predicted by the model of a pump."""
    pump_model(platform.folder / "models")
    platform.extra["AURUM_PREDICTION_TRAIN_MISSING"] = "pump"
    (platform.folder / "rules.yaml").write_text(PAST_RULES)
    platform.extra["AURUM_ALARM_RULES"] = str(platform.folder / "rules.yaml")
    for service in ("ingestion", "prediction", "api"):
        platform.start(service)
    platform.start("iot-sim", *SIMULATOR)
    wait_for(lambda: events(platform, "past_predicted"), 60, "the past is predicted")
    return platform


async def as_of(platform: Platform, machine_id: str, times: list[int]) -> list[Prediction]:
    """What a request would have been answered at these times."""
    settings = Settings()
    ingestion = Dependency(
        "test", "ingestion", f"127.0.0.1:{platform.port('ingestion')}", Policies("test", settings), 16_000_000, None
    )
    predictor = Predictor(ReadingsClient(ingestion), ModelRegistry(platform.folder / "models"))
    try:
        found = [(await predictor.predict([machine_id], at_us + 1))[0] for at_us in times]
    finally:
        predictor.close()
        await ingestion.close()
    assert all(isinstance(each, Prediction) for each in found)
    return [each for each in found if isinstance(each, Prediction)]


def test_past_is_predicted_as_requests_were_answered(predicted: Platform) -> None:
    """By the same model, from the readings up to each moment; and the import raises no alarm about silence."""
    pumps = [each.machine_id for each in machines(predicted) if each.machine_type == "pump"]
    past = complete(predicted)
    for pump in pumps:
        kept = [prediction_pb2.PredictResponse.FromString(each.content) for each in events(predicted, PREDICTION, pump)]
        kept = [each for each in kept if each.rescored and each.as_of_us <= past.end_us]
        assert 60 < len(kept) < 80, "about one an hour"
        some = kept[:: len(kept) // 6]
        again = asyncio.run(as_of(predicted, pump, [each.as_of_us for each in some]))
        for one, other in zip(some, again, strict=True):
            assert one.model_version == other.model_version
            assert one.risk_score == pytest.approx(other.risk_score, abs=0.02)  # long windows are read as means
    alarms = http("GET", f"{predicted.api}/api/alarms?limit=100").json["items"]
    assert [each for each in alarms if each["rule"] == "silent"] == []


def test_past_has_alarms_on_what_was_predicted(predicted: Platform) -> None:
    """Each begins and ends in the past, by a prediction there, and is in the history of alarms."""
    end_us = complete(predicted).end_us
    entries = [from_event(event) for event in reversed(events(predicted, EVENT_KIND))]
    found = [entry for entry in entries if entry is not None and entry.past]
    raised = [entry for entry in found if entry.kind == "raised"]
    assert raised, "no alarm in the past"
    assert {entry.rule for entry in found} == {"likely"}
    assert len([entry for entry in found if entry.kind == "cleared"]) == len(raised)
    assert max(entry.at_us for entry in found) <= end_us
    for machine_id in {entry.machine_id for entry in raised}:
        kept = [
            prediction_pb2.PredictResponse.FromString(each.content)
            for each in events(predicted, PREDICTION, machine_id)
        ]
        risks = {(each.as_of_us, each.risk_score) for each in kept}
        assert {(entry.at_us, entry.value) for entry in raised if entry.machine_id == machine_id} <= risks
    shown = http("GET", f"{predicted.api}/api/alarms/journal?limit=1000&rule=likely&transition=raised").json["items"]
    assert len(shown) >= len(raised)


def test_import_of_a_past_goes_on_when_ingestion_is_back(platform: Platform) -> None:
    """A kill of ingestion in the middle of the import neither ends the simulator nor loses a part."""
    platform.start("ingestion")
    simulator = platform.start("iot-sim", *SIMULATOR, ready=False)
    wait_for(lambda: any(each.last_seen_us for each in machines(platform)), 30, "the first readings are stored")
    assert complete(platform) is None
    platform.processes["ingestion"].kill(signal.SIGKILL)
    wait_for(lambda: any("the past waits for ingestion" in line for line in simulator.lines()), 30, "it is told")
    platform.restart("ingestion")
    past = wait_for(lambda: complete(platform), 60, "the import is complete")
    assert simulator.popen.poll() is None
    counts = stored(platform, past.end_us)
    assert {count for (_, sensor), count in counts.items() if sensor == "operating_hours"} == {3 * 24 * 60}
