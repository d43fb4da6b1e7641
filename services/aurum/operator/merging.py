"""Merges resources into one policy document per service, and decides which resource governs each part.

For a call, each part (retry, timeout, …) comes from the most specific policy that has it. The order is: client and
method, then method, then client, then service, then the chart's defaults. If two equally specific policies have the
same part, the older one is accepted and the other is not. A policy that is not accepted has no effect. Its last good
generation stays in force, if there is one.
"""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import ValidationError

from aurum.operator.cluster_snapshot import Resource, Workload
from aurum.operator.inheritance import bound_inherited
from aurum.operator.resources import KINDS, ResiliencePolicySpec, RolloutSpec, TelemetryPolicySpec
from aurum.resilience.durations import format_duration
from aurum.resilience.policy import (
    AdmissionSpec,
    Policy,
    PolicyPart,
    ServerPolicy,
    describe,
)
from aurum.runtime.policy.call_catalog import CALLERS, CALLS
from aurum.runtime.policy.document import PlatformPolicyDocument, PolicySource, TelemetrySpec

_USUAL_DEADLINE = 5.0  # seconds; deadline of a call that no policy mentions
_SERVERS = frozenset(calls.server for calls in CALLS)
_TELEMETRY_FIELDS = ("log_level", "sampling_ratio")


class PolicyTarget(NamedTuple):
    """The calls that a policy governs. A client or method of None stands for any."""

    client: str | None
    server: str
    method: str | None

    def __str__(self) -> str:
        shown = f"{self.client}→{self.server}" if self.client else self.server
        return f"{shown}/{self.method}" if self.method else shown


class PolicyRejected(Exception):  # noqa: N818 - it becomes a condition, with this reason
    """Raised when a resource cannot have an effect. reason: One word for the condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Parsed:
    """The parsed spec of one generation of a resource.

    Attributes:
        resource: The resource.
        generation: Generation of the spec.
        targets: The calls that it governs.
        sections: The policy parts for these calls, by the names of the fields of `Policy`.
        admission: Admission of the services in `services`.
        telemetry: Telemetry of the services in `services`, or of all services if there are none.
        services: Services that admission or telemetry apply to.
        shadow: Whether the policy is in shadow mode.
        rollout: How to roll out a new generation, or None.
    """

    resource: Resource
    generation: int
    targets: tuple[PolicyTarget, ...] = ()
    sections: Mapping[str, PolicyPart] = field(default_factory=dict)
    admission: AdmissionSpec | None = None
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    shadow: bool = False
    rollout: RolloutSpec | None = None

    @property
    def source(self) -> PolicySource:
        """The resource and generation, as documents name them."""
        resource = self.resource
        return PolicySource(kind=resource.kind, name=resource.name, uid=resource.uid, generation=self.generation)


class OwnedPart(NamedTuple):
    """A part of a policy and the resource that it comes from. An owner of None means the defaults."""

    value: Any
    owner: Parsed | None


@dataclass(slots=True)
class Layers:
    """The parts of accepted policies by target. One instance is for enforced policies and one for shadows."""

    calls: dict[PolicyTarget, dict[str, OwnedPart]] = field(default_factory=dict)
    admission: dict[str, OwnedPart] = field(default_factory=dict)

    def places(self, parsed: Parsed) -> Iterable[tuple[dict[Any, OwnedPart], Any, Any, str]]:
        """Yields a place for each part of a policy: mapping, key, part, and a description."""
        for target in parsed.targets:
            layer = self.calls.setdefault(target, {})
            for name, part in parsed.sections.items():
                yield layer, name, part, f"{_camel_case(name)} of {target}"
        if parsed.admission:
            for service in parsed.services:
                yield self.admission, service, parsed.admission, f"admission of {service}"

    def add_parts(self, parsed: Parsed) -> None:
        """Adds a policy's parts. Raises PolicyRejected and adds nothing if an older policy has one of them."""
        places = list(self.places(parsed))
        for mapping, key, _, place in places:
            if key in mapping and (owner := mapping[key].owner):
                raise PolicyRejected("Conflicted", f"{place} is governed by {owner.resource.name}, which is older")
        for mapping, key, part, _ in places:
            mapping[key] = OwnedPart(part, parsed)

    def remove_parts(self, parsed: Parsed) -> None:
        """Removes a policy's parts."""
        for mapping, key, _, _ in self.places(parsed):
            if key in mapping and mapping[key].owner is parsed:
                del mapping[key]


