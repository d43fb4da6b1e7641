"""The fleet scorer: machines are scored continuously, once, also when scorers and ingestion come and go."""

import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from aurum.readings.batch import Series, encode, now_us
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from tests.support.models import pump_model
from tests.support.platform import Platform
from tests.support.waiting import wait_for

MACHINES = [f"P-{number}" for number in range(12)]
RULES = """
rules:
  - {name: hot, text: Hot, priority: high, sensor: {sensor: bearing_temperature_c, above: 90}}
  - name: slow
    text: Hot for a while
    sensor: {sensor: bearing_temperature_c, above: 90}
    on_delay_seconds: {delay}
"""
DELAY = 120  # seconds; so long that a delay that began anew would end after the test


@dataclass
class Plant:
    """Ingestion as a process, the readings of pumps, and scorers."""

    first: Platform
    sensors: list[str]
    axis: str
    sequence: int = 0
    life: float = 100.0
    sent_us: int = 0  # time of the latest readings

    @contextlib.contextmanager
    def ingestion(self) -> Iterator[ingestion_pb2_grpc.IngestionServiceStub]:
        with grpc.insecure_channel(f"127.0.0.1:{self.first.port('ingestion')}") as channel:
            yield ingestion_pb2_grpc.IngestionServiceStub(channel)

    def register(self) -> None:
        with self.ingestion() as stub:
            for machine_id in MACHINES:
                request = ingestion_pb2.RegisterMachineRequest(machine_id=machine_id, site="s", request_id="x")
                request.machine_type = "other" if machine_id == MACHINES[0] else "pump"
                stub.RegisterMachine(request)

    def send(self, many: int = 1, hot: tuple[str, ...] = (), ago: float = 0.0) -> None:
        """Sends readings of all machines, the last one from some seconds ago. Those of hot ones exceed the limit."""
        self.sequence += 1
        self.life += 0.5
        chance = np.random.default_rng(self.sequence)
        self.sent_us = int((time.time() - ago) * 1e6)
        times = self.sent_us - np.arange(many)[::-1] * 100_000
        series = []
        for machine_id in MACHINES:
            for sensor in self.sensors:
                values = chance.normal(60, 1, many)
                if sensor == "bearing_temperature_c" and machine_id in hot:
                    values += 40
                series.append(Series(machine_id, sensor, times, values))
            series.append(Series(machine_id, self.axis, times, self.life + np.arange(many) * 0.01))
        with self.ingestion() as stub:
            stub.Write(ingestion_pb2.WriteRequest(batch=encode("sender", self.sequence, series)))

    def published(self) -> dict[str, prediction_pb2.PredictResponse]:
        """The predictions that someone sees who begins to watch now."""
        found: dict[str, prediction_pb2.PredictResponse] = {}
        request = ingestion_pb2.WatchRequest(predictions=True, interval_ms=100)
        with self.ingestion() as stub, contextlib.suppress(grpc.RpcError):  # it ends by its timeout
            for response in stub.Watch(request, timeout=1):
                found |= {each.machine_id: each for each in response.predictions}
                if len(found) == len(MACHINES):
                    break
        return found

    def last_seen(self) -> dict[str, int]:
        with self.ingestion() as stub:
            machines = stub.ListMachines(ingestion_pb2.ListMachinesRequest(page_size=100, omit_sensors=True)).machines
            return {machine.machine_id: machine.last_seen_us for machine in machines}

    def all_scored(self) -> bool:
        """Whether the latest readings of all machines are in published predictions."""
        seen, published = self.last_seen(), self.published()
        return all(machine_id in published and published[machine_id].as_of_us == at for machine_id, at in seen.items())

    def transitions(self) -> Counter[str]:
        """How often each kind of transition of each alarm is in the journal."""
        with self.ingestion() as stub:
            events = stub.ListEvents(ingestion_pb2.ListEventsRequest(kind="alarm", by_number=True, limit=1000)).events
            return Counter(event.id for event in events)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    pump_model(tmp_path / "models")
    (tmp_path / "rules.yaml").write_text(RULES.replace("{delay}", str(DELAY)))
    extra = {
        "AURUM_ALARM_RULES": str(tmp_path / "rules.yaml"),
        "AURUM_MODEL_DIR": str(tmp_path / "models"),
        "AURUM_PREDICTION_SCORE_INTERVAL": "0.2",
    }
    card = json.loads(next((tmp_path / "models").glob("*/*/card.json")).read_text())
    running = Platform(tmp_path, extra=extra)
    running.start("ingestion")
    found = Plant(running, card["sensors"], card["axis"])
    found.register()
    found.send(40, ago=DELAY)  # so that tests can send later readings from before the present
    yield found
    running.stop()


