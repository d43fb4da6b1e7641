"""`aurum policy get`, `explain` and `diff`: the policy of each call, its origin, and the effect of a change.

The source is a cluster, whose resources are merged as the operator does, or the policy document of this machine.
"""

import asyncio
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aurum.operator.cluster_snapshot import ClusterSnapshot
from aurum.operator.desired_state import as_yaml, refusals, rules_in_force
from aurum.operator.merging import MergedRules, PolicyRejected, PolicyTarget
from aurum.operator.one_time_read import snapshot_cluster, with_manifests
from aurum.operator.resources import GROUP, KINDS
from aurum.operator.settings import OperatorSettings
from aurum.resilience import PolicyError, plain_yaml
from aurum.resilience.plain_yaml import YamlError
from aurum.resilience.policy import Policy
from aurum.runtime.policy.call_catalog import CALLS, SERVICES
from aurum.runtime.policy.document import PlatformPolicyDocument, load_platform_document
from aurum.runtime.policy.files import document_path
from aurum.runtime.policy.policies import default_policy
from aurum.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Effective:
    """The policies in force.

    Attributes:
        documents: The policy document of each service.
        origin: Returns where the parts of a call's policy come from, by field.
        problems: The resources without effect, with the reason.
    """

    documents: Mapping[str, PlatformPolicyDocument]
    origin: Callable[[PolicyTarget], Mapping[str, str]]
    problems: tuple[str, ...] = ()

    def policy(self, settings: Settings, target: PolicyTarget) -> tuple[Policy, str]:
        """Returns the policy of a call, and the target by which it applies."""
        document = self.documents.get(target.client or "", PlatformPolicyDocument())
        policy = document.for_call(target.client or "", target.server, target.method or "*")
        return (policy, policy.target) if policy else (default_policy(settings), "the settings")


def policies_of_document(settings: Settings, path: Path | None) -> Effective:
    """Returns the policies of a document, by default of the one that the settings name. Raises PolicyError."""
    path = path or settings.policy_file
    document = load_platform_document(document_path(path)) if path else PlatformPolicyDocument()

    def origin(target: PolicyTarget) -> Mapping[str, str]:
        policy = document.for_call(target.client or "", target.server, target.method or "*")
        return dict.fromkeys(policy.model_fields_set, f"{path}: {policy.target}") if policy else {}

    return Effective(dict.fromkeys(SERVICES, document), origin)


def policies_of_cluster(cluster: ClusterSnapshot) -> Effective:
    """Returns the policies of a cluster's resources."""
    rules = rules_in_force(cluster)
    documents, problems = {}, []
    for service in cluster.workloads:
        try:
            documents[service] = rules.document(service, f"{cluster.namespace}/{service}")
        except PolicyRejected as problem:
            problems.append(f"{service}: {problem.message}")
    names = {each.uid: f"{each.kind} {each.name}" for each in cluster.resources}
    problems += [f"{names[uid]}: {why.reason}: {why.message}" for uid, why in sorted(refusals(cluster).items())]
    return Effective(documents, lambda target: _origins(rules, target), tuple(problems))


def read_cluster(settings: OperatorSettings) -> ClusterSnapshot:
    """Reads the resources and pods of the current kube-context. Raises an error of the client without a cluster."""
    return asyncio.run(
        snapshot_cluster(settings.operator_namespace, settings.operator_release, settings.operator_defaults)
    )


def with_proposed_resources(cluster: ClusterSnapshot, path: Path) -> ClusterSnapshot:
    """Returns the cluster with the resources in a file added or replaced. Raises PolicyError."""
    try:
        bodies = [body for body in plain_yaml.load_all(plain_yaml.read_text(path)) if body]
    except YamlError as error:
        raise PolicyError(f"{path}: {error}") from error
    for number, body in enumerate(bodies):
        kind = body.get("kind") if isinstance(body, dict) else None
        if kind not in KINDS or not str(body.get("apiVersion")).startswith(f"{GROUP}/"):
            raise PolicyError(f"{path}: document {number} is not a {' or '.join(KINDS)} of {GROUP}")
        metadata = body.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise PolicyError(f"{path}: document {number} has no metadata.name")
        if not isinstance(body.get("spec") or {}, dict):
            raise PolicyError(f"{path}: document {number}: spec is not a mapping")
    return with_manifests(cluster, bodies)


