"""Derives the desired state from the observed one: the documents, the pods that load them, and the statuses."""

import fnmatch
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import yaml

from aurum.operator.cluster_snapshot import ClusterSnapshot, ConfigMap, Pod, Resource, Workload
from aurum.operator.conditions import PolicyState, status_of
from aurum.operator.merging import MergedRules, Parsed, PolicyRejected, governed, parse_policy
from aurum.operator.resources import RolloutSpec
from aurum.operator.rollout import Rollout, advance_rollout, exposed_pods
from aurum.resilience.policy import PolicyError
from aurum.runtime.policy.document import PlatformPolicyDocument, parse_platform_document
from aurum.runtime.policy.files import CANDIDATE, IN_FORCE

_LONGEST_MESSAGE = 500  # characters


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """The documents of a service.

    Attributes:
        workload: The workload of the service.
        in_force: The stable document.
        candidate: The document of a rollout in progress, or None.
        exposed: Uids of the pods that should load the candidate.
        offered: Whether the ConfigMap contains the candidate of this rollout. Until then it may contain a harmful
            earlier candidate, which no pod may load.
    """

    workload: Workload
    in_force: PlatformPolicyDocument
    candidate: PlatformPolicyDocument | None = None
    exposed: frozenset[str] = frozenset()
    offered: bool = False

    @property
    def data(self) -> dict[str, str]:
        """The content of the ConfigMap."""
        data = {IN_FORCE: as_yaml(self.in_force)}
        if self.candidate:
            data[CANDIDATE] = as_yaml(self.candidate)
        return data

    def document_of(self, pod: Pod) -> PlatformPolicyDocument:
        """Returns the document that a pod should have in force."""
        return self.candidate if self.candidate and pod.uid in self.exposed else self.in_force

    def track_of(self, pod: Pod) -> str:
        """Returns the document that a pod should load: candidate or stable."""
        return "candidate" if self.offered and self.candidate and pod.uid in self.exposed else "stable"

    def awaits_candidate(self, pod: Pod) -> bool:
        """Whether the pod should load a candidate that is not in the ConfigMap yet."""
        return self.candidate is not None and pod.uid in self.exposed and not self.offered


@dataclass(frozen=True, slots=True)
class DesiredState:
    """The desired state.

    Attributes:
        services: Plans by service.
        statuses: Statuses by the uids of the resources.
        standings: Basis of the statuses, by the uids of the resources.
        rollouts: Rollouts by the uids of the resources.
        watched: Resources whose guard must observe the rollout by uid, with the pods that have the new generation in
            force.
        problems: Why the policies of a service cannot change.
    """

    services: Mapping[str, ServicePlan]
    statuses: Mapping[str, dict[str, Any]]
    policy_states: Mapping[str, PolicyState]
    rollouts: Mapping[str, Rollout]
    watched: Mapping[str, tuple[Parsed, tuple[Pod, ...]]]
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _PolicyWork:
    """A resource while the plan is made.

    Attributes:
        resource: The resource.
        current: Its present generation, if that can take effect.
        in_force: The generation that applies to pods outside a rollout.
        refusal: Why the present generation cannot take effect, or None.
        rollout: Its rollout, or None.
        services: The services that it governs.
    """

    resource: Resource
    current: Parsed | None = None
    in_force: Parsed | None = None
    refusal: PolicyRejected | None = None
    rollout: Rollout | None = None
    services: list[str] = field(default_factory=list)