@dataclass(slots=True)
class MergedRules:
    """The combined content of all accepted resources."""

    defaults: PlatformPolicyDocument
    enforced: Layers = field(default_factory=Layers)
    shadows: Layers = field(default_factory=Layers)
    telemetry: dict[tuple[str | None, str], OwnedPart] = field(default_factory=dict)

    def add_policy(self, parsed: Parsed) -> None:
        """Adds a resource. Raises PolicyRejected and adds nothing if it cannot take effect beside the others."""
        if parsed.telemetry:
            self._add_telemetry(parsed)
            return
        layers = self.shadows if parsed.shadow else self.enforced
        layers.add_parts(parsed)
        try:
            self._check_policies(parsed)
        except PolicyRejected:
            layers.remove_parts(parsed)
            raise

    def effective_parts(self, target: PolicyTarget, *, shadow: bool = False) -> dict[str, OwnedPart]:
        """Returns the parts that govern a target by name, each with its origin.

        Parts that no layer has are missing, and the defaults of their fields apply. A part of a less specific layer is
        bounded by those of more specific ones.
        """
        client, server, method = target
        base = self.defaults.for_call(client or "*", server, method or "*")
        parts = {
            name: OwnedPart(getattr(base, name), None)
            for name in (base.model_fields_set - {"target"} if base else ())
            if getattr(base, name) is not None
        }
        ranks = dict.fromkeys(parts, 0)
        layers = [self.enforced, self.shadows] if shadow else [self.enforced]
        for each in layers:
            for key in (
                PolicyTarget(None, server, None),
                PolicyTarget(client, server, None),
                PolicyTarget(None, server, method),
                PolicyTarget(client, server, method),
            ):
                found = each.calls.get(key, {})
                ranks |= dict.fromkeys(found, max(ranks.values(), default=0) + 1)
                parts.update(found)
        bounded = bound_inherited({name: part.value for name, part in parts.items()}, ranks)
        return {name: OwnedPart(value, parts[name].owner) for name, value in bounded.items()}

    def document(self, service: str, uid: str) -> PlatformPolicyDocument:
        """Returns the document of a service with generation 0. Raises PolicyRejected if its parts are incompatible."""
        clients = [calls for calls in CALLS if calls.client == service]
        policies = self._policies(service, self.enforced, shadow=False)
        taken = {policy.target for policy in policies}
        servers = []
        if admission := self.enforced.admission.get(service):
            servers.append(ServerPolicy(server=service, admission=admission.value))
        elif (server_policy := self.defaults.for_server(service)) is not None:
            servers.append(server_policy)
        sources = {
            part.owner.source
            for part in self._parts(service, [calls.server for calls in clients])
            if part.owner is not None
        }
        return PlatformPolicyDocument(
            uid=uid,
            policies=(
                *policies,
                *(
                    policy
                    for policy in self.defaults.policies
                    if policy.target not in taken and fnmatch.fnmatchcase(service, policy.target.split("/")[0])
                ),
            ),
            servers=tuple(servers),
            default=self.defaults.default,
            shadows=tuple(self._policies(service, self.shadows, shadow=True)),
            telemetry=self._telemetry_of(service),
            sources=tuple(sorted(sources, key=lambda source: (source.kind, source.name, source.uid))),
        )

    def telemetry_parts(self, service: str) -> dict[str, OwnedPart]:
        """Returns the telemetry parts of a service by field.

        Policies that name the service take precedence over general ones.
        """
        parts = {}
        for name in _TELEMETRY_FIELDS:
            part = self.telemetry.get((service, name)) or self.telemetry.get((None, name))
            if part:
                parts[name] = part
        return parts

    def _parts(self, service: str, servers: list[str]) -> Iterable[OwnedPart]:
        """Yields every part of a resource that is in the document of the service."""
        for layers in (self.enforced, self.shadows):
            for target, parts in layers.calls.items():
                if target.server in servers and target.client in (None, service):
                    yield from parts.values()
            if service in layers.admission:
                yield layers.admission[service]
        for (named, _), part in self.telemetry.items():
            if named in (None, service):
                yield part

    def _policies(self, service: str, layers: Layers, *, shadow: bool) -> list[Policy]:
        """Returns the policies of resources for the calls of a service, those of single methods first."""
        servers = {calls.server for calls in CALLS if calls.client == service}
        targets = {
            PolicyTarget(service, target.server, target.method)
            for target, parts in layers.calls.items()
            if parts and target.server in servers and target.client in (None, service)
        }
        ordered = sorted(targets, key=lambda target: (target.method is None, target.server, target.method or ""))
        return [self._policy(target, shadow=shadow) for target in ordered]

    def _policy(self, target: PolicyTarget, *, shadow: bool = False) -> Policy:
        parts = {name: part.value for name, part in self.effective_parts(target, shadow=shadow).items()}
        try:
            return Policy(target=f"{target.client}/{target.server}/{target.method or '*'}", **parts)
        except ValidationError as error:
            raise PolicyRejected("Invalid", f"for {target}, with what is inherited: {describe(error)}") from error

    def _check_policies(self, parsed: Parsed) -> None:
        """Raises PolicyRejected if a call of the policy would get incompatible parts.

        It is also raised if an attempt could outlast the deadline of the call within which it is made.
        """
        for target in parsed.targets:
            for calls in CALLS:
                if calls.server != target.server or target.client not in (None, calls.client):
                    continue
                for each in self._inheriting_targets(PolicyTarget(calls.client, target.server, target.method)):
                    policy = self._policy(each, shadow=parsed.shadow)
                    if "timeout" in parsed.sections and not parsed.shadow:
                        self._check_deadline(each, policy)

    def _inheriting_targets(self, target: PolicyTarget) -> Iterable[PolicyTarget]:
        """Yields a target and the targets of single methods that inherit from it."""
        yield target
        if target.method is None:
            for other, parts in self.enforced.calls.items():
                if parts and other.server == target.server and other.method and other.client in (None, target.client):
                    yield PolicyTarget(target.client, target.server, other.method)

    def _check_deadline(self, target: PolicyTarget, policy: Policy) -> None:
        callers = CALLERS.get(target.client or "")
        if not callers:
            return
        deadlines: dict[str, float] = {}
        for caller in callers:
            timeout = self.effective_parts(PolicyTarget(caller, str(target.client), None)).get("timeout")
            deadlines[caller] = timeout.value.deadline if timeout else _USUAL_DEADLINE
        longest = max(deadlines, key=lambda caller: deadlines[caller])
        attempt = min(policy.timeout.attempt, policy.timeout.deadline)
        if attempt > deadlines[longest]:
            raise PolicyRejected(
                "BeyondCallersDeadline",
                f"timeout.attempt of {target} ({format_duration(attempt)}) is above the deadline of {longest}→"
                f"{target.client} ({format_duration(deadlines[longest])}), within which the call is made",
            )

    def _add_telemetry(self, parsed: Parsed) -> None:
        keys = [(service, name) for service in parsed.services or (None,) for name in parsed.telemetry]
        for service, name in keys:
            if (part := self.telemetry.get((service, name))) and part.owner:
                place = f"{_camel_case(name)} of {service or 'all services'}"
                raise PolicyRejected("Conflicted", f"{place} is governed by {part.owner.resource.name}, which is older")
        for service, name in keys:
            self.telemetry[service, name] = OwnedPart(parsed.telemetry[name], parsed)

    def _telemetry_of(self, service: str) -> TelemetrySpec | None:
        parts = self.telemetry_parts(service)
        return TelemetrySpec(**{name: part.value for name, part in parts.items()}) if parts else None


