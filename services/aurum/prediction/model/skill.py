"""Which predictions of a model have skill, by the evidence in its card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aurum.prediction.model.card import Evaluation, ModelCard, Quantity, Skill

QUANTITIES: tuple[Quantity, ...] = ("risk", "rul")
NAMES: Mapping[Quantity, str] = {"risk": "risk", "rul": "remaining useful life"}


@dataclass(frozen=True, slots=True)
class UnknownReason:
    """Why something is unknown.

    Attributes:
        code: Stable name for programs.
        text: One sentence in English.
        parameters: The values in the text.
    """

    code: str
    text: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Returns the text."""
        return self.text


def deciding_evaluation(card: ModelCard) -> Evaluation | None:
    """Returns the evaluation that decides on skill: on later lives, if there are such, or else on unseen machines.

    Returns None if skill was not measured: the model has no such predictions, or is of an earlier version.
    """
    evaluation = card.later_lives or card.evaluation
    return evaluation if evaluation is not None and evaluation.skill is not None else None


def lacking_skill(card: ModelCard) -> dict[Quantity, UnknownReason]:
    """Returns the quantities that a model predicts without skill, each with the reason.

    A quantity has skill if the lower end of the interval of its skill is above 0 for every baseline. A quantity whose
    skill was not measured is not lacking.
    """
    evaluation = deciding_evaluation(card)
    if evaluation is None:
        return {}
    lacking: dict[Quantity, UnknownReason] = {}
    for quantity in QUANTITIES:
        worst = _worst(evaluation.skill or (), quantity)
        if worst is not None and worst.low <= 0:
            lacking[quantity] = UnknownReason(
                "NO_SKILL",
                f"model {card.machine_type} {card.version} has no proven skill for the {NAMES[quantity]}: against the "
                f"baseline ({worst.baseline}) its skill is {worst.skill:.2f} (95 %: {worst.low:.2f} to "
                f"{worst.high:.2f})",
                {
                    "quantity": quantity,
                    "baseline": worst.baseline,
                    "skill": f"{worst.skill:.2f}",
                    "low": f"{worst.low:.2f}",
                    "high": f"{worst.high:.2f}",
                },
            )
    return lacking


def refusal(card: ModelCard) -> str:
    """Returns why a model must not be activated without force; empty if it may.

    It is refused if none of the quantities that it predicts has skill.
    """
    lacking = lacking_skill(card)
    evaluation = deciding_evaluation(card)
    predicted = {each.quantity for each in (evaluation.skill or ())} if evaluation is not None else set()
    return "; ".join(map(str, lacking.values())) if lacking and predicted == set(lacking) else ""


def describe_skill(card: ModelCard) -> list[str]:
    """Returns a line about the skill of each quantity, against its strongest baseline."""
    evaluation = deciding_evaluation(card)
    if evaluation is None:
        return ["skill not measured"] if card.evaluation is not None else []
    lacking = lacking_skill(card)
    lines = []
    for quantity in QUANTITIES:
        worst = _worst(evaluation.skill or (), quantity)
        if worst is not None:
            verdict = "no skill" if quantity in lacking else "skill"
            lines.append(
                f"{NAMES[quantity]}: {verdict} {worst.skill:.2f} (95 %: {worst.low:.2f} to {worst.high:.2f}) against "
                f"{worst.baseline}"
            )
    return lines


def _worst(skills: Sequence[Skill], quantity: Quantity) -> Skill | None:
    """Returns the skill against the baseline that is hardest to beat, or None if the quantity is not predicted."""
    return min((each for each in skills if each.quantity == quantity), key=lambda each: each.low, default=None)