def derive_desired_state(cluster: ClusterSnapshot, rollouts: Mapping[str, Rollout]) -> DesiredState:
    """Derives the desired state.

    Args:
        cluster: The observed state.
        rollouts: Known rollouts by uid. They may be more recent than the statuses of the resources, which are written
            late.
    """
    policies = _accept_policies(cluster)
    _advance_rollouts(cluster, policies, rollouts)
    stable = _merge_rules(cluster, [policy.in_force for policy in policies])
    trying = {
        service: policy
        for policy in policies
        if policy.rollout and policy.rollout.state == "Progressing"
        for service in policy.services
    }
    candidate = (
        _merge_rules(cluster, [policy.current if policy in trying.values() else policy.in_force for policy in policies])
        if trying
        else stable
    )
    services: dict[str, ServicePlan] = {}
    problems: list[str] = []
    unmerged: dict[str, str] = {}
    for service, workload in sorted(cluster.workloads.items()):
        try:
            if cluster.held:
                raise PolicyRejected("Pending", cluster.problem)
            services[service] = _service_plan(cluster, workload, stable, candidate, trying.get(service))
        except PolicyRejected as problem:  # unreadable defaults, or defaults that conflict with resources
            unmerged[service] = problem.message
            problems.append(f"the policies of {service} stay as they are: {problem.message}")
            if kept := _present_plan(cluster, workload, trying.get(service)):
                services[service] = kept
    return _derive_statuses(cluster, policies, services, unmerged, tuple(problems))


def rules_in_force(cluster: ClusterSnapshot) -> MergedRules:
    """Returns the merged rules of the accepted resources, ignoring rollouts."""
    return _merge_rules(cluster, [policy.in_force for policy in _accept_policies(cluster)])


def refusals(cluster: ClusterSnapshot) -> dict[str, PolicyRejected]:
    """Returns why resources cannot take effect, by their uids."""
    return {policy.resource.uid: policy.refusal for policy in _accept_policies(cluster) if policy.refusal}


@lru_cache(maxsize=16)  # two documents per service; those of a large plant take megabytes
def as_yaml(document: PlatformPolicyDocument) -> str:
    """Returns a document as it is stored in a ConfigMap. Default values are omitted."""
    content = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml.safe_dump(content, sort_keys=False, width=120)


def content_hash(data: Mapping[str, str]) -> str:
    """Returns a hash that identifies the content of a ConfigMap."""
    return hashlib.sha256("\0".join(f"{name}\0{data[name]}" for name in sorted(data)).encode()).hexdigest()[:16]


def _accept_policies(cluster: ClusterSnapshot) -> list[_PolicyWork]:
    """Returns every resource, the oldest first, with the generation that can take effect beside older resources."""
    rules = MergedRules(cluster.defaults)
    policies = []
    for resource in sorted(cluster.resources, key=lambda each: each.age):
        policy = _PolicyWork(resource)
        try:
            policy.current = _parse_spec(resource, resource.generation, resource.spec, cluster)
            rules.add_policy(policy.current)
            policy.in_force = policy.current
        except PolicyRejected as refusal:
            policy.current = None
            policy.refusal = refusal
            if last := _parse_last_good(cluster, resource):
                try:
                    rules.add_policy(last)
                    policy.in_force = last
                except PolicyRejected:
                    pass  # an older policy has taken its place; the condition explains the present generation
        policy.services = governed(policy.current or policy.in_force, cluster.workloads) if policy.in_force else []
        policies.append(policy)
    return policies


def _parse_spec(resource: Resource, generation: int, spec: Mapping[str, Any], cluster: ClusterSnapshot) -> Parsed:
    """Parses a spec. It raises only PolicyRejected, so that one unreadable resource does not stop the others."""
    try:
        return parse_policy(resource, generation, spec, cluster.workloads)
    except PolicyRejected:
        raise
    except Exception as error:
        raise PolicyRejected("Invalid", f"it cannot be understood: {error!r}"[:_LONGEST_MESSAGE]) from error