@contextlib.contextmanager
def second_scorer(plant: Plant, *, peers: bool) -> Iterator[Platform]:
    """Two scorers, which know of each other or not."""
    first = plant.first
    other = Platform(first.folder / "second", extra=dict(first.extra))
    other.ports["ingestion"] = first.port("ingestion")
    if peers:
        addresses = [f"127.0.0.1:{each.port('prediction')}" for each in (first, other)]
        for each, own in zip((first, other), addresses, strict=True):
            each.extra["AURUM_PREDICTION_PEERS"] = ",".join(addresses)
            each.extra["AURUM_PREDICTION_OWN_ADDRESS"] = own
    first.start("prediction")
    other.start("prediction")
    try:
        yield other
    finally:
        other.stop()


def test_continuous_predictions_equal_requested_ones(plant: Plant) -> None:
    plant.first.start("prediction")
    for _ in range(3):
        plant.send()
        wait_for(plant.all_scored, 20, "all machines are scored")
    published = plant.published()
    with grpc.insecure_channel(f"127.0.0.1:{plant.first.port('prediction')}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        for machine_id in MACHINES:
            request = prediction_pb2.PredictRequest(machine_id=machine_id)
            assert stub.Predict(request) == published[machine_id]
    assert [published[machine_id].degraded for machine_id in MACHINES] == [True] + [False] * 11


def predict(platform: Platform, machine_id: str, written_us: int = 0) -> prediction_pb2.PredictResponse | None:
    """Requests a prediction; returns None if ingestion was needed for it and did not answer."""
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('prediction')}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        try:
            return stub.Predict(prediction_pb2.PredictRequest(machine_id=machine_id, written_us=written_us))
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise
            return None


def answers_from_window(platform: Platform, machine_id: str, written_us: int = 0) -> bool:
    windows = 'prediction_requests_total{source="window"}'
    before = platform.metric("prediction", windows)
    answer = predict(platform, machine_id, written_us)
    return answer is not None and platform.metric("prediction", windows) == before + 1


def test_windows_answer_as_queries_do(plant: Plant) -> None:
    plant.first.start("prediction")
    wait_for(plant.all_scored, 20, "all machines are scored")
    by_query = Platform(plant.first.folder / "second", extra=plant.first.extra | {"AURUM_PREDICTION_WINDOW_LAG": "0"})
    by_query.ports["ingestion"] = plant.first.port("ingestion")
    by_query.start("prediction")
    try:
        for machine_id in MACHINES[1:]:
            wait_for(lambda each=machine_id: answers_from_window(plant.first, each), 20, "a window answers")
            answer = predict(plant.first, machine_id)
            assert answer is not None
            assert answer == predict(by_query, machine_id)
            assert not answers_from_window(by_query, machine_id)
        assert not answers_from_window(plant.first, MACHINES[0])  # it has no model
        # The window may miss readings that the caller has just written
        assert not answers_from_window(plant.first, MACHINES[1], now_us())
        assert answers_from_window(plant.first, MACHINES[1], now_us() - 10_000_000)
    finally:
        by_query.stop()


def test_windows_do_not_answer_while_the_stream_is_stuck(plant: Plant) -> None:
    plant.first.start("prediction")
    wait_for(plant.all_scored, 20, "all machines are scored")
    wait_for(lambda: answers_from_window(plant.first, "P-1"), 20, "the window answers")
    ingestion = plant.first.processes["ingestion"].popen
    ingestion.send_signal(signal.SIGSTOP)  # the connection stays open
    try:
        wait_for(lambda: predict(plant.first, "P-1") is None, 20, "the window no longer answers")
    finally:
        ingestion.send_signal(signal.SIGCONT)
    wait_for(lambda: answers_from_window(plant.first, "P-1"), 30, "the window answers again")


