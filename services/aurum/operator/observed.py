"""What the operator sees: resources, workloads, pods and what pods report. Plain data, from which all else follows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aurum.resilience.policy import PolicyDocument

# Annotations of pods. The first is touched so that the kubelet looks at the pod's volumes at once; the second is
# mounted into it and says which of two documents it is to load.
TOUCHED = "aurumai.io/policy"
TRACK = "aurumai.io/policy-track"
# An annotation of ConfigMaps: what the operator wrote, so that it notices what somebody else did.
CONTENT = "aurumai.io/content"


@dataclass(frozen=True, slots=True)
class Resource:
    """A ResiliencePolicy or TelemetryPolicy, as the API server has it."""

    kind: str
    name: str
    uid: str
    generation: int
    created: str
    spec: Mapping[str, Any]
    status: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Resource":
        """From the object's JSON. Raises KeyError, TypeError or ValueError for what is none. Of a status that somebody
        else has written, what cannot be used is left out."""
        metadata = body["metadata"]
        return cls(
            str(body["kind"]),
            str(metadata["name"]),
            str(metadata["uid"]),
            int(metadata.get("generation", 1)),
            str(metadata.get("creationTimestamp", "")),
            dict(body.get("spec") or {}),
            _status(body.get("status")),
        )

    @property
    def age(self) -> tuple[str, str, str]:
        """Sorts the oldest first."""
        return self.created, self.kind, self.name


_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")  # texts that each condition has


def _status(said: Any) -> Mapping[str, Any]:
    """A status, without conditions, last good generation and rollout that are not as the operator writes them."""
    if not isinstance(said, Mapping):
        return {}
    status = dict(said)
    if "conditions" in status:
        told = status["conditions"]
        conditions = [each for each in told if _texts(each, _CONDITION)] if isinstance(told, list) else []
        status["conditions"] = conditions
    last = status.get("lastGood")
    if last is not None and not (
        isinstance(last, Mapping) and type(last.get("generation")) is int and isinstance(last.get("spec"), Mapping)
    ):
        del status["lastGood"]
    return status


def _texts(content: Any, names: tuple[str, ...]) -> bool:
    return isinstance(content, Mapping) and all(isinstance(content.get(name), str) for name in names)


@dataclass(frozen=True, slots=True)
class Workload:
    """The Deployment or StatefulSet of a service. labels: of its Kubernetes Service."""

    service: str
    api_version: str
    kind: str
    name: str
    uid: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def config_map(self) -> str:
        """The name of the ConfigMap with its policy document."""
        return f"{self.name}-policy"


@dataclass(frozen=True, slots=True)
class Pod:
    """A running pod. address: host:port of its admin server."""

    name: str
    uid: str
    service: str
    address: str
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """A ConfigMap with a policy document."""

    name: str
    data: Mapping[str, str]
    content: str | None
    """What its annotation says that the operator wrote."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a pod says of its policies. problem: why it says nothing. at: when, in seconds of the monotonic clock."""

    at: float
    problem: str | None = None
    hash: str | None = None
    generation: int = 0
    sources: frozenset[tuple[str, int]] = frozenset()
    """uid and generation of each resource in the document that is in force."""
    refused: str | None = None
    """Why the latest document was refused."""
    refused_generation: int | None = None
    shadows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By target: calls, and what a policy in shadow mode would have done."""

    @classmethod
    def of(cls, answer: Mapping[str, Any], at: float) -> "Report":
        """From a pod's answer to /policy. Raises KeyError or TypeError for anything else."""
        refused = answer.get("refused") or {}
        return cls(
            at,
            None,
            answer["policy"]["hash"],
            answer["policy"]["generation"],
            frozenset((source["uid"], source["generation"]) for source in answer.get("sources", ())),
            refused.get("reason"),
            refused.get("generation"),
            {each["target"]: {"calls": each["calls"], **each["decisions"]} for each in answer.get("shadows", ())},
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rollout's guard found. burns: it does harm; None while that cannot be told."""

    burns: bool | None
    figures: str


@dataclass(frozen=True, slots=True)
class World:
    """All of it. config_maps, workloads: by service. reports: by the pods' uids. findings: by the resources' uids.
    now: seconds since 1970. guarded: whether there is a Prometheus to watch rollouts in. refused: why the ConfigMap of
    a service cannot be written. untouched: why a pod cannot be annotated, by uid. problem: why the chart's policies
    cannot be used. held: whether they never could, so that documents stay as they are."""

    namespace: str
    resources: tuple[Resource, ...]
    workloads: Mapping[str, Workload]
    pods: tuple[Pod, ...]
    config_maps: Mapping[str, ConfigMap]
    defaults: PolicyDocument
    reports: Mapping[str, Report]
    findings: Mapping[str, Finding]
    now: float
    guarded: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    untouched: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    held: bool = False

    def pods_of(self, service: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.service == service]