def _advance_rollouts(
    cluster: ClusterSnapshot, policies: list[_PolicyWork], known_rollouts: Mapping[str, Rollout]
) -> None:
    """Advances each rollout, and starts at most one per service."""
    if not cluster.guarded:
        return  # without a guard, changes apply at once
    busy: set[str] = set()
    waiting: list[_PolicyWork] = []
    for policy in policies:
        spec = _rollout_spec(policy)
        if spec is None:
            continue
        last = _parse_last_good(cluster, policy.resource)
        policy.rollout = _current_rollout(policy.resource, last, known_rollouts)
        match policy.rollout.state:
            case "Progressing":
                policy.rollout = _advance_rollout(cluster, policy, spec, policy.rollout)
            case "Waiting":
                waiting.append(policy)
        if policy.rollout.state == "Progressing":
            busy.update(policy.services)
        if policy.rollout.state != "Complete":
            policy.in_force = last
    for policy in waiting:
        if policy.rollout and not busy & set(policy.services):  # otherwise the harmful one could not be identified
            policy.rollout = replace(policy.rollout, state="Progressing", step=0)
            busy.update(policy.services)


def _current_rollout(resource: Resource, last_good: Parsed | None, known_rollouts: Mapping[str, Rollout]) -> Rollout:
    """Returns the rollout of a resource's generation as far as it has come."""
    rollout = known_rollouts.get(resource.uid) or Rollout.from_status(resource.status)
    if rollout is None or rollout.generation != resource.generation:
        rollout = Rollout(resource.generation)
    if last_good is not None and last_good.generation == resource.generation:
        rollout = replace(rollout, state="Complete")
    return rollout


def _advance_rollout(cluster: ClusterSnapshot, policy: _PolicyWork, spec: RolloutSpec, before: Rollout) -> Rollout:
    resource, percent = policy.resource, _exposed_percent(spec, before.step)
    exposed = [
        pod
        for service in policy.services
        for pod in cluster.pods_of(service)
        if pod.uid in exposed_pods(resource.uid, cluster.pods_of(service), percent)
    ]
    reports = [(pod.service, cluster.reports.get(pod.uid)) for pod in exposed]
    have = [report is not None and (resource.uid, resource.generation) in report.sources for _, report in reports]
    tried = {
        service: document.generation
        for service in policy.services
        if (document := _parse_documents(cluster.config_maps.get(service)).get(CANDIDATE))
    }
    refusals_of_it = [
        report.refused
        for service, report in reports
        if report and report.refused and report.refused_generation == tried.get(service)
    ]
    return advance_rollout(
        before,
        spec,
        cluster.now,
        all_have_it=all(have),
        refused=next(iter(refusals_of_it), None),
        finding=cluster.findings.get(resource.uid),
    )


def _merge_rules(cluster: ClusterSnapshot, parsed: list[Parsed | None]) -> MergedRules:
    """Returns the rules of resources that are compatible. An earlier generation that conflicts is left out."""
    rules = MergedRules(cluster.defaults)
    for generation in parsed:
        if generation is not None:
            try:
                rules.add_policy(generation)
            except PolicyRejected:
                continue  # only a last good generation can conflict with newer ones of other resources
    return rules


def _service_plan(
    cluster: ClusterSnapshot,
    workload: Workload,
    stable: MergedRules,
    candidate: MergedRules,
    trying: _PolicyWork | None,
) -> ServicePlan:
    service, uid = workload.service, f"{cluster.namespace}/{workload.name}"
    before = cluster.config_maps.get(service)
    documents = _parse_documents(before)
    reported = {
        (report.generation, report.hash)
        for pod in cluster.pods_of(service)
        if (report := cluster.reports.get(pod.uid)) and report.hash
    }
    newest = max([0, *(document.generation for document in documents.values()), *(number for number, _ in reported)])
    in_force = _with_generation_number(stable.document(service, uid), documents, reported, newest + 1)
    if trying is None or (spec := _rollout_spec(trying)) is None or trying.rollout is None:
        return ServicePlan(workload, in_force)
    tried = _with_generation_number(
        candidate.document(service, uid), documents, reported, max(newest, in_force.generation) + 1
    )
    pods = cluster.pods_of(service)
    return ServicePlan(
        workload, in_force, tried, _exposed_uids(trying, spec, pods), _contains_candidate(documents, trying)
    )


