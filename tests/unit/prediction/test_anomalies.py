"""Anomaly scores: calibrated on held-out healthy time, and evaluated on labels over time."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.alarms.rules import USUAL_THRESHOLD, load_rules
from aurum.commands.evaluation import AnomalyLabels, evaluate_files
from aurum.commands.training_data import DataSelection
from aurum.prediction.fleet.array_conditions import ArrayCondition, Observations
from aurum.prediction.model.model import CARD, Model, assemble, for_serving
from aurum.prediction.model.model_files import make_champion, write_model
from aurum.prediction.serving.inputs import PredictionInput
from aurum.prediction.serving.readings_client import MachineReadings
from aurum.prediction.serving.scoring import Prediction, Scorer
from aurum.prediction.training.anomaly_evaluation import evaluate_anomalies
from aurum.prediction.training.evaluation import EvaluationDataError
from aurum.prediction.training.healthy_time import ANOMALY, MONTH_HOURS, episodes, healthy_parts
from aurum.prediction.training.train import TrainingOptions, train
from aurum.readings.history import Run

HOUR = 3_600_000_000


def valve(number: int, hours: int = 700, *, stuck: tuple[int, int] | None = None) -> Run:
    """A valve with two sensors that follow a slow common load, each with its own level; labelled while it is stuck."""
    chance = np.random.default_rng(number)
    load = np.convolve(chance.normal(0, 1, hours + 30), np.ones(30) / 30, "valid")[:hours]
    flow = 40 + chance.normal(0, 0.5) + 8 * load + chance.normal(0, 0.3, hours)
    pressure = 6 + chance.normal(0, 0.1) + 2 * load + chance.normal(0, 0.1, hours)
    label = np.zeros(hours)
    if stuck:
        flow[slice(*stuck)] -= 8
        label[slice(*stuck)] = 1
    columns = {"flow": flow, "pressure": pressure, ANOMALY: label}
    return Run(f"v{number}", False, np.arange(hours, dtype=np.int64) * HOUR, columns)


@pytest.fixture(scope="module")
def healthy() -> Model:
    return train("valve", [valve(number) for number in range(12)], "test", TrainingOptions())[0]


def test_thresholds_keep_false_alarms_on_new_machines(healthy: Model) -> None:
    new = [valve(number) for number in range(100, 130)]
    for allowed in (3.0, 1.0):
        found = evaluate_anomalies(healthy, new, ANOMALY, allowed)
        months = found.healthy_days * 24 / MONTH_HOURS
        assert found.alarms / months <= 1.5 * allowed
    assert healthy.card.anomaly.held_out is not None
    assert "whole runs" in healthy.card.anomaly.held_out.blocks


def test_one_machine_is_calibrated_on_held_out_blocks() -> None:
    alone = valve(1, 900)
    drifting = {**alone.columns, "flow": alone.columns["flow"] + np.linspace(0, 6, 900)}
    model, _ = train("valve", [Run("v", False, alone.timestamps, drifting)], "test", TrainingOptions())
    part = model.card.anomaly.held_out
    assert part is not None
    assert "five parts" in part.blocks
    steady, _ = train("valve", [alone], "test", TrainingOptions())
    odd = Run("v", False, alone.timestamps, {**alone.columns, "flow": alone.columns["flow"] + 4})
    # A machine that drifts while it is healthy is not found unusual as fast as one that does not
    scores = [evaluate_anomalies(each, [odd], ANOMALY, 1.0).alarms > 0 for each in (model, steady)]
    assert scores == [False, True]


def test_labelled_anomalies_are_detected_with_their_delay(healthy: Model) -> None:
    runs = [valve(number, stuck=(400, 460)) for number in range(200, 206)]
    found = evaluate_anomalies(healthy, runs, ANOMALY, 0.5)
    assert (found.anomalies, found.detected) == (6, 6)
    assert found.precision is not None
    assert found.precision >= 0.75
    assert found.delay_hours is not None
    assert found.delay_hours <= 10
    assert found.healthy_days == pytest.approx(6 * (699 - 60) / 24)
    assert found.false_alarms_a_day is not None
    with pytest.raises(EvaluationDataError, match="no column 'broken'"):
        evaluate_anomalies(healthy, runs, "broken", 0.5)


def test_values_beyond_the_usual_range_raise_the_score(healthy: Model) -> None:
    """Correlations are as usual and only go too far, which T² detects."""
    scores = []
    for load in (0.0, 1.0, 2.0, 4.0):
        count = 260
        columns = {"flow": np.full(count, 40 + 8 * load), "pressure": np.full(count, 6 + 2 * load)}
        readings = MachineReadings("v", {name: (np.arange(count) * HOUR, each) for name, each in columns.items()})
        answer = Scorer().score([PredictionInput("v", "valve", healthy, readings)])[0]
        assert isinstance(answer, Prediction)
        scores.append(answer.anomaly_score)
    assert scores == sorted(scores)
    assert scores[-1] > healthy.anomaly.threshold(0.1)


@given(st.lists(st.floats(0.001, 1000), min_size=2, max_size=6))
def test_fewer_false_alarms_need_a_higher_threshold(healthy: Model, allowed: list[float]) -> None:
    thresholds = [healthy.anomaly.threshold(each) for each in sorted(allowed)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert all(0 <= each < 1 for each in thresholds)


def test_labelled_anomalies_are_no_healthy_time() -> None:
    parts = healthy_parts([valve(1, 300, stuck=(100, 150)), valve(2, 200)])
    assert [len(each.timestamps) for each in parts] == [100, 150, 200]
    assert {each.machine for each in parts} == {"v1", "v2"}
    assert all(not each.columns[ANOMALY].any() for each in parts)


@given(st.lists(st.booleans(), max_size=60))
def test_alarms_cover_each_state_beyond_the_threshold(beyond: list[bool]) -> None:
    flags = np.array(beyond, dtype=bool)
    found = episodes(flags, quiet=3)
    covered = np.zeros(len(flags), dtype=bool)
    for first, last in found:
        assert flags[first]
        assert flags[last]
        covered[first : last + 1] = True
    assert covered[flags].all()
    assert all(later[0] - earlier[1] > 3 for earlier, later in itertools.pairwise(found))


def test_model_of_an_earlier_version_keeps_its_scores(healthy: Model) -> None:
    _, files = train("valve", [valve(number, 200) for number in range(3)], "test", TrainingOptions())
    card = json.loads(files[CARD])
    del card["anomaly"]["held_out"]
    old = assemble(type(healthy.card).model_validate(card), files)
    assert old.anomaly.threshold(1.0) == 0
    assert for_serving(old, forced=False, false_alarms=1.0).anomaly_threshold == 0
    assert 0 <= old.anomaly(np.full((1, len(old.spec.names)), np.nan))[0] <= 1


def test_alarm_rule_takes_the_threshold_of_each_model() -> None:
    rule = next(each for each in load_rules().rules if each.name == "unusual").model_copy(
        update={"on_delay_seconds": 0.0}
    )
    condition = ArrayCondition(rule)
    condition.extend(3)
    times = np.full(3, 5)
    scores, thresholds = np.array([0.9995, 0.9995, 0.97]), np.array([0.9999, 0.0, 0.96])
    unknown = np.full(3, np.nan)
    seen = Observations(10, times, {}, unknown, unknown, scores, times, thresholds)
    assert condition.evaluate(seen, np.ones(3, np.bool_)).machines.tolist() == [1, 2]
    assert USUAL_THRESHOLD == 0.999


def test_evaluate_reports_alarms_on_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, files = train("valve", [valve(number) for number in range(6)], "test", TrainingOptions())
    version = json.loads(files[CARD])["version"]
    write_model(tmp_path, "valve", version, files)
    make_champion(tmp_path, "valve", version)
    run = valve(50, stuck=(300, 350))
    rows = [
        f"v50,{sensor},{1_700_000_000 + 3600 * hour},{value:.3f}"
        for sensor, values in run.columns.items()
        for hour, value in enumerate(values)
    ]
    table = tmp_path / "valve.csv"
    table.write_text("\n".join(["machine_id,sensor,timestamp,value", *rows]) + "\n")
    evaluate_files(DataSelection(None, [table], ["valve"]), tmp_path, None, AnomalyLabels(None, 1.0))
    printed = capsys.readouterr().out
    assert "1 allowed false alarms a month" in printed
    assert "1, of which 1 were detected" in printed
    assert "false alarms a day" in printed
