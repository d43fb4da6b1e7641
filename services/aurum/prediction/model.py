"""A trained model: boosted trees for risk and RUL, their calibration, and an anomaly model."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from aurum.prediction.anomaly import AnomalyModel
from aurum.prediction.calibration import IntervalCalibration, RiskCalibration
from aurum.prediction.card import ModelCard
from aurum.prediction.features import FeatureSpec

Floats = npt.NDArray[np.float64]
CARD, RISK, RUL = "card.json", "risk.txt", "rul.txt"


class CorruptModelError(Exception):
    """A model's files are not what its card says; the message names the file."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """One element a row of features. RUL and its bounds are in the card's unit."""

    risk: Floats
    rul: Floats
    lower: Floats
    upper: Floats
    anomaly: Floats


@dataclass(frozen=True, slots=True)
class Model:
    card: ModelCard
    spec: FeatureSpec
    risk: lgb.Booster
    rul: lgb.Booster
    risk_calibration: RiskCalibration
    interval_calibration: IntervalCalibration
    anomaly: AnomalyModel

    def predict(self, features: Floats) -> Predictions:
        """features: one row each, columns as spec.names."""
        # One thread: under load, several OpenMP threads for one row cost more than they bring.
        scores = np.asarray(self.risk.predict(features, num_threads=1, raw_score=True), dtype=np.float64)
        rul = np.asarray(self.rul.predict(features, num_threads=1), dtype=np.float64)
        rul = np.clip(rul, 0.0, self.card.rul_cap)
        lower, upper = self.interval_calibration(rul)
        return Predictions(
            self.risk_calibration(scores), rul, lower, np.minimum(upper, self.card.rul_cap), self.anomaly(features)
        )

    def contributions(self, features: Floats) -> Floats:
        """What each feature adds to the log-odds of failure, for one row (TreeSHAP; Lundberg et al., 2020)."""
        values = np.asarray(self.risk.predict(features, num_threads=1, pred_contrib=True), dtype=np.float64)
        return np.asarray(values[0, :-1])


def load_model(folder: Path) -> Model:
    """Reads a model. Raises CorruptModelError that names the file; nothing is executed or unpickled."""
    path = folder / CARD
    try:
        card = ModelCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else error
        raise CorruptModelError(f"{path} is not a model card: {problem}; remove the folder or train again") from error
    boosters = {}
    for name in (RISK, RUL):
        file = folder / name
        try:
            content = file.read_bytes()
        except OSError as error:
            raise CorruptModelError(f"{file} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != card.files.get(name):
            raise CorruptModelError(
                f"{file} is corrupt: its SHA-256 is not the one in {CARD}; remove the folder or train again"
            )
        boosters[name] = lgb.Booster(model_str=content.decode("utf-8"))
    return assemble(card, boosters[RISK], boosters[RUL])


def assemble(card: ModelCard, risk: lgb.Booster, rul: lgb.Booster) -> Model:
    """A model of its parts."""
    anomaly = card.anomaly
    return Model(
        card=card,
        spec=FeatureSpec(card.axis, card.step, tuple(card.sensors)),
        risk=risk,
        rul=rul,
        risk_calibration=RiskCalibration(tuple(card.risk.scores), tuple(card.risk.probabilities)),
        interval_calibration=IntervalCalibration(
            tuple(card.interval.edges), tuple(card.interval.lower), tuple(card.interval.upper)
        ),
        anomaly=AnomalyModel(
            tuple(anomaly.columns),
            np.array(anomaly.mean),
            np.array(anomaly.scale),
            np.array(anomaly.components),
            np.array(anomaly.quantiles),
        ),
    )
