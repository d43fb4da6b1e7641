"""The rule by which a shadow model is promoted or withdrawn."""

from dataclasses import dataclass
from typing import Literal

from aurum.prediction.learning.comparison import Comparison

_WORSE_RUL = 1.05  # greatest error of the RUL, as a multiple of the champion's
_PATIENCE = 3  # times the least number of failures, after which an undecided comparison ends


@dataclass(frozen=True, slots=True)
class PromotionRule:
    """What a promotion needs.

    Attributes:
        failures: The least number of compared lives that ended in a failure.
        confidence: The least share of resampled machines on which the candidate has skill and is better.
    """

    failures: int = 3
    confidence: float = 0.8


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to a candidate, and why.

    Attributes:
        action: promote it, withdraw it, or wait for more lives.
        reason: The reason, as text.
    """

    action: Literal["promote", "withdraw", "wait"]
    reason: str


def judge(comparison: Comparison | None, rule: PromotionRule) -> Verdict:
    """Applies the rule.

    A candidate waits until enough compared lives have failed. It is promoted if, with enough confidence, it has skill
    and a lower squared error of the risk than the champion, and if its error of the RUL is not more than 5 % greater.
    It is withdrawn if it is worse with the same confidence, or if it is still not better after three times as many
    failures. Otherwise it waits.
    """
    failures = comparison.failures if comparison else 0
    if comparison is None or failures < rule.failures:
        return Verdict("wait", f"{failures} of {rule.failures} failures have been observed since it was trained")
    candidate, champion = comparison.candidate, comparison.champion
    found = _describe(comparison)
    if comparison.skilled < rule.confidence:
        return _withdraw_or_wait(comparison, rule, comparison.skilled, f"it has no reliable skill: {found}")
    if champion is not None:
        if comparison.better < rule.confidence:
            return _withdraw_or_wait(comparison, rule, comparison.better, f"it is not reliably better: {found}")
        if (
            candidate.rul_error is not None
            and champion.rul_error is not None
            and candidate.rul_error > _WORSE_RUL * champion.rul_error
        ):
            return Verdict("withdraw", f"its remaining life is less accurate: {found}")
    return Verdict("promote", f"it is better: {found}" if champion else f"it has skill: {found}")


def _withdraw_or_wait(comparison: Comparison, rule: PromotionRule, share: float, reason: str) -> Verdict:
    over = comparison.failures >= _PATIENCE * rule.failures or share <= 1 - rule.confidence
    return Verdict("withdraw" if over else "wait", reason)


def _describe(comparison: Comparison) -> str:
    candidate, champion = comparison.candidate, comparison.champion
    parts = [f"skill {candidate.skill:.2f}" + (f" against {champion.skill:.2f}" if champion else "")]
    if candidate.rul_error is not None:
        against = f" against {champion.rul_error:.3g}" if champion and champion.rul_error is not None else ""
        parts.append(f"RUL error {candidate.rul_error:.3g}{against}")
    if champion is not None:
        parts.append(f"better on {comparison.better:.0%} of resampled machines")
    return f"{', '.join(parts)}; {comparison.failures} failures in {comparison.lives} lives"
