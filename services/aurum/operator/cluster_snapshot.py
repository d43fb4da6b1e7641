"""The observed state: resources, workloads, pods and their reports, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aurum.runtime.policy.document import PlatformPolicyDocument

# Annotations of pods. Changing the first makes the kubelet update the pod's volumes at once. The second is mounted
# into the pod and selects the document that it loads.
TOUCHED = "aurumai.io/policy"
TRACK = "aurumai.io/policy-track"
# Annotation of pods that identifies the credentials that they should have read, and makes the kubelet update them
CREDENTIALS = "aurumai.io/credentials"
# Annotation of ConfigMaps: hash of what the operator wrote, to detect changes by others
CONTENT = "aurumai.io/content"


@dataclass(frozen=True, slots=True)
class Resource:
    """A ResiliencePolicy or TelemetryPolicy as stored by the API server."""

    kind: str
    name: str
    uid: str
    generation: int
    created: str
    spec: Mapping[str, Any]
    status: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Resource":
        """Converts the JSON of an object. Raises KeyError, TypeError or ValueError if it is invalid.

        Invalid parts of a status, which others may have written, are left out.
        """
        metadata = body["metadata"]
        return cls(
            str(body["kind"]),
            str(metadata["name"]),
            str(metadata["uid"]),
            int(metadata.get("generation", 1)),
            str(metadata.get("creationTimestamp", "")),
            dict(body.get("spec") or {}),
            _valid_status(body.get("status")),
        )

    @property
    def age(self) -> tuple[str, str, str]:
        """A sort key that puts the oldest resource first."""
        return self.created, self.kind, self.name


_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")  # text fields of each condition


def _valid_status(content: Any) -> Mapping[str, Any]:
    """Returns the status without conditions and last good generation that are malformed."""
    if not isinstance(content, Mapping):
        return {}
    status = dict(content)
    if "conditions" in status:
        stated = status["conditions"]
        conditions = (
            [condition for condition in stated if _has_texts(condition, _CONDITION)] if isinstance(stated, list) else []
        )
        status["conditions"] = conditions
    last = status.get("lastGood")
    if last is not None and not (
        isinstance(last, Mapping) and type(last.get("generation")) is int and isinstance(last.get("spec"), Mapping)
    ):
        del status["lastGood"]
    return status


def _has_texts(content: Any, names: tuple[str, ...]) -> bool:
    return isinstance(content, Mapping) and all(isinstance(content.get(name), str) for name in names)


@dataclass(frozen=True, slots=True)
class Workload:
    """The Deployment or StatefulSet of a service. labels: Labels of its Kubernetes Service."""

    service: str
    api_version: str
    kind: str
    name: str
    uid: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def config_map(self) -> str:
        """Name of the ConfigMap with its policy document."""
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
    """The hash in its annotation, which identifies what the operator wrote."""


@dataclass(frozen=True, slots=True)
class Report:
    """The policies that a pod reports.

    Attributes:
        at: Time of the report, in seconds of the monotonic clock.
        problem: Why there is no report, or None.
        hash: Hash of the document in force.
        generation: Generation of the document in force.
    """

    at: float
    problem: str | None = None
    hash: str | None = None
    generation: int = 0
    sources: frozenset[tuple[str, int]] = frozenset()
    """uid and generation of each resource in the document in force."""
    refused: str | None = None
    """Why the latest document was refused."""
    refused_generation: int | None = None
    shadows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By target: calls, and what a policy in shadow mode would have done."""

    @classmethod
    def from_response(cls, answer: Mapping[str, Any], at: float) -> "Report":
        """Converts a pod's response to /policy. Raises ValueError if it is invalid."""
        try:
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
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no policy state: {error!r}") from error


@dataclass(frozen=True, slots=True)
class GuardFinding:
    """The finding of a rollout's guard. burns: Whether the rollout does harm, or None if that is unknown."""

    burns: bool | None
    figures: str


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """The complete observed state.

    Attributes:
        namespace: Namespace of the release.
        resources: All policies.
        workloads: Workloads by service.
        pods: Running pods.
        config_maps: ConfigMaps with documents, by service.
        defaults: Policies of the chart.
        reports: Reports by the uids of the pods.
        findings: Findings of guards by the uids of the resources.
        now: Seconds since 1970.
        guarded: Whether a Prometheus is available to guard rollouts.
        refused: Why ConfigMaps cannot be written, by service.
        untouched: Why pods cannot be annotated, by uid.
        problem: Why the chart's policies cannot be used, or an empty string.
        held: Whether they could never be used, so that all documents stay unchanged.
    """

    namespace: str
    resources: tuple[Resource, ...]
    workloads: Mapping[str, Workload]
    pods: tuple[Pod, ...]
    config_maps: Mapping[str, ConfigMap]
    defaults: PlatformPolicyDocument
    reports: Mapping[str, Report]
    findings: Mapping[str, GuardFinding]
    now: float
    guarded: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    untouched: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    held: bool = False

    def pods_of(self, service: str) -> list[Pod]:
        """Returns the pods of a service."""
        return [pod for pod in self.pods if pod.service == service]
