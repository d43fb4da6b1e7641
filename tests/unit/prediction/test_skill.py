"""Skill against naive baselines: how it is measured, and what is served without it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.heuristics import assess
from aurum.prediction.fleet.fleet import Fleet
from aurum.prediction.fleet.scoring import FleetScoring
from aurum.prediction.model.model import CARD, load_model
from aurum.prediction.model.model_files import make_champion, read_serving, write_model
from aurum.prediction.model.skill import describe_skill, lacking_skill, refusal
from aurum.prediction.serving.inputs import PredictionInput
from aurum.prediction.serving.readings_client import MachineReadings
from aurum.prediction.serving.registry import ModelRegistry
from aurum.prediction.serving.scoring import Prediction, Scorer
from aurum.prediction.serving.servicer import response_of
from aurum.prediction.training.report import report
from aurum.prediction.training.skill import BASE_RATE, skill_of_risk, skill_of_rul
from aurum.prediction.training.train import TrainingOptions, train
from aurum.readings.batch import Column
from aurum.readings.history import Run
from aurum.runtime.errors import FailedPreconditionError
from tests.support.models import pump_version

MINUTE = 60_000_000
OPTIONS = TrainingOptions(rows=3000, rounds=20)


def random_lives(count: int, seed: int, *, begins: int = 0) -> list[Run]:
    """Lives that end by chance, at a rate that depends on nothing, with sensors that show nothing."""
    chance = np.random.default_rng(seed)
    runs = []
    for number in range(count):
        length = int(np.clip(chance.geometric(1 / 60), 8, 400))
        columns = {"cycle": np.arange(1.0, length + 1), "heat": chance.normal(50, 1, length)}
        times = (begins * number + np.arange(length, dtype=np.int64)) * MINUTE
        runs.append(Run(f"m{number:02d}", True, times, columns))
    return runs


@pytest.fixture(scope="module")
def noise_files() -> dict[str, str]:
    return train("pump", random_lives(24, 3), "noise", OPTIONS)[1]


@pytest.fixture
def noise(noise_files: dict[str, str], tmp_path: Path) -> Path:
    """A folder with a model of noise, which does not serve."""
    write_model(tmp_path, "pump", "noise", {**noise_files, CARD: card_of(noise_files, "noise")})
    return tmp_path


def card_of(files: dict[str, str], version: str) -> str:
    return json.dumps({**json.loads(files[CARD]), "version": version})


def readings(count: int = 40) -> MachineReadings:
    times = np.arange(count, dtype=np.int64) * MINUTE + MINUTE
    columns: dict[str, Column] = {
        "cycle": (times, np.arange(1.0, count + 1)),
        "heat": (times, np.full(count, 50.0)),
    }
    return MachineReadings("p", columns)


def scored(registry: ModelRegistry) -> Prediction:
    answer = Scorer().score([PredictionInput("p", "pump", registry.active("pump"), readings())])[0]
    assert isinstance(answer, Prediction)
    return answer


@pytest.mark.parametrize("begins", [0, 500])
def test_model_of_noise_has_no_skill(begins: int) -> None:
    model, _ = train("pump", random_lives(40, 5, begins=begins), "noise", OPTIONS)
    assert set(lacking_skill(model.card)) == {"risk", "rul"}
    assert (model.card.later_lives is not None) == bool(begins)
    page = report(model.card)
    assert page.index("has no proven skill") < page.index("training rows")


def test_model_without_skill_is_activated_by_force_only(noise: Path) -> None:
    registry = ModelRegistry(noise)
    with pytest.raises(FailedPreconditionError, match="no proven skill for the risk") as refused:
        registry.activate("pump", "noise")
    assert refused.value.reason == "NO_SKILL"
    assert registry.active("pump") is None
    assert registry.activate("pump", "noise", force=True).forced
    told = scored(registry)
    assert told.risk_score is not None
    assert told.rul is not None
    assert not told.degraded_reason
    assert "no proven skill for the risk" in response_of(told).without_skill
    again = ModelRegistry(noise)
    assert scored(again) == told
    assert [entry.forced for entry in again.list()] == [True]


def test_unforced_model_without_skill_tells_no_number(noise: Path) -> None:
    make_champion(noise, "pump", "noise")  # as an earlier version did
    registry = ModelRegistry(noise)
    told = scored(registry)
    assert (told.risk_score, told.rul, told.quantiles) == (None, None, ())
    assert told.model_version == "noise"
    assert told.degraded_reason.startswith("the risk is unknown: model pump noise has no proven skill")
    response = response_of(told)
    assert response.risk_score == 0
    assert "against the baseline" in response.risk_unknown_reason
    assert "remaining useful life" in response.rul_unknown_reason
    assert (response.risk_unknown.code, response.rul_unknown.code) == ("NO_SKILL", "NO_SKILL")
    assert response.risk_unknown.parameters["baseline"] == BASE_RATE
    explained = Scorer().explain(PredictionInput("p", "pump", registry.active("pump"), readings()), 5)
    assert explained.factors == []
    assert "heat.last" in explained.features


def test_alarms_see_an_unknown_risk_as_unknown(noise: Path) -> None:
    make_champion(noise, "pump", "noise")
    registry = ModelRegistry(noise)
    fleet = Fleet(registry, ("fault",), 10_000_000)
    fleet.note_machine("p", "pump")
    columns = {"p": dict(readings().columns)}
    while (fill := fleet.next_fill(10)) is not None:
        fleet.install(fill, columns, columns)
    scoring = FleetScoring(fleet, registry, Scorer())
    answers = [each.prediction for _, machines in fleet.due(0) for each in scoring.score(machines)]
    assert [each.risk_unknown is not None for each in answers] == [True]
    assert np.isnan(fleet.table.risk[0])
    assert np.isnan(fleet.table.rul[0])
    assert fleet.table.anomaly[0] == answers[0].anomaly_score


def test_rollback_restores_a_forced_champion(noise: Path) -> None:
    make_champion(noise, "pump", "noise", forced=True)
    pump_version(noise, "skilled")
    registry = ModelRegistry(noise)
    assert not registry.get("pump", "").forced
    assert registry.roll_back("pump").forced
    serving = read_serving(noise, "pump")
    assert serving is not None
    assert (serving.version, serving.forced) == ("noise", True)


def test_model_with_skill_is_activated_and_says_so(tmp_path: Path) -> None:
    pump_version(tmp_path, "skilled", activate=False)
    card = ModelRegistry(tmp_path).activate("pump", "skilled").card
    assert refusal(card) == ""
    assert describe_skill(card)[0].startswith("risk: skill 0.")


def test_card_without_skill_is_served_as_before(tmp_path: Path) -> None:
    pump_version(tmp_path, "new", activate=False)
    folder = tmp_path / "pump" / "new"
    files = {path.name: path.read_text() for path in folder.iterdir() if path.name != "card.json.sha256"}
    card = json.loads(files[CARD])
    del card["evaluation"]["skill"], card["median_life"]
    write_model(tmp_path, "pump", "old", {**files, CARD: json.dumps({**card, "version": "old"})})
    assert describe_skill(load_model(tmp_path / "pump" / "old").card) == ["skill not measured"]
    entry = ModelRegistry(tmp_path).activate("pump", "old")
    assert not entry.forced
    model = ModelRegistry(tmp_path).active("pump")
    assert model is not None
    assert model.tells_risk
    assert not model.withheld


def test_value_of_a_rule_is_named_as_the_rules() -> None:
    answer = Scorer().score([PredictionInput("p", "pump", None, readings(), reason="there is no model")])[0]
    assert isinstance(answer, Prediction)
    ruled = assess("pump", readings().columns)
    assert ruled is not None
    assert (answer.rule, answer.risk_score) == (ruled.rule, ruled.risk)
    assert response_of(answer).rule == "shift"


def test_healthy_machines_alone_give_no_risk() -> None:
    chance = np.random.default_rng(1)
    times = np.arange(90, dtype=np.int64) * MINUTE
    model, _ = train("oven", [Run("o", False, times, {"heat": chance.normal(50, 1, 90)})], "test", OPTIONS)
    few = MachineReadings("o", {"heat": (times[:8], np.full(8, 50.0))})  # too few for the rule
    answer = Scorer().score([PredictionInput("o", "oven", model, few)])[0]
    assert isinstance(answer, Prediction)
    assert answer.risk_score is None
    assert answer.risk_unknown is not None
    assert answer.risk_unknown.code == "NO_FAILURES_SEEN"
    assert "has seen no failures" in answer.risk_unknown.text


@given(st.integers(2, 12), st.integers(0, 1000))
def test_baseline_has_no_skill_and_the_truth_all(machines: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    group = np.repeat(np.arange(machines), 10)
    left = chance.uniform(0, 50, len(group))
    naive = chance.uniform(0, 50, len(group))
    perfect = skill_of_rul(left, left, naive, "naive", group)
    same = skill_of_rul(naive, left, naive, "naive", group)
    assert perfect is not None
    assert same is not None
    assert (perfect.skill, perfect.low, perfect.high) == (1, 1, 1)
    assert (same.skill, same.low, same.high) == (0, 0, 0)
    soon = chance.random(len(group)) < 0.3
    rate = np.full(len(group), soon.mean())
    of_risk = skill_of_risk(chance.random(len(group)), soon, rate, group)
    assert of_risk.baseline == BASE_RATE
    assert of_risk.low <= of_risk.skill <= of_risk.high <= 1


def test_skill_of_one_machine_is_not_proven() -> None:
    left = np.arange(10.0)
    alone = skill_of_rul(left, left, left + 5, "naive", np.zeros(10, dtype=np.intp))
    assert alone is not None
    assert alone.low <= 0
