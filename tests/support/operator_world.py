"""A small cluster for tests of what is pure: api and prediction with two pods each, ingestion and edge with one."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aurum.operator.cluster_snapshot import ClusterSnapshot, ConfigMap, GuardFinding, Pod, Report, Resource, Workload
from aurum.operator.desired_state import DesiredState, content_hash, derive_desired_state
from aurum.operator.rollout import Rollout
from aurum.runtime.policy.document import PlatformPolicyDocument, parse_platform_document

DEFAULTS = """
policies:
  - target: api/prediction/*
    timeout: {deadline: 3s, attempt: 1500ms}
    retry: {maxAttempts: 3}
  - target: prediction/ingestion/*
    timeout: {deadline: 2s, attempt: 1s}
servers:
  - server: prediction
    admission: {maxConcurrent: 64, maxQueued: 64, maxWait: 200ms}
"""
PODS = {"api": 2, "prediction": 2, "ingestion": 1, "edge": 1}


class Simulated:
    """Keeps what a reconciler would write, and lets pods follow."""

    def __init__(self, pods: Mapping[str, int] | None = None, guarded: bool = False, defaults: str = DEFAULTS) -> None:
        """defaults: The chart's policies, as YAML."""
        numbers = pods or PODS
        self.now = 1_800_000_000.0
        self.guarded = guarded
        self.defaults = defaults
        self.resources: dict[str, Resource] = {}
        self.rollouts: Mapping[str, Rollout] = {}
        self.findings: dict[str, GuardFinding] = {}
        self.reports: dict[str, Report] = {}
        self.config_maps: dict[str, ConfigMap] = {}
        self.workloads = {
            name: Workload(
                name, "apps/v1", "Deployment", f"aurumai-{name}", f"uid-{name}", {"app.kubernetes.io/component": name}
            )
            for name in numbers
        }
        self.pods = tuple(
            Pod(f"aurumai-{name}-{number}", f"{name}-{number}", name, f"10.0.0.{number}:9090")
            for name, count in numbers.items()
            for number in range(count)
        )
        self._order = itertools.count()

    def apply(self, name: str, spec: Mapping[str, Any], kind: str = "ResiliencePolicy") -> str:
        """Makes or edits a resource; its uid."""
        known = self.resources.get(name)
        if known:
            self.resources[name] = replace(known, spec=spec, generation=known.generation + 1)
        else:
            created = f"2026-01-01T00:00:{next(self._order):02d}Z"
            self.resources[name] = Resource(kind, name, f"uid-{name}", 1, created, spec)
        return self.resources[name].uid

    def plan(self) -> DesiredState:
        cluster = ClusterSnapshot(
            "plant",
            tuple(self.resources.values()),
            self.workloads,
            self.pods,
            self.config_maps,
            parse_platform_document(self.defaults, "defaults"),
            self.reports,
            self.findings,
            self.now,
            self.guarded,
        )
        return derive_desired_state(cluster, self.rollouts)

    def step(self, *, follow: bool = True) -> DesiredState:
        """One turn of the reconciler; then the pods load what they are to have."""
        made = self.plan()
        self.rollouts = made.rollouts
        for service, each in made.services.items():
            self.config_maps[service] = ConfigMap(each.workload.config_map, each.data, content_hash(each.data))
            for pod in self.pods if follow else ():
                if pod.service == service:
                    self.reports[pod.uid] = loaded(each.document_of(pod))
        for name, resource in self.resources.items():
            self.resources[name] = replace(resource, status=made.statuses[resource.uid])
        return made

    def settle(self) -> DesiredState:
        for _ in range(4):
            made = self.step()
        return made

    def conditions(self, name: str) -> dict[str, tuple[str, str]]:
        return {
            each["type"]: (each["status"], each["reason"]) for each in self.resources[name].status.get("conditions", ())
        }

    def message(self, name: str, kind: str) -> str:
        return next(each["message"] for each in self.resources[name].status["conditions"] if each["type"] == kind)


def loaded(document: PlatformPolicyDocument) -> Report:
    """What a pod says that has a document in force."""
    return Report(
        0.0,
        None,
        document.content_hash,
        document.generation,
        frozenset((source.uid, source.generation) for source in document.sources),
    )