def _present_plan(cluster: ClusterSnapshot, workload: Workload, trying: _PolicyWork | None) -> ServicePlan | None:
    """Returns the present documents of a service.

    Only a rollout that has advanced or was rolled back is still propagated to its pods.
    """
    documents = _parse_documents(cluster.config_maps.get(workload.service))
    if IN_FORCE not in documents:
        return None
    if trying is None or CANDIDATE not in documents or (spec := _rollout_spec(trying)) is None:
        return ServicePlan(workload, documents[IN_FORCE])
    exposed = _exposed_uids(trying, spec, cluster.pods_of(workload.service))
    return ServicePlan(
        workload, documents[IN_FORCE], documents[CANDIDATE], exposed, _contains_candidate(documents, trying)
    )


def _contains_candidate(documents: Mapping[str, PlatformPolicyDocument], trying: _PolicyWork) -> bool:
    """Whether the ConfigMap contains the generation of the rollout as a candidate."""
    tried, sources = trying.resource, documents[CANDIDATE].sources if CANDIDATE in documents else ()
    return any((source.uid, source.generation) == (tried.uid, tried.generation) for source in sources)


def _exposed_uids(trying: _PolicyWork, spec: RolloutSpec, pods: list[Pod]) -> frozenset[str]:
    """Returns the pods of a service that should load the candidate."""
    step = trying.rollout.step if trying.rollout else 0
    return frozenset(exposed_pods(trying.resource.uid, pods, _exposed_percent(spec, step)))


def _exposed_percent(spec: RolloutSpec, step: int) -> int:
    return spec.steps[min(step, len(spec.steps) - 1)]


def _with_generation_number(
    document: PlatformPolicyDocument,
    documents: Mapping[str, PlatformPolicyDocument],
    reported: Collection[tuple[int, str]],
    generation: int,
) -> PlatformPolicyDocument:
    """Returns the document with a generation number.

    If the same content is already in the ConfigMap or in a pod, it keeps that number. Otherwise it gets the given one.
    """
    for present in documents.values():
        if present.model_copy(update={"generation": 0}) == document:
            return present
    for number, content in sorted(reported, reverse=True):
        again = document.model_copy(update={"generation": number})
        if again.content_hash == content:
            return again
    return document.model_copy(update={"generation": generation})


def _parse_documents(config_map: ConfigMap | None) -> dict[str, PlatformPolicyDocument]:
    """Returns the readable documents in a ConfigMap, which somebody may have edited."""
    texts = config_map.data if config_map else {}
    parsed = {name: _parse_document(text) for name, text in texts.items() if name in (IN_FORCE, CANDIDATE)}
    return {name: document for name, document in parsed.items() if document is not None}


@lru_cache(maxsize=16)  # two documents per service; those of a large plant take megabytes
def _parse_document(text: str) -> PlatformPolicyDocument | None:
    try:
        return parse_platform_document(text, IN_FORCE)
    except PolicyError:
        return None  # it is written again