def show_cluster(cluster: ClusterSnapshot) -> None:
    """Prints the policy resources of a cluster, their conditions, and the pods that apply them."""
    table = Table(box=None, pad_edge=False)
    for column in ("policy", "governs", "generation", "accepted", "programmed", "pods", "laggards"):
        table.add_column(column, overflow="fold")
    for resource in sorted(cluster.resources, key=lambda each: each.age):
        status = resource.status
        conditions = {each["type"]: each for each in status.get("conditions", ())}
        conditions_shown = [
            f"{conditions[name]['status']} ({conditions[name]['reason']})" if name in conditions else "not yet"
            for name in ("Accepted", "Programmed")
        ]
        lagging = ", ".join(each["pod"] for each in status.get("pods", {}).get("laggards", ()))
        name = f"{resource.kind}/{resource.name}"
        generation, pods = str(resource.generation), status.get("converged", "")
        table.add_row(name, status.get("targets", ""), generation, *conditions_shown, pods, lagging)
    _console().print(table)


def show_calls(effective: Effective, settings: Settings, services: list[str]) -> None:
    """Prints the main values of the policy of each call."""
    table = Table(box=None, pad_edge=False)
    for column in ("call", "matches", "attempts", "deadline", "attempt", "breaker", "at a time", "from"):
        table.add_column(column, overflow="fold")
    for calls in CALLS:
        if calls.client not in effective.documents or (services and calls.client not in services):
            continue
        shown: dict[str, tuple[str, ...]] = {}
        for method in (*calls.methods, None):
            target = PolicyTarget(calls.client, calls.server, method)
            policy, matched = effective.policy(settings, target)
            name = f"{calls.client}/{calls.server}/{method}" if matched.endswith(f"/{method}") else ""
            name = name or f"{calls.client}/{calls.server}/*"
            dumped = policy.model_dump(mode="json", by_alias=True)
            breaker = dumped["circuitBreaker"]
            origins = sorted(set(effective.origin(target).values()))
            shown[name] = (
                matched,
                str(policy.retry.max_attempts),
                dumped["timeout"]["deadline"],
                dumped["timeout"]["attempt"],
                f"{breaker['mode']}, open {breaker['open']}" if breaker["enabled"] else "off",
                str(policy.bulkhead.max_concurrent),
                ", ".join(origins) or "the settings",
            )
        for name, row in sorted(shown.items(), reverse=True):
            table.add_row(name, *row)
    console = _console()
    console.print(table)
    for problem in effective.problems:
        console.print(f"without effect: {problem}", style="red", markup=False)


def explain(effective: Effective, settings: Settings, target: PolicyTarget) -> None:
    """Prints every value of the policy of a call, with its origin."""
    policy, matched = effective.policy(settings, target)
    origins = effective.origin(target)
    table = Table(box=None, pad_edge=False)
    for column in ("field", "value", "from"):
        table.add_column(column, overflow="fold")
    fields = {field.alias or name: name for name, field in Policy.model_fields.items()}
    for part, value in policy.model_dump(mode="json", by_alias=True, exclude={"target"}).items():
        origin = origins.get(fields[part], "the settings" if matched == "the settings" else "default")
        for name, shown in _flatten(part, value):
            table.add_row(name, shown, origin)
    console = _console()
    console.print(f"{target.client}/{target.server}/{target.method or '*'} matches {matched}", markup=False)
    console.print(table)


def difference(before: Effective, after: Effective) -> str:
    """Returns the changes of the services' documents as a unified diff; empty if there are none."""
    lines: list[str] = []
    for service in sorted({*before.documents, *after.documents}):
        old, new = (
            as_yaml(
                each.documents.get(service, PlatformPolicyDocument()).model_copy(update={"sources": (), "uid": service})
            )
            for each in (before, after)
        )
        lines += difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"{service}, in force", f"{service}, proposed", lineterm=""
        )
    return "\n".join(lines)


def merge_documents(documents: Mapping[str, PlatformPolicyDocument]) -> PlatformPolicyDocument:
    """Merges the documents of several services into one, which holds for the calls of all of them."""
    policies = {policy.target: policy for document in documents.values() for policy in document.policies}
    return PlatformPolicyDocument(uid="cluster", policies=tuple(policies.values()))


def _origins(rules: MergedRules, target: PolicyTarget) -> dict[str, str]:
    return {
        name: f"{part.owner.resource.kind} {part.owner.resource.name} #{part.owner.generation}"
        if part.owner
        else "the chart's defaults"
        for name, part in rules.effective_parts(target).items()
    }


def _flatten(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, each in value.items() for pair in _flatten(f"{name}.{key}", each)]
    if isinstance(value, list):
        return [(name, ", ".join(map(str, value)))]
    return [(name, "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value))]


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=200)
