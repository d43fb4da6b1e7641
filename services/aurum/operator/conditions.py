"""The status of a resource: Accepted, Programmed, Converged and RolledBack, each with its reason (GEP-713)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aurum.operator.cluster_snapshot import Pod, Report, Resource
from aurum.operator.merging import PolicyRejected
from aurum.operator.resources import RolloutSpec
from aurum.operator.rollout import Rollout, rfc3339
from aurum.runtime.policy.document import PlatformPolicyDocument

_MAX_LAGGARDS = 10
_MAX_MESSAGE = 1000  # characters


@dataclass(frozen=True, slots=True)
class PolicyState:
    """The state of a resource, from which its status is derived.

    Attributes:
        resource: The resource.
        refusal: Why it is not accepted, or None.
        targets: Description of its targets.
        programmed: Whether the ConfigMaps of all its services contain its present generation.
        in_force: Generation that applies where the present one does not, or None.
        pods: The pods that it applies to.
        exposed: Those of them that should have its present generation.
        reports: Reports of the pods, by uid.
        desired: Documents that the pods should have, by uid.
        rollout: Its rollout, or None.
        rollout_spec: The spec of the rollout, or None.
        shadow: Counts of a policy in shadow mode, or None.
        blocked: Why its documents cannot be written, or an empty string.
        untouched: Why pods cannot be annotated, by uid.
        notice: A further remark on its documents.
    """

    resource: Resource
    refusal: PolicyRejected | None
    targets: str
    programmed: bool
    in_force: int | None
    pods: tuple[Pod, ...]
    exposed: tuple[Pod, ...]
    reports: Mapping[str, Report] = field(default_factory=dict)
    desired: Mapping[str, PlatformPolicyDocument] = field(default_factory=dict)
    rollout: Rollout | None = None
    rollout_spec: RolloutSpec | None = None
    shadow: dict[str, int] | None = None
    blocked: str = ""
    untouched: Mapping[str, str] = field(default_factory=dict)
    notice: str = ""

    @property
    def complete(self) -> bool:
        """Whether the present generation is meant for every pod."""
        return self.refusal is None and (self.rollout is None or self.rollout.state == "Complete")

    def has_generation(self, pod: Pod) -> bool:
        """Returns whether a pod has reported that the present generation is in force."""
        report = self.reports.get(pod.uid)
        return report is not None and (self.resource.uid, self.resource.generation) in report.sources

    def missing_reason(self, pod: Pod) -> tuple[str, bool]:
        """Returns why a pod does not have the present generation, and whether it refused it."""
        why, refuses = self._missing_reason(pod)
        if pod.uid in self.untouched and not refuses:
            why += f"; it cannot be annotated: {self.untouched[pod.uid]}"
        return why, refuses

    def _missing_reason(self, pod: Pod) -> tuple[str, bool]:
        report, desired = self.reports.get(pod.uid), self.desired.get(pod.uid)
        if report is None:
            return "has not been asked yet", False
        if report.problem:
            return report.problem, False
        if report.refused and desired and report.refused_generation == desired.generation:
            return f"refused: {report.refused}", True
        return f"still has generation {report.generation} of its document", False


def status_of(state: PolicyState, now: float) -> dict[str, Any]:
    """Returns the status. A condition whose state has not changed keeps its time."""
    resource, before = state.resource, state.resource.status
    applied = [pod for pod in state.exposed if state.has_generation(pod)]
    lacking = {pod.name: state.missing_reason(pod) for pod in state.exposed if not state.has_generation(pod)}
    refused = sorted(name for name, (_, refuses) in lacking.items() if refuses)
    status: dict[str, Any] = {
        "observedGeneration": resource.generation,
        "targets": state.targets,
        "converged": f"{len(applied)}/{len(state.pods)}",
        "pods": {
            "total": len(state.pods),
            "applied": len(applied),
            "refused": len(refused),
            "laggards": [
                {"pod": name, "reason": reason[:300]} for name, (reason, _) in sorted(lacking.items())[:_MAX_LAGGARDS]
            ],
        },
    }
    converged = state.complete and state.programmed and not lacking
    conditions = [
        _accepted_condition(state),
        _programmed_condition(state),
        _converged_condition(state, converged, len(applied), refused, lacking),
    ]
    if state.rollout:
        status["rollout"] = state.rollout.to_status(state.rollout_spec, len(state.exposed))
        if state.rollout.state == "RolledBack":
            back = f"generation {state.in_force}" if state.in_force is not None else "what was before it"
            conditions.append(
                ("RolledBack", "True", "GuardBurned", f"{state.rollout.figures}; every pod has {back} again")
            )
    if state.shadow is not None:
        names = ("calls", "openings", "breakerRejections", "limitRejections", "timeouts")
        status["shadow"] = dict(zip(names, state.shadow.values(), strict=True))
    if converged or (state.complete and state.programmed and not state.pods):
        status["lastGood"] = {"generation": resource.generation, "spec": dict(resource.spec)}
    elif last := before.get("lastGood"):
        status["lastGood"] = last
    status["conditions"] = [_dated(condition, resource, now) for condition in conditions]
    return status


_Condition = tuple[str, str, str, str]


def _accepted_condition(state: PolicyState) -> _Condition:
    if state.refusal:
        return "Accepted", "False", state.refusal.reason, state.refusal.message
    return "Accepted", "True", "Accepted", f"it governs {state.targets}"


def _programmed_condition(state: PolicyState) -> _Condition:
    stays = f"; generation {state.in_force} stays" if state.in_force is not None else ""
    if state.refusal:
        return "Programmed", "False", "NotAccepted", f"it has no effect{stays}"
    rollout = state.rollout
    if rollout and rollout.state == "RolledBack":
        behind = f"; the candidate is still in a ConfigMap, for no pod: {state.blocked}" if state.blocked else ""
        return "Programmed", "False", "RolledBack", f"it did harm{stays}{behind}"
    if rollout and rollout.state == "Waiting":
        return "Programmed", "False", "WaitingForRollout", f"another rollout to the same services comes first{stays}"
    if not state.programmed:
        why = f"{state.blocked}; it is tried again{stays}" if state.blocked else "its ConfigMaps are being written"
        return "Programmed", "False", "Pending", why
    if rollout and rollout.state == "Progressing":
        steps = state.rollout_spec.steps if state.rollout_spec else (100,)
        held = f"; held up: {rollout.figures}" if rollout.figures else ""
        return (
            "Programmed",
            "True",
            "RollingOut",
            f"step {min(rollout.step + 1, len(steps))} of {len(steps)}: "
            f"{len(state.exposed)} of {len(state.pods)} pods{held}",
        )
    return "Programmed", "True", "Programmed", f"every service's ConfigMap has it{state.notice}"


def _converged_condition(
    state: PolicyState, converged: bool, applied: int, refused: list[str], lacking: Mapping[str, tuple[str, bool]]
) -> _Condition:
    share = f"{applied}/{len(state.pods)}"
    if converged:
        return "Converged", "True", "Converged", f"{share} pods have it in force"
    if state.refusal:
        return "Converged", "False", "NotAccepted", "it has no effect"
    if refused:
        return "Converged", "False", "Refused", f"{share}; {refused[0]} {lacking[refused[0]][0]}"
    if state.rollout and state.rollout.state != "Complete":
        return "Converged", "False", state.rollout.state, f"{share} pods have it in force"
    if lacking:
        first = min(lacking)
        return "Converged", "False", "Waiting", f"{share}; {first} {lacking[first][0]}"
    return "Converged", "False", "Waiting", f"{share}; {state.blocked or 'its ConfigMaps are being written'}"


def _dated(condition: _Condition, resource: Resource, now: float) -> dict[str, Any]:
    kind, state, reason, message = condition
    before = next((each for each in resource.status.get("conditions", ()) if each["type"] == kind), None)
    same = before is not None and before["status"] == state
    return {
        "type": kind,
        "status": state,
        "observedGeneration": resource.generation,
        "lastTransitionTime": before["lastTransitionTime"] if before and same else rfc3339(now),
        "reason": reason,
        "message": message[:_MAX_MESSAGE],
    }
