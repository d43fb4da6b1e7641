"""Learning from what happened: when a model is trained again, and what decides whether it is promoted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aurum.prediction.learning.comparison import Comparison, Quality, compare, trained_until
from aurum.prediction.learning.learn import LearningOptions, learn
from aurum.prediction.learning.rule import PromotionRule, judge
from aurum.prediction.learning.state import LearningStateError, read_state
from aurum.prediction.model.model import load_model
from aurum.prediction.model.model_files import Serving, read_serving, write_model, write_serving
from aurum.prediction.serving.registry import ModelRegistry
from aurum.prediction.training.train import TrainingOptions, train
from aurum.readings.history import OPERATING_HOURS, Run
from aurum.runtime.audit import AuditLog
from aurum.runtime.time_units import HOUR_US
from aurum_sim.machine_types import PUMP
from tests.support.recorded_plant import RecordedPlant, recorded_plant

BEGIN, HOURS = 1_700_000_000_000_000, 2000
OPTIONS = LearningOptions(training=TrainingOptions(rows=2000, rounds=30))


@pytest.fixture(scope="module")
def plant() -> RecordedPlant:
    return recorded_plant(PUMP, 14, HOURS, 2.0, 3, BEGIN)


@pytest.fixture(scope="module")
def trained(plant: RecordedPlant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a champion that was learned from the first half."""
    root = tmp_path_factory.mktemp("models")
    said = learn(root, "pump", at(plant, 0.5), "test", OPTIONS, AuditLog(None))
    assert "first champion" in said[-1]
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    for file in trained.rglob("*"):
        if file.is_file():
            target = tmp_path / file.relative_to(trained)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return tmp_path


def at(plant: RecordedPlant, share: float) -> list[Run]:
    return plant.runs(BEGIN + int(HOURS * HOUR_US * share))


def serving(root: Path) -> Serving:
    found = read_serving(root, "pump")
    assert found is not None
    return found


def put_in_shadow(root: Path, runs: list[Run], change: Callable[[Run], Run]) -> str:
    """Trains a model on changed lives and makes it the shadow."""
    model, contents = train("pump", [change(run) for run in runs], "test", OPTIONS.training)
    write_model(root, "pump", model.card.version, contents)
    write_serving(root, "pump", replace(serving(root), shadow=model.card.version))
    return model.card.version


def backwards(run: Run) -> Run:
    """A life whose wear is told backwards, so that new machines seem to be worn."""
    changed = {
        name: values if name == "operating_hours" else values[::-1].copy() for name, values in run.columns.items()
    }
    return replace(run, columns=changed)


def test_first_model_from_records_has_skill_on_later_lives(plant: RecordedPlant, root: Path) -> None:
    model = load_model(root / "pump" / serving(root).version)
    later = compare(model, None, at(plant, 1.0), trained_until(model))
    assert later is not None
    assert later.failures >= 5
    assert later.candidate.skill > 0.3


def test_nothing_is_trained_while_no_lives_have_ended(plant: RecordedPlant, root: Path) -> None:
    before = serving(root)
    said = learn(root, "pump", at(plant, 0.5), "test", OPTIONS, AuditLog(None))
    assert "not trained: 0 lives" in said[0]
    assert serving(root) == before


def test_bad_shadow_model_is_withdrawn_and_not_promoted(plant: RecordedPlant, root: Path) -> None:
    before = serving(root)
    bad = put_in_shadow(root, at(plant, 0.5), backwards)
    said = learn(root, "pump", at(plant, 1.0), "test", OPTIONS, AuditLog(root / "audit.log"))
    assert f"{bad} is withdrawn" in said[0]
    now = serving(root)
    assert now.version == before.version
    assert now.shadow not in (None, bad)  # the lives that ended meanwhile are learned from
    assert [each.action for each in read_state(root, "pump").decisions][-2:] == ["withdrawn", "trained"]
    assert "model.withdraw" in (root / "audit.log").read_text()


def test_better_shadow_model_is_promoted_and_rolled_back(plant: RecordedPlant, root: Path) -> None:
    good = serving(root).version
    bad = put_in_shadow(root, at(plant, 0.5), backwards)
    write_serving(root, "pump", Serving(bad, shadow=good))
    said = learn(root, "pump", at(plant, 1.0), "test", OPTIONS, AuditLog(root / "audit.log"))
    assert f"{good} is the champion" in said[0]
    assert "aurum models rollback pump" in said[0]
    assert serving(root) == Serving(good, previous=bad)
    assert "model.promote" in (root / "audit.log").read_text()
    ModelRegistry(root).roll_back("pump")
    assert serving(root).version == bad


