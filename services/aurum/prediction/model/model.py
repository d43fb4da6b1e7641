"""A trained model: boosted trees for risk and RUL, their calibrations, and an anomaly model."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from aurum.prediction.model.age_blend import AgeBlend
from aurum.prediction.model.anomaly import AnomalyModel, HeldOutScores
from aurum.prediction.model.calibration import LEVELS, TAIL_LEVELS, IntervalCalibration, LowerTail, RiskCalibration
from aurum.prediction.model.card import FORMAT, READABLE_FORMATS, AnomalyPart, ModelCard, Quantity
from aurum.prediction.model.causes import CauseShares
from aurum.prediction.model.features import Derived, FeatureSpec
from aurum.prediction.model.lifetime import Lifetime
from aurum.prediction.model.regimes import Regimes
from aurum.prediction.model.skill import UnknownReason, lacking_skill
from aurum.prediction.model.trees import Trees, TreesError
from aurum.prediction.model.wear_index import WearIndex

Floats = npt.NDArray[np.float64]
CARD, RISK, RUL, FOREST = "card.json", "risk.txt", "rul.txt", "forest.txt"
CARD_CHECKSUM = "card.json.sha256"  # in the format of sha256sum


class CorruptModelError(Exception):
    """A model's files do not match its card, or this version cannot serve them. The message names the file."""


def unreadable_file_error(path: Path, error: OSError) -> CorruptModelError:
    """Returns the error for a model file that the operating system cannot read, with a remedy."""
    missing = isinstance(error, FileNotFoundError)
    remedy = "remove the folder or train again" if missing else "let this user read it"
    return CorruptModelError(f"{path} cannot be read: {error.strerror}; {remedy}")


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions for rows of features, with one element for each row.

    Attributes:
        risk: Probability of a failure within the horizon; None if the training data has no failures, or if it is
            withheld.
        rul: RUL in the card's unit; None if the model was not trained on lives, or if it is withheld.
        quantiles: quantiles[row, level] of the RUL at calibration.LEVELS; None like `rul`.
        anomaly: Anomaly score, from 0 to 1.
        causes: causes[row, mode] of the risk, in the order of the model's modes; None if it knows no modes.
        tail: tail[row, level] of the RUL's quantiles at calibration.TAIL_LEVELS; None like `rul`, and for models of
            earlier versions.
    """

    risk: Floats | None
    rul: Floats | None
    quantiles: Floats | None
    anomaly: Floats
    causes: Floats | None = None
    tail: Floats | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can serve. Parts that its kind does not have are None.

    Attributes:
        card: The model card.
        spec: What its features are computed from.
        risk: The trees of the risk.
        rul: The trees of the RUL.
        risk_calibration: The calibration of the risk.
        interval_calibration: The calibration of the RUL.
        lower_tail: How early failures occur before the interval; None also for models of earlier versions.
        anomaly: The anomaly model.
        withheld: The quantities that it does not tell because they have no skill, with the reasons. Only a serving
            model withholds.
        unproven: The quantities that it tells although they have no skill, because it was activated by force.
        anomaly_threshold: The anomaly score from which a state counts as unusual; 0 if it is not set.
    """

    card: ModelCard
    spec: FeatureSpec
    risk: Trees | None
    rul: Trees | None
    risk_calibration: RiskCalibration | None
    interval_calibration: IntervalCalibration | None
    anomaly: AnomalyModel
    age_blend: AgeBlend | None = None
    causes: CauseShares | None = None
    lifetime: Lifetime | None = None
    lower_tail: LowerTail | None = None

    withheld: Mapping[Quantity, UnknownReason] = field(default_factory=dict)
    unproven: Mapping[Quantity, UnknownReason] = field(default_factory=dict)
    anomaly_threshold: float = 0.0

    @property
    def predicts_risk(self) -> bool:
        """Whether the model has seen failures, so that it predicts a risk."""
        return self.risk is not None or self.lifetime is not None

    @property
    def tells_risk(self) -> bool:
        """Whether predictions contain a risk."""
        return self.predicts_risk and "risk" not in self.withheld

    @property
    def without_skill(self) -> str:
        """Why a model that was activated by force has no skill; empty for any other."""
        return "; ".join(map(str, self.unproven.values()))

    def predict(self, features: Floats) -> Predictions:
        """Predicts from features[row, column] with the columns of spec.names. Raises TreesError for another width."""
        risk = rul = quantiles = tail = None
        if self.risk is not None and self.risk_calibration is not None and "risk" not in self.withheld:
            risk = self.risk_calibration(self.risk(features))
        if self.rul is not None and self.interval_calibration is not None and "rul" not in self.withheld:
            rul = np.minimum(np.maximum(self.rul(features), 0.0), self.card.rul_cap)
            if self.age_blend is not None:
                rul = self.age_blend(rul, features[:, 0])
            quantiles = np.minimum(self.interval_calibration(rul), self.card.rul_cap)
            tail = None if self.lower_tail is None else self.lower_tail(quantiles[:, 0])
        if self.lifetime is not None:
            risk, rul, quantiles = self._by_lifetime(self.lifetime, features[:, 0])
            tail = None if rul is None else self.lifetime.quantiles(features[:, 0], TAIL_LEVELS)
        causes = None
        if risk is not None and self.causes is not None:
            causes = risk[:, None] * self.causes(features)
        return Predictions(risk, rul, quantiles, self.anomaly(features), causes, tail)

    def _by_lifetime(self, lifetime: Lifetime, age: Floats) -> tuple[Floats | None, Floats | None, Floats | None]:
        """Returns risk, RUL and its quantiles by age, without those that are withheld."""
        risk, rul, quantiles = lifetime(age)
        told = "rul" not in self.withheld
        return (risk if self.tells_risk else None), (rul if told else None), (quantiles if told else None)

    def contributions(self, row: Floats) -> Floats:
        """Returns the contribution of each feature of a row to the log-odds of failure; zeros without a risk model."""
        if self.lifetime is not None:
            contributions = np.zeros(len(row))
            now, new = self.lifetime(np.array([row[0], 0.0]))[0].clip(1e-9, 1 - 1e-9)
            contributions[0] = np.log(now / (1 - now)) - np.log(new / (1 - new))
            return contributions
        return self.risk.contributions(row) if self.risk is not None else np.zeros(len(row))