def parse_policy(
    resource: Resource, generation: int, spec: Mapping[str, Any], workloads: Mapping[str, Workload]
) -> Parsed:
    """Parses a spec. Raises PolicyRejected if it is invalid or its targets do not exist."""
    _, model = KINDS[resource.kind]
    try:
        parsed_spec = _validated(model, resource.uid, generation, _Frozen(spec))
    except ValidationError as error:
        raise PolicyRejected("Invalid", f"spec.{describe(error)}") from error
    if isinstance(parsed_spec, TelemetryPolicySpec):
        values = {name: value for name in _TELEMETRY_FIELDS if (value := getattr(parsed_spec, name)) is not None}
        services = tuple(_telemetry_services(parsed_spec, workloads))
        return Parsed(resource, generation, telemetry=values, services=services)
    if isinstance(parsed_spec, ResiliencePolicySpec):
        return _parsed_resilience(resource, generation, parsed_spec, workloads)
    raise TypeError(f"{resource.kind} is not known")


def _parsed_resilience(
    resource: Resource, generation: int, spec: ResiliencePolicySpec, workloads: Mapping[str, Workload]
) -> Parsed:
    targets = _targets(spec, workloads)
    for target in targets:
        _check_exists(target, workloads)
    servers = tuple(dict.fromkeys(target.server for target in targets)) if spec.admission else ()
    for server in servers:
        if server not in workloads:
            raise PolicyRejected("TargetNotFound", f"there is no service {server} here that could admit calls")
    return Parsed(
        resource,
        generation,
        targets=targets if spec.sections else (),
        sections=spec.sections,
        admission=spec.admission,
        services=servers,
        shadow=spec.mode == "Shadow",
        rollout=spec.rollout,
    )


