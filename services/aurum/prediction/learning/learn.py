"""Trains again, compares and promotes the models of one machine type."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from aurum.prediction.learning.comparison import compare, has_risk, later_rows, trained_until
from aurum.prediction.learning.rule import PromotionRule, judge
from aurum.prediction.learning.state import Decision, LearningState, read_state, write_state
from aurum.prediction.model.card import Evaluation
from aurum.prediction.model.model import Model, load_model
from aurum.prediction.model.model_files import Serving, make_champion, read_serving, write_model, write_serving
from aurum.prediction.model.skill import refusal
from aurum.prediction.serving.drift import DriftMonitor
from aurum.prediction.training.specification import FEW_FAILURES
from aurum.prediction.training.train import Progress, TrainingDataError, TrainingOptions, train
from aurum.readings.history import Run
from aurum.runtime.audit import AuditLog, Platform

logger = logging.getLogger(__name__)

_LEAST_FAILURES = FEW_FAILURES  # for a first model
_DRIFT_ROWS = 64  # that the monitor takes at once
_ACTOR = Platform("aurum-learn")


@dataclass(frozen=True, slots=True)
class LearningOptions:
    """When to train and what to promote.

    Attributes:
        failures: Lives that must have ended in a failure since the last training before the next one.
        drift: The population stability index from which one such life suffices.
        agreement: Whether a person must agree to a promotion.
        rule: What a promotion needs.
        training: How to train.
    """

    failures: int = 5
    drift: float = 0.25
    agreement: bool = False
    rule: PromotionRule = field(default_factory=PromotionRule)
    training: TrainingOptions = field(default_factory=TrainingOptions)


def learn(  # noqa: PLR0917
    root: Path,
    machine_type: str,
    runs: Sequence[Run],
    source: str,
    options: LearningOptions,
    audit: AuditLog,
    progress: Progress = lambda *_: None,
) -> list[str]:
    """Compares the shadow model of a type with its champion, then trains a new candidate if that is due.

    Args:
        root: The folder of the models.
        machine_type: The machine type.
        runs: The lives of its machines.
        source: Where they come from, for the model card.
        options: When to train and what to promote.
        audit: The audit log, which gets each promotion and withdrawal.
        progress: Called with the share of a training that is done and the name of the present stage.

    Returns:
        What was done and why, as sentences.

    Raises:
        CorruptModelError: A serving model cannot be loaded.
        LearningStateError: The state cannot be read.
        OSError: A file cannot be written.
    """
    return _Learner(root, machine_type, list(runs), source, options, audit, progress).run()


@dataclass(slots=True)
class _Learner:
    root: Path
    machine_type: str
    runs: list[Run]
    source: str
    options: LearningOptions
    audit: AuditLog
    progress: Progress
    said: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        serving = read_serving(self.root, self.machine_type)
        champion = self._load(serving.version) if serving else None
        if serving is not None and champion is not None and serving.shadow is not None:
            if self._compare(serving, champion, self._load(serving.shadow)):
                return self.said
            champion = self._load(champion.card.version)
        self._train_if_due(champion)
        return self.said

    def _load(self, version: str) -> Model:
        return load_model(self.root / self.machine_type / version)

    def _compare(self, serving: Serving, champion: Model, shadow: Model) -> bool:
        """Compares the shadow model with the champion. Returns whether it stays the shadow or became the champion."""
        version = shadow.card.version
        if not has_risk(shadow):
            self._withdraw(serving, version, "it predicts no risk on lives, so it cannot be compared")
            return False
        after = max(trained_until(shadow), trained_until(champion) if has_risk(champion) else 0)
        verdict = judge(compare(shadow, champion, self.runs, after), self.options.rule)
        if verdict.action == "wait":
            self.said.append(f"{version} stays in the shadow: {verdict.reason}")
            return True
        if verdict.action == "withdraw":
            self._withdraw(serving, version, verdict.reason)
            return False
        self._promote(version, verdict.reason)
        return True

    def _withdraw(self, serving: Serving, version: str, reason: str) -> None:
        write_serving(self.root, self.machine_type, replace(serving, shadow=None))
        self.audit.record(_ACTOR, "model.withdraw", self.machine_type, before=version, after=reason)
        self._decide(version, "withdrawn", reason)
        self.said.append(f"{version} is withdrawn from the shadow: {reason}")

    def _promote(self, version: str, reason: str) -> None:
        if self.options.agreement:
            if read_state(self.root, self.machine_type).proposed != version:
                self._decide(version, "proposed", reason, proposed=version)
            self.said.append(
                f"{version} waits for agreement: {reason}; agree with "
                f"`aurum models activate {self.machine_type} {version}`"
            )
            return
        before = read_serving(self.root, self.machine_type)
        make_champion(self.root, self.machine_type, version)
        self.audit.record(
            _ACTOR, "model.promote", self.machine_type, before=before.version if before else None, after=version
        )
        self._decide(version, "promoted", reason)
        self.said.append(
            f"{version} is the champion: {reason}; undo with `aurum models rollback {self.machine_type}`"
            if before
            else f"{version} is the first champion: {reason}"
        )

    def _train_if_due(self, champion: Model | None) -> None:
        state = read_state(self.root, self.machine_type)
        since = max(state.trained_until_us, trained_until(champion) if has_risk(champion) and champion else 0)
        failures = sum(run.failed and int(run.timestamps[-1]) > since for run in self.runs)
        needed = self.options.failures if since else _LEAST_FAILURES
        why = f"{failures} lives ended in a failure since the last training"
        if failures < needed:
            drift = self._drift(champion, since) if champion is not None and failures else float("nan")
            if not drift >= self.options.drift:
                self.said.append(f"not trained: {why}, and {needed} are needed")
                return
            why += f", and the drift is {drift:.2f}"
        self._train(champion, why)

    def _drift(self, champion: Model, since: int) -> float:
        """Returns the largest stability index of the champion's features in the readings since a time."""
        rows = later_rows(champion, self.runs, since)
        monitor = DriftMonitor(champion)
        order = np.random.default_rng(0).permutation(len(rows))
        for start in range(0, len(rows), _DRIFT_ROWS):
            monitor.observe(rows[order[start : start + _DRIFT_ROWS]])
        indices = [each.stability_index for each in monitor.feature_drift() if each.stability_index is not None]
        return max(indices, default=float("nan"))

    def _train(self, champion: Model | None, why: str) -> None:
        options = self.options.training
        if has_risk(champion) and champion is not None:  # the same question, so that both can be compared
            options = replace(options, horizon=champion.card.horizon, rul_cap=champion.card.rul_cap)
        try:
            model, contents = train(self.machine_type, self.runs, self.source, options, self.progress)
        except TrainingDataError as error:
            self.said.append(f"not trained: {error}")
            return
        version = model.card.version
        write_model(self.root, self.machine_type, version, contents)
        state = read_state(self.root, self.machine_type)
        write_state(self.root, self.machine_type, replace(state, trained_until_us=trained_until(model)))
        self.said.append(f"{version} is trained: {why}")
        if champion is not None and has_risk(champion):
            serving = read_serving(self.root, self.machine_type)
            if serving is not None:
                write_serving(self.root, self.machine_type, replace(serving, shadow=version))
            self._decide(version, "trained", why)
            self.said.append(f"{version} is in the shadow and will be compared on the lives that follow")
            return
        self._judge_first(model)

    def _judge_first(self, model: Model) -> None:
        """Promotes a type's first model of failures if it has skill on lives that it was not trained on."""
        evaluation = model.card.later_lives or model.card.evaluation
        skill = skill_of(evaluation) if evaluation else 0.0
        told = f"skill {skill:.2f} on {'later' if model.card.later_lives else 'held-out'} lives"
        lacking = refusal(model.card)
        if skill > 0 and not lacking:
            self._promote(model.card.version, told)
        else:
            told = lacking or told
            self._decide(model.card.version, "withdrawn", told)
            self.said.append(f"{model.card.version} is not activated: it has no skill ({told})")

    def _decide(self, version: str, action: str, reason: str, proposed: str = "") -> None:
        state: LearningState = read_state(self.root, self.machine_type)
        decision = Decision(datetime.now(UTC).isoformat(timespec="seconds"), version, action, reason)
        write_state(
            self.root, self.machine_type, replace(state, proposed=proposed, decisions=[*state.decisions, decision])
        )
        logger.info("%s: model %s %s: %s", self.machine_type, version, action, reason)


def skill_of(evaluation: Evaluation) -> float:
    """Returns the share by which the Brier score of an evaluation is less than that of its base rate."""
    rate = evaluation.metrics.risk_base_rate
    reference = rate * (1 - rate)
    return 1 - evaluation.metrics.risk_brier / reference if reference > 0 else 0.0
