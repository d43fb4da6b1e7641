"""Progressive rollout: which pods get a new generation, when the next step begins, and when it is rolled back."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from aurum.operator.cluster_snapshot import GuardFinding, Pod
from aurum.operator.resources import RolloutSpec

State = Literal["Waiting", "Progressing", "Complete", "RolledBack"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """The progress of one generation.

    Attributes:
        generation: Generation of the resource.
        state: Waiting, Progressing, Complete or RolledBack.
        step: Index into the steps of the spec.
        since: When every pod of the step had the generation, in seconds since 1970.
        figures: Last finding of the guard, for a rollout that has ended or is held up.
    """

    generation: int
    state: State = "Waiting"
    step: int = 0
    since: float | None = None
    figures: str = ""

    @classmethod
    def from_status(cls, status: Mapping[str, Any]) -> "Rollout | None":
        """Reads the rollout from a resource's status. Returns None if there is no valid one."""
        stated = status.get("rollout")
        if not isinstance(stated, Mapping) or stated.get("state") not in get_args(State):
            return None
        generation, step = stated.get("generation"), stated.get("step")
        if type(generation) is not int or type(step) is not int or step < 0:
            return None
        return cls(generation, stated["state"], step, _parse_time(stated.get("since")), str(stated.get("figures", "")))

    def to_status(self, spec: RolloutSpec | None, exposed: int) -> dict[str, Any]:
        """Returns the rollout as it is shown in the resource's status."""
        steps = spec.steps if spec else (100,)
        content: dict[str, Any] = {
            "generation": self.generation,
            "state": self.state,
            "step": self.step,
            "percent": 0 if self.state in ("Waiting", "RolledBack") else steps[min(self.step, len(steps) - 1)],
            "exposed": exposed,
        }
        if self.since is not None and self.state == "Progressing":
            content["since"] = rfc3339(self.since)
        if self.figures:
            content["figures"] = self.figures
        return content


def exposed_pods(uid: str, pods: Iterable[Pod], percent: int) -> set[str]:
    """Returns the uids of the pods that have the new generation at a step.

    The number is the given percentage, rounded up. The choice is stable and does not depend on the order of the pods.
    """
    ordered = sorted(pods, key=lambda pod: hashlib.sha256(f"{uid}/{pod.name}".encode()).digest())
    return {pod.uid for pod in ordered[: math.ceil(len(ordered) * percent / 100)]}


def advance_rollout(
    rollout: Rollout,
    spec: RolloutSpec,
    now: float,
    *,
    all_have_it: bool,
    refused: str | None,
    finding: GuardFinding | None,
) -> Rollout:
    """Returns the next state of a rollout in progress.

    Args:
        rollout: The present state.
        spec: Steps, pause and guard of the rollout.
        now: Seconds since 1970.
        all_have_it: Whether every pod of the step has the generation in force.
        refused: Why a pod refuses it, or None.
        finding: Finding of the guard, or None if there is none yet.
    """
    harm = f"a pod refused it: {refused}"[:500] if refused else finding.figures if finding and finding.burns else ""
    if harm:
        return replace(rollout, state="RolledBack", figures=harm)
    if not all_have_it:
        return replace(rollout, since=None)
    since = rollout.since if rollout.since is not None else now
    if now - since < spec.pause:
        return replace(rollout, since=since)
    if finding is None or finding.burns is None:  # a rollout does not advance without figures
        return replace(rollout, since=since, figures=finding.figures if finding else "the guard has not looked yet")
    if rollout.step + 1 < len(spec.steps):
        return replace(rollout, step=rollout.step + 1, since=None, figures="")
    return replace(rollout, state="Complete", figures=finding.figures)


def _parse_time(moment: Any) -> float | None:
    try:
        return datetime.fromisoformat(moment).timestamp() if moment else None
    except (TypeError, ValueError, OverflowError):
        return None


def rfc3339(seconds: float) -> str:
    """Formats a time as the API server does (RFC 3339, UTC)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