def governed(parsed: Parsed, workloads: Mapping[str, Workload]) -> list[str]:
    """Returns the services whose documents contain a resource."""
    services = set(parsed.services)
    if parsed.telemetry and not parsed.services:
        services.update(workloads)
    for target in parsed.targets:
        services |= {
            calls.client
            for calls in CALLS
            if calls.server == target.server and target.client in (None, calls.client) and calls.client in workloads
        }
    return sorted(services)


class _Frozen:
    """A spec as an argument of a cached function.

    All specs have the same hash, because uid and generation already identify the content.
    """

    __slots__ = ("spec",)

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self.spec == other.spec


@lru_cache(maxsize=5000)
def _validated(model: type[PolicyPart], uid: str, generation: int, spec: _Frozen) -> PolicyPart:
    return model.model_validate(dict(spec.spec))


def _targets(spec: ResiliencePolicySpec, workloads: Mapping[str, Workload]) -> tuple[PolicyTarget, ...]:
    if spec.selector is None:
        return tuple(dict.fromkeys(PolicyTarget(ref.client, ref.service, ref.method) for ref in spec.target_refs))
    return tuple(PolicyTarget(None, service, None) for service in _selected(spec.selector.match_labels, workloads))


def _selected(labels: Mapping[str, str], workloads: Mapping[str, Workload]) -> list[str]:
    services = [
        service
        for service, workload in workloads.items()
        if all(workload.labels.get(name) == value for name, value in labels.items())
    ]
    if not services:
        raise PolicyRejected("TargetNotFound", f"no Service here has the labels {dict(labels)}")
    return sorted(services)


def _check_exists(target: PolicyTarget, workloads: Mapping[str, Workload]) -> None:
    if target.server not in _SERVERS:
        raise PolicyRejected("TargetNotFound", f"there is no service {target.server}: {', '.join(sorted(_SERVERS))}")
    calls = [each for each in CALLS if each.server == target.server and target.client in (None, each.client)]
    if not calls:
        raise PolicyRejected("TargetNotFound", f"{target.client} does not call {target.server}")
    if target.method and not any(target.method in each.methods for each in calls):
        methods = sorted({method for each in calls for method in each.methods})
        raise PolicyRejected("TargetNotFound", f"{target.server} has no method {target.method}: {', '.join(methods)}")
    if not any(each.client in workloads for each in calls):
        raise PolicyRejected("TargetNotFound", f"nothing that runs here calls {target}")


def _telemetry_services(spec: TelemetryPolicySpec, workloads: Mapping[str, Workload]) -> list[str]:
    if spec.selector is not None:
        return _selected(spec.selector.match_labels, workloads)
    for ref in spec.target_refs:
        if ref.service not in workloads:
            raise PolicyRejected("TargetNotFound", f"there is no service {ref.service} here")
    return [ref.service for ref in spec.target_refs]


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(each.capitalize() for each in rest)