def test_late_readings_are_in_the_next_prediction(plant: Plant) -> None:
    plant.first.start("prediction")
    wait_for(plant.all_scored, 20, "all machines are scored")
    before = plant.published()["P-1"].inputs_sha256
    late = Series("P-1", plant.sensors[0], np.array([plant.sent_us - 1_050_000]), np.array([500.0]))
    with plant.ingestion() as stub:
        stub.Write(ingestion_pb2.WriteRequest(batch=encode("other", 1, [late])))
    wait_for(lambda: plant.published()["P-1"].inputs_sha256 != before, 20, "the prediction has changed")
    with grpc.insecure_channel(f"127.0.0.1:{plant.first.port('prediction')}") as channel:
        answer = prediction_pb2_grpc.PredictionServiceStub(channel).Predict(
            prediction_pb2.PredictRequest(machine_id="P-1")
        )
    assert answer == plant.published()["P-1"]
    assert plant.first.metric("prediction", 'prediction_fleet_filled_total{reason="late"}') == 1


def test_a_killed_scorer_is_replaced_within_ten_seconds(plant: Plant) -> None:
    with second_scorer(plant, peers=True) as other:
        wait_for(lambda: other.metric("prediction", "prediction_fleet_members ") == 2, 20, "both scorers live")
        wait_for(plant.all_scored, 20, "all machines are scored")
        hot = ("P-2", "P-3", "P-4", "P-5", "P-6", "P-7")
        plant.send(hot=hot, ago=0.75 * DELAY)  # a quarter of the delay is left
        raised = {f"{machine_id}~hot~raised" for machine_id in hot}
        wait_for(lambda: raised <= set(plant.transitions()), 20, "the alarms are raised")
        machines = 'prediction_fleet_machines{by="model"}'
        shares = [each.metric("prediction", machines) for each in (plant.first, other)]
        assert sum(shares) == 11
        assert min(shares) > 0
        assert set(plant.transitions()) == raised
        other.processes["prediction"].kill(signal.SIGKILL)
        plant.send(hot=hot)
        wait_for(plant.all_scored, 10, "the machines of the killed scorer are scored")
        wait_for(lambda: plant.first.metric("prediction", machines) == 11, 10, "one scorer has all machines")
        # A delay that began anew after the kill would take longer
        raised |= {f"{machine_id}~slow~raised" for machine_id in hot}
        wait_for(lambda: raised <= set(plant.transitions()), 0.6 * DELAY, "the delays go on, and the alarms are raised")
        plant.send()
        ended = {f"{machine_id}~{rule}~cleared" for machine_id in hot for rule in ("hot", "slow")}
        wait_for(lambda: ended <= set(plant.transitions()), 20, "the alarms are cleared")
        assert plant.transitions() == Counter(raised | ended)


def test_overlapping_scorers_write_transitions_once(plant: Plant) -> None:
    with second_scorer(plant, peers=False) as other:
        for scorer in (plant.first, other):
            wait_for(
                lambda scorer=scorer: scorer.metric("prediction", 'prediction_fleet_machines{by="model"}') == 11,
                20,
                "the scorer has all machines",
            )
        plant.send(hot=("P-1", "P-2"))
        wait_for(lambda: len(plant.transitions()) == 2, 20, "the alarms are raised")
        plant.send()
        wait_for(lambda: len(plant.transitions()) == 4, 20, "the alarms are cleared")
        for scorer in (plant.first, other):
            evaluated = scorer.metric("prediction", "alarm_evaluation_seconds_count")
            wait_for(
                lambda scorer=scorer, before=evaluated: (
                    scorer.metric("prediction", "alarm_evaluation_seconds_count") > before + 2
                ),
                20,
                "both scorers have evaluated the rules",
            )
        assert set(plant.transitions().values()) == {1}


def test_predictions_survive_a_restart_of_ingestion(plant: Plant) -> None:
    plant.first.start("prediction")
    wait_for(plant.all_scored, 20, "all machines are scored")
    before = plant.published()
    plant.first.processes["ingestion"].kill(signal.SIGKILL)
    plant.first.restart("ingestion")
    wait_for(lambda: plant.published() == before, 20, "the predictions are published again")
    plant.send()
    wait_for(plant.all_scored, 20, "all machines are scored")
    assert plant.first.metric("prediction", "prediction_fleet_gaps_total") == 1