def _derive_statuses(
    cluster: ClusterSnapshot,
    policies: list[_PolicyWork],
    services: dict[str, ServicePlan],
    unmerged: Mapping[str, str],
    problems: tuple[str, ...],
) -> DesiredState:
    statuses, policy_states, rollouts, watched = {}, {}, {}, {}
    held = {service: _sources_in(config_map) for service, config_map in cluster.config_maps.items()}
    for policy in policies:
        resource, spec = policy.resource, _rollout_spec(policy)
        pods = [pod for service in policy.services for pod in cluster.pods_of(service)]
        exposed = pods
        if policy.rollout:
            rollouts[resource.uid] = policy.rollout
        if policy.rollout and policy.rollout.state != "Complete":
            progresses = policy.rollout.state == "Progressing"
            exposed = [
                pod
                for pod in pods
                if progresses and pod.service in services and pod.uid in services[pod.service].exposed
            ]
        state = PolicyState(
            resource=resource,
            refusal=policy.refusal,
            targets=_format_targets(policy.current or policy.in_force, resource),
            programmed=policy.current is not None
            and all(
                service in services and (resource.uid, resource.generation) in held.get(service, ())
                for service in policy.services
            ),
            in_force=policy.in_force.generation if policy.in_force else None,
            pods=tuple(pods),
            exposed=tuple(exposed),
            reports={pod.uid: cluster.reports[pod.uid] for pod in pods if pod.uid in cluster.reports},
            desired={pod.uid: services[pod.service].document_of(pod) for pod in pods if pod.service in services},
            rollout=policy.rollout,
            rollout_spec=spec,
            shadow=_shadow_counts(cluster, policy, pods),
            blocked=_blocked_reason(cluster, policy, unmerged),
            untouched={pod.uid: cluster.untouched[pod.uid] for pod in pods if pod.uid in cluster.untouched},
            notice=f"; {cluster.problem}, and its last good policies stay" if cluster.problem else "",
        )
        if policy.rollout and policy.rollout.state == "Progressing" and policy.current:
            watched[resource.uid] = (policy.current, tuple(pod for pod in exposed if state.has_generation(pod)))
        policy_states[resource.uid] = state
        statuses[resource.uid] = status_of(state, cluster.now)
    return DesiredState(services, statuses, policy_states, rollouts, watched, problems)


def _blocked_reason(cluster: ClusterSnapshot, policy: _PolicyWork, unmerged: Mapping[str, str]) -> str:
    """Returns why the documents of a resource cannot be written, or an empty string."""
    for service in policy.services:
        if service in unmerged:
            return f"the policies of {service} stay as they are: {unmerged[service]}"
        if service in cluster.refused:
            return f"the ConfigMap of {service} is refused, {cluster.refused[service]}"
    return ""


def _sources_in(config_map: ConfigMap) -> set[tuple[str, int]]:
    """Returns uid and generation of each resource in the documents of a ConfigMap."""
    return {
        (source.uid, source.generation)
        for document in _parse_documents(config_map).values()
        for source in document.sources
    }


def _rollout_spec(policy: _PolicyWork) -> RolloutSpec | None:
    return policy.current.rollout if policy.current else None


def _parse_last_good(cluster: ClusterSnapshot, resource: Resource) -> Parsed | None:
    """Returns the generation that last reached every pod, if it can still be parsed."""
    last = resource.status.get("lastGood")
    if not last:
        return None
    try:
        return _parse_spec(resource, last["generation"], last["spec"], cluster)
    except PolicyRejected:
        return None


def _format_targets(parsed: Parsed | None, resource: Resource) -> str:
    if parsed is None:
        refs = resource.spec.get("targetRefs")
        named = (
            [ref.get("service") for ref in refs if isinstance(ref, Mapping)] if isinstance(refs, list | tuple) else []
        )
        return ", ".join(str(name) for name in named)[:_LONGEST_MESSAGE]
    names = [str(target) for target in parsed.targets] or list(parsed.services) or ["all services"]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _shadow_counts(cluster: ClusterSnapshot, policy: _PolicyWork, pods: list[Pod]) -> dict[str, int] | None:
    """Returns what a policy in shadow mode would have done according to the pods, or None for other policies."""
    if policy.current is None or not policy.current.shadow:
        return None
    counts = {"calls": 0, "opening": 0, "breaker_rejection": 0, "limit_rejection": 0, "timeout": 0}
    for pod in pods:
        report = cluster.reports.get(pod.uid)
        for name, decisions in (report.shadows if report else {}).items():
            client, server, method = name.split("/")
            if any(
                target.server == server
                and target.client in (None, client)
                and fnmatch.fnmatchcase(target.method or "*", method)
                for target in policy.current.targets
            ):
                for key in counts:
                    counts[key] += decisions.get(key, 0)
    return counts