def test_promotion_waits_for_agreement_if_required(plant: RecordedPlant, root: Path) -> None:
    good = serving(root).version
    bad = put_in_shadow(root, at(plant, 0.5), backwards)
    write_serving(root, "pump", Serving(bad, shadow=good))
    for _ in range(2):
        said = learn(root, "pump", at(plant, 1.0), "test", replace(OPTIONS, agreement=True), AuditLog(None))
        assert f"`aurum models activate pump {good}`" in said[0]
    assert serving(root) == Serving(bad, shadow=good)
    state = read_state(root, "pump")
    assert state.proposed == good
    assert [each.action for each in state.decisions].count("proposed") == 1


def test_labels_that_are_noise_are_not_promoted(plant: RecordedPlant, tmp_path: Path) -> None:
    """A first model whose labels say nothing has no skill and does not serve."""
    rng = np.random.default_rng(5)

    def noisy(run: Run) -> Run:
        columns = {name: rng.normal(size=len(values)) for name, values in run.columns.items() if name != "power_kw"}
        cut = int(rng.integers(10, max(11, len(run.timestamps))))
        columns["operating_hours"] = np.arange(len(run.timestamps), dtype=float) + rng.uniform(0, 500)
        return replace(run, timestamps=run.timestamps[:cut], columns={k: v[:cut] for k, v in columns.items()})

    runs = [noisy(run) for run in at(plant, 1.0)]
    said = learn(tmp_path, "pump", runs, "test", OPTIONS, AuditLog(None))
    assert read_serving(tmp_path, "pump") is None, said


def quality(skill: float, rul: float | None = None) -> Quality:
    return Quality(0.1, skill, rul)


@pytest.mark.parametrize(
    ("comparison", "action"),
    [
        (None, "wait"),
        (Comparison(4, 2, 100, quality(0.5), quality(0.1), 1.0, 1.0), "wait"),
        (Comparison(9, 4, 100, quality(0.5, 9), quality(0.1, 10), 0.9, 0.95), "promote"),
        (Comparison(9, 4, 100, quality(0.5, 9), None, 1.0, 0.95), "promote"),
        (Comparison(9, 4, 100, quality(0.5, 20), quality(0.1, 10), 0.9, 0.95), "withdraw"),
        (Comparison(9, 4, 100, quality(0.2), quality(0.1), 0.6, 0.95), "wait"),
        (Comparison(30, 9, 100, quality(0.2), quality(0.1), 0.6, 0.95), "withdraw"),
        (Comparison(9, 4, 100, quality(0.1), quality(0.5), 0.1, 0.95), "withdraw"),
        (Comparison(9, 4, 100, quality(-0.5), quality(-0.9), 0.9, 0.1), "withdraw"),
    ],
)
def test_rule_promotes_what_is_reliably_better(comparison: Comparison | None, action: str) -> None:
    assert judge(comparison, PromotionRule()).action == action


def test_unreadable_learning_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "pump").mkdir()
    (tmp_path / "pump/learning.json").write_text("{")
    with pytest.raises(LearningStateError, match=r"learning\.json"):
        read_state(tmp_path, "pump")


def test_one_failure_and_drift_train_a_model(plant: RecordedPlant, root: Path) -> None:
    """Readings that differ from those of the champion's training are a reason to train before enough lives ended."""
    options = replace(OPTIONS, failures=1000)
    lives = at(plant, 0.6)
    shifted = [
        replace(
            run,
            columns={
                name: values if name == OPERATING_HOURS else values + 50.0 for name, values in run.columns.items()
            },
        )
        for run in lives
    ]
    said = learn(root, "pump", lives, "test", replace(options, drift=float("inf")), AuditLog(None))
    assert "not trained" in said[-1]
    assert serving(root).shadow is None
    said = learn(root, "pump", shifted, "test", options, AuditLog(None))
    assert "and the drift is" in said[0]
    assert serving(root).shadow is not None


def test_only_readings_after_the_training_are_compared(plant: RecordedPlant, root: Path) -> None:
    champion = load_model(root / "pump" / serving(root).version)
    lives = at(plant, 0.8)
    ever, later = (compare(champion, None, lives, after) for after in (0, trained_until(champion)))
    assert ever is not None
    assert later is not None
    assert later.lives < ever.lives
    assert compare(champion, None, at(plant, 0.5), trained_until(champion)) is None