def for_serving(model: Model, *, forced: bool, false_alarms: float) -> Model:
    """Returns a model that tells only what it has skill for or, if it was activated by force, everything.

    Args:
        model: The model.
        forced: Whether it was activated by force.
        false_alarms: Allowed false alarms of the anomaly score, for each machine and month.
    """
    lacking = lacking_skill(model.card)
    return replace(
        model,
        withheld={} if forced else lacking,
        unproven=lacking if forced else {},
        anomaly_threshold=model.anomaly.threshold(false_alarms),
    )


def load_model(folder: Path) -> Model:
    """Reads a model from its folder, without executing or unpickling anything.

    Raises:
        CorruptModelError: A file is missing, unreadable, corrupt or of another version. The message names the file.
    """
    path = folder / CARD
    try:
        text = path.read_bytes()
        content = json.loads(text)
        if isinstance(content, dict) and (format_read := content.get("format")) not in READABLE_FORMATS:
            newer = isinstance(format_read, int) and format_read > FORMAT
            raise CorruptModelError(
                f"{path} is of {'a newer' if newer else 'an earlier'} version: its format is {format_read!r}, and this "
                f"version reads {FORMAT}; {'start the newer version, or ' if newer else ''}train the model again"
            )
        card = ModelCard.model_validate(content)
        checksum = _card_checksum(folder)
    except OSError as error:
        raise unreadable_file_error(path, error) from error
    except (ValueError, ValidationError, RecursionError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else error
        raise CorruptModelError(f"{path} is not a model card: {problem}; remove the folder or train again") from error
    if checksum not in (None, hashlib.sha256(text).hexdigest()):
        raise CorruptModelError(
            f"{path} is corrupt: its SHA-256 is not the one in {CARD_CHECKSUM}; remove the folder or train again"
        )
    files = {}
    for name, expected in card.files.items():
        file = folder / name
        if name not in (RISK, RUL, FOREST):
            raise CorruptModelError(f"{path} names {name!r}, which is not a model file; train again")
        try:
            read = file.read_bytes()
        except OSError as error:
            raise unreadable_file_error(file, error) from error
        if hashlib.sha256(read).hexdigest() != expected:
            raise CorruptModelError(
                f"{file} is corrupt: its SHA-256 is not the one in {CARD}; remove the folder or train again"
            )
        files[name] = read.decode("utf-8", "replace")
    try:
        return assemble(card, files)
    except (ValueError, IndexError, KeyError, TypeError) as error:  # inconsistent shapes of arrays
        raise CorruptModelError(f"{path} is not consistent: {error}; remove the folder or train again") from error


def _card_checksum(folder: Path) -> str | None:
    """Returns the checksum in the file beside the card, or None for a model of an earlier version.

    Raises OSError or UnicodeDecodeError.
    """
    path = folder / CARD_CHECKSUM
    return path.read_text(encoding="ascii").partition(" ")[0] if path.exists() else None


def assemble(card: ModelCard, files: Mapping[str, str]) -> Model:
    """Builds a model from its card and the texts of its trees. Raises CorruptModelError if they are inconsistent."""
    name = f"model {card.machine_type} {card.version}"
    index = _wear_index(card)
    derived = Derived(index, card.deviations)
    spec = FeatureSpec(card.axis, card.step, tuple(card.sensors), _regimes(card), derived, card.single)
    if index is not None and not len(index.mean) == len(index.weight) == len(index.share) == len(spec.sensors):
        raise CorruptModelError(f"{name}: the wear index has not one weight for each sensor; train it again")
    if list(spec.names) != card.features:
        other = next((each for each in card.features if each not in spec.names), None) or "their order"
        raise CorruptModelError(
            f"{name} was trained on other features than this version computes ({other}); train it again"
        )
    missing = [each for each in _required_files(card) if each not in files]
    if missing:
        raise CorruptModelError(f"{name} lacks its file {missing[0]}; train it again")
    trees = {}
    for each in _required_files(card):
        try:
            trees[each] = Trees(files[each])
        except TreesError as error:
            raise CorruptModelError(f"{name}: {each} contains no valid trees: {error}; train it again") from error
        width = len(card.anomaly.columns) if each == FOREST else len(spec.names)
        if trees[each].width != width:
            raise CorruptModelError(
                f"{name}: {each} was trained on {trees[each].width} features and its card names {width}; train it again"
            )
    anomaly = card.anomaly
    return Model(
        card=card,
        spec=spec,
        risk=trees.get(RISK),
        rul=trees.get(RUL),
        risk_calibration=(
            RiskCalibration(np.array(card.risk.scores), np.array(card.risk.probabilities)) if card.risk else None
        ),
        interval_calibration=(
            IntervalCalibration(
                np.array(card.interval.edges), np.array(card.interval.residuals).reshape(-1, len(LEVELS))
            )
            if card.interval
            else None
        ),
        anomaly=AnomalyModel(
            np.array(anomaly.columns, dtype=np.intp),
            np.array(anomaly.mean),
            np.array(anomaly.scale),
            np.array(anomaly.components).reshape(-1, len(anomaly.columns)),
            trees[FOREST],
            np.array(anomaly.distances),
            np.array(anomaly.paths),
            np.array(anomaly.greater),
            _held_out_part(anomaly),
        ),
        age_blend=_age_blend(card),
        causes=_causes(card),
        lifetime=_lifetime(card),
        lower_tail=_lower_tail(card),
    )


def _lower_tail(card: ModelCard) -> LowerTail | None:
    part = card.interval.tail if card.interval else None
    if part is None:
        return None
    if not (LEVELS[0] <= part.level <= 1 and part.mean > 0 and part.lives >= 1):
        raise CorruptModelError(
            f"model {card.machine_type} {card.version}: the lower tail of its interval is invalid; train it again"
        )
    return LowerTail(part.level, part.mean, part.lives)


def _lifetime(card: ModelCard) -> Lifetime | None:
    part = card.lifetime
    if part is None:
        return None
    shapes, scales = np.array(part.shapes), np.array(part.scales)
    if not (len(shapes) == len(scales) > 0 and (shapes > 0).all() and (scales > 0).all()):
        raise CorruptModelError(
            f"model {card.machine_type} {card.version}: its distribution of the life is invalid; train it again"
        )
    return Lifetime(shapes, scales, card.horizon, card.rul_cap)


def _causes(card: ModelCard) -> CauseShares | None:
    part = card.causes
    if part is None:
        return None
    shape = len(part.modes), len(part.columns)
    if not (len(part.mean) == len(part.scale) == shape[1] and max(part.columns, default=0) < len(card.features)):
        raise CorruptModelError(
            f"model {card.machine_type} {card.version}: its failure modes do not fit its features; train it again"
        )
    return CauseShares(
        tuple(part.modes),
        np.array(part.columns, dtype=np.intp),
        np.array(part.mean),
        np.array(part.scale),
        np.array(part.coefficients).reshape(shape),
        np.array(part.intercepts).reshape(shape[0]),
    )


def _held_out_part(anomaly: AnomalyPart) -> HeldOutScores | None:
    """Returns the calibration of the anomaly score on held-out time; None for a model of an earlier version."""
    part = anomaly.held_out
    if part is None:
        return None
    return HeldOutScores(
        np.array(part.variances),
        np.array(part.shares),
        np.array(part.quantiles).reshape(3, -1),
        np.array(part.tails).reshape(3, 2),
        np.array(part.surprises),
        np.array(part.alarm_surprises),
        np.array(part.alarms_a_month),
    )


def _required_files(card: ModelCard) -> list[str]:
    """Returns the names of the files that a model of this kind consists of, besides the card."""
    if card.lifetime is not None:
        return [FOREST]
    return {"rul": [RISK, RUL, FOREST], "classification": [RISK, FOREST], "anomaly": [FOREST]}[card.kind]


def _regimes(card: ModelCard) -> Regimes | None:
    """Returns the regimes in the card, or None if there is only one."""
    part = card.regimes
    if part is None:
        return None
    deviation = [[np.inf if each is None else each for each in row] for row in part.deviation]
    return Regimes(
        tuple(part.columns),
        np.array(part.centers),
        np.array(part.scale),
        tuple(part.sensors),
        np.array(part.mean),
        np.array(deviation),
    )


def _wear_index(card: ModelCard) -> WearIndex | None:
    part = card.wear_index
    return None if part is None else WearIndex(np.array(part.mean), np.array(part.weight), np.array(part.share))


def _age_blend(card: ModelCard) -> AgeBlend | None:
    part = card.age_blend
    return None if part is None else AgeBlend(part.weight, np.array(part.ages), np.array(part.left))
