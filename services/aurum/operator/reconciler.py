"""The reconciliation loop: derives the desired state, starts the writes and updates the status of each resource.

The loop never waits for a request. `attempts` makes the requests of each object separately, so that a refused or
hanging one delays neither other objects nor the next pass. Each pass starts from the latest known state.
"""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aurum.operator import metrics
from aurum.operator.api_connection import REQUEST_TIMEOUT
from aurum.operator.attempts import Attempts, Key
from aurum.operator.cluster_snapshot import TOUCHED, TRACK, ClusterSnapshot, Pod, Resource
from aurum.operator.conditions import PolicyState
from aurum.operator.desired_state import DesiredState, ServicePlan, content_hash, derive_desired_state
from aurum.operator.informer_cache import InformerCache
from aurum.operator.kubernetes import Cluster
from aurum.operator.pod_poller import PodPoller
from aurum.operator.rollout import Rollout
from aurum.operator.rollout_analysis import RolloutAnalysis
from aurum.runtime.metrics import track_error
from aurum.runtime.telemetry.tracing import traced_operation

logger = logging.getLogger(__name__)

_STATUS_INTERVAL = 2.0  # shortest interval in seconds between two writes of one resource's status
_UNSETTLED = 1.2  # seconds for which a transient status is held back, since it usually settles sooner
_SHADOW_INTERVAL = 15.0  # seconds between two writes that change only the counts of a shadow
_TOUCH_AGAIN, _TOUCH_LONGEST = 0.7, 60.0  # seconds until a pod that did not follow is annotated again, doubling
_LIST_TIMEOUT = 60.0  # seconds for listing everything, in many pages
_LIST_AGAIN = 1.0  # shortest interval between two lists in seconds
_BACKOFF = 1.0  # seconds to wait after a failed plan
_LIST = Key("list")


@dataclass(slots=True)
class _Annotation:
    """The annotation of a pod. document_and_track: Hash of the document, and the track."""

    document_and_track: tuple[str, str]
    number: int = 0
    at: float = 0.0

    @property
    def pause(self) -> float:
        """Seconds until the pod is annotated again."""
        return min(_TOUCH_LONGEST, _TOUCH_AGAIN * 2.0 ** max(0, min(self.number, 20) - 1))


@dataclass(slots=True)
class _Written:
    at: float = -_STATUS_INTERVAL
    differs_since: float | None = None


class Reconciler:
    """Reconciles the policies of one release.

    Args:
        cluster: Access to the API server.
        cache: Known state of the cluster.
        reports: Reports of the pods.
        guards: Guards of the rollouts, or None without Prometheus.
        nudged: Set when something has changed.
        resync: Seconds between two full lists.
        may_write: Whether this operator holds the lease.
        clock: Monotonic clock in seconds.
        now: Clock in seconds since 1970.
        tidy: Called after each list, which leaves much garbage behind.
    """

    def __init__(
        self,
        cluster: Cluster,
        cache: InformerCache,
        poller: PodPoller,
        analysis: RolloutAnalysis | None,
        nudged: asyncio.Event,
        *,
        resync: float,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        tidy: Callable[[], object] = gc.collect,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._poller = poller
        self._analysis = analysis
        self._resync = resync
        self._nudged = nudged
        self._clock = clock
        self._now = now
        self._tidy = tidy
        self._attempts = Attempts(nudged.set, may_write, clock)
        self._rollouts: dict[str, Rollout] = {}
        self._annotations: dict[str, _Annotation] = {}
        self._written: dict[str, _Written] = {}
        self._had_config_map: set[str] = set()  # services whose ConfigMap has existed
        self._listed_at: float | None = None
        self._list_due = float("-inf")
        self._problems: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Reconciles until it is cancelled."""
        try:
            while True:
                self._nudged.clear()
                self._attempts.raise_unexpected()
                started = self._clock()
                again = self._run_pass()
                self._attempts.set_metrics()
                metrics.operator_reconcile_duration_seconds.observe(self._clock() - started)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.005, again)):
                        await self._nudged.wait()
        finally:
            await self._attempts.close()

    def _run_pass(self) -> float:
        """Starts a list if one is due, and reconciles once. Returns the seconds until the next pass."""
        list_in = self._list_when_due()
        if self._listed_at is None:
            return list_in
        try:
            with traced_operation("reconcile"):
                again = self._reconcile()
        except Exception as error:  # not an error of a single object, since those are handled separately
            logger.exception("the desired state could not be derived, next attempt in %.1f s", _BACKOFF)
            metrics.operator_reconciles_total.labels("failed").inc()
            track_error(type(error).__name__)
            return _BACKOFF
        metrics.operator_reconciles_total.labels("done").inc()
        return min(again, list_in, self._attempts.seconds_until_due())

    def _list_when_due(self) -> float:
        """Starts a list if one is due. Returns the seconds until the next one."""
        if self._cache.needs_list and self._listed_at is not None:
            self._list_due = min(self._list_due, self._listed_at + _LIST_AGAIN)
        if self._list_due <= self._clock():
            self._attempts.begin(_LIST, self._list_objects, _LIST_TIMEOUT)
            return self._attempts.seconds_until_due()
        return self._list_due - self._clock()

    async def _list_objects(self) -> None:
        cluster, requested_at, began = self._cluster, self._cache.current_moment(), self._clock()
        workloads = await cluster.workloads()
        resources, pods, config_maps = await cluster.resources(), await cluster.pods(), await cluster.config_maps()
        self._cache.workloads = workloads
        self._cache.replace_all(resources, pods, config_maps, requested_at)
        self._listed_at, self._list_due = self._clock(), began + self._resync
        del resources, pods, config_maps
        self._tidy()  # a list leaves much garbage, which is rarely collected otherwise

    def _reconcile(self) -> float:
        """Brings the cluster closer to the desired state. Returns the seconds until there is more to do."""
        cache = self._cache
        cluster = ClusterSnapshot(
            self._cluster.namespace,
            cache.resources,
            cache.workloads,
            cache.pods,
            cache.config_maps(),
            cache.defaults,
            self._poller.by_pod,
            self._analysis.findings if self._analysis else {},
            self._now(),
            guarded=self._analysis is not None,
            refused=self._failures({name: Key("configmap", name) for name in cache.workloads}),
            untouched=self._failures({pod.uid: Key("pod", pod.uid) for pod in cache.pods}),
            problem=cache.problem,
            held=cache.held,
        )
        desired = derive_desired_state(cluster, self._rollouts)
        self._log_problems((*cache.problems, *desired.problems))
        self._rollouts = dict(desired.rollouts)
        for service in desired.services.values():
            self._write_config_map(service)
        self._attempts.forget_others("configmap", desired.services)
        waits = [self._annotate_pods(desired), self._write_statuses(desired)]
        self._poller.follow(
            (pod, service.document_of(pod).content_hash)
            for name, service in desired.services.items()
            for pod in cluster.pods_of(name)
        )
        if self._analysis:
            self._analysis.follow(desired.watched, desired.rollouts)
        for uid, rollout in desired.rollouts.items():
            spec = desired.policy_states[uid].rollout_spec
            if rollout.state == "Progressing" and rollout.since is not None and spec is not None:
                left = rollout.since + spec.pause - cluster.now
                waits += [left + 0.05] if left > 0 else []
        _set_policy_metrics(desired)
        return min(waits)

    def _failures(self, keys: Mapping[str, Key]) -> dict[str, str]:
        return {name: problem for name, key in keys.items() if (problem := self._attempts.problem(key))}

    def _log_problems(self, problems: tuple[str, ...]) -> None:
        """Logs each problem once for as long as it lasts."""
        for problem in dict.fromkeys(problems):
            if problem not in self._problems:
                logger.error("%s", problem)
        self._problems = frozenset(problems)
        metrics.operator_problems.set(len(self._problems))

    def _write_config_map(self, service: ServicePlan) -> None:
        name, data = service.workload.service, service.data
        before = self._cache.config_maps().get(name)
        key = Key("configmap", name)
        if before is not None and before.data == data and before.content == content_hash(data):
            self._had_config_map.add(name)
            self._attempts.forget_failures(key)
            return
        by_hand = before.content != content_hash(before.data) if before else name in self._had_config_map

        async def write() -> None:
            requested_at = self._cache.current_moment()
            body = await self._cluster.apply_config_map(service.workload, data)
            self._cache.update_config_map(body, requested_at=requested_at)
            self._had_config_map.add(name)
            logger.info(
                "a ConfigMap was written",
                extra={"config_map": service.workload.config_map, "generation": service.in_force.generation},
            )
            if by_hand:
                self._report_restored(body["metadata"], "deleted" if before is None else "edited")

        self._attempts.begin(key, write, REQUEST_TIMEOUT, content_hash(data))

    def _report_restored(self, metadata: Mapping[str, Any], change: str) -> None:
        about = {"apiVersion": "v1", "kind": "ConfigMap", "name": metadata["name"], "uid": metadata["uid"]}
        logger.warning("the ConfigMap %s was %s by another client and is restored", metadata["name"], change)
        message = f"it was {change} by another client; edit a ResiliencePolicy or TelemetryPolicy instead"
        self._emit_event(about, "Warning", "Restored", message)

    def _emit_event(self, about: Mapping[str, str], kind: str, reason: str, message: str) -> None:
        """Records a Kubernetes event. Nothing waits for it, and it is not retried."""

        def event() -> Awaitable[None]:
            return self._cluster.event(about, kind, reason, message, self._now())

        self._attempts.begin(Key("event", f"{reason} {about['name']}"), event, REQUEST_TIMEOUT, again=False)

    def _annotate_pods(self, desired: DesiredState) -> float:
        """Annotates pods so that the kubelet updates their volumes. Returns the seconds until the next annotation."""
        lagging, wait = 0, float("inf")
        present: set[str] = set()
        for pod in self._cache.pods:
            service = desired.services.get(pod.service)
            if service is None:
                continue
            present.add(pod.uid)
            wait = min(wait, self._annotate_pod(service, pod))
            report = self._poller.by_pod.get(pod.uid)
            lagging += report is None or report.hash != service.document_of(pod).content_hash
        for uid in set(self._annotations) - present:
            del self._annotations[uid]
        self._attempts.forget_others("pod", present)
        metrics.operator_pods_lagging.set(lagging)
        return wait

    def _annotate_pod(self, service: ServicePlan, pod: Pod) -> float:
        document, track = service.document_of(pod), service.track_of(pod)
        desired_hash, now = document.content_hash, self._clock()
        touch = self._annotations.get(pod.uid)
        if touch is None or touch.document_and_track != (desired_hash, track):
            touch = self._annotations[pod.uid] = _Annotation((desired_hash, track))
        key = Key("pod", pod.uid)
        report = self._poller.by_pod.get(pod.uid)
        has_it = report is not None and report.hash == desired_hash
        refuses = report is not None and report.refused_generation == document.generation
        on_track = pod.annotations.get(TRACK, "stable") == track
        annotated = pod.annotations.get(TOUCHED, "").split("/")[0] == desired_hash and on_track
        if on_track and (has_it or refuses or service.awaits_candidate(pod)):  # no annotation is needed
            self._attempts.forget_failures(key)
            return float("inf")
        if self._attempts.busy(Key("configmap", pod.service)) and (on_track or track != "stable"):
            return float("inf")  # the ConfigMap is being written; only a rollback does not wait
        if annotated and touch.number == 0:  # annotated by the previous operator
            touch.number, touch.at = 1, now
        if touch.number and now - touch.at < touch.pause:
            return touch.at + touch.pause - now

        async def write() -> None:
            touch.number, touch.at = touch.number + 1, self._clock()
            requested_at = self._cache.current_moment()
            self._cache.update_pod(
                await self._cluster.annotate_pod(pod.name, f"{desired_hash}/{touch.number}", track),
                requested_at=requested_at,
            )

        self._attempts.begin(key, write, REQUEST_TIMEOUT, f"{desired_hash} {track}")
        return touch.pause

    def _write_statuses(self, desired: DesiredState) -> float:
        """Starts the writes of statuses that are due. Returns the seconds until the next one."""
        wait, now = float("inf"), self._clock()
        for uid, state in desired.policy_states.items():
            resource, status = state.resource, desired.statuses[uid]
            written, key = self._written.setdefault(uid, _Written()), Key("status", uid)
            if resource.status == status:
                written.differs_since = None
                self._attempts.forget_failures(key)
                continue
            if written.differs_since is None:
                written.differs_since = now
            kept_back = 0.0 if _is_settled(status) else _UNSETTLED
            if _without_shadow(resource.status) == _without_shadow(status):
                kept_back = _SHADOW_INTERVAL
            at = max(written.at + _STATUS_INTERVAL, written.differs_since + kept_back)
            if at > now:
                wait = min(wait, at - now)
                continue
            self._attempts.begin(key, self._status_write(state, status, written), REQUEST_TIMEOUT)
        for uid in set(self._written) - set(desired.policy_states):
            del self._written[uid]
        self._attempts.forget_others("status", desired.policy_states)
        return wait

    def _status_write(
        self, state: PolicyState, status: dict[str, Any], written: _Written
    ) -> Callable[[], Awaitable[None]]:
        resource = state.resource

        async def write() -> None:
            written.at, written.differs_since = self._clock(), None
            requested_at = self._cache.current_moment()
            self._cache.update_resource(await self._cluster.write_status(resource, status), requested_at=requested_at)
            self._emit_condition_events(resource, status)

        return write

    def _emit_condition_events(self, resource: Resource, status: Mapping[str, Any]) -> None:
        about = {
            "apiVersion": "aurumai.io/v1alpha1",
            "kind": resource.kind,
            "name": resource.name,
            "uid": resource.uid,
        }
        for kind, reason, message in _condition_events(resource.status, status):
            logger.log(logging.WARNING if kind == "Warning" else logging.INFO, "%s: %s", resource.name, message)
            self._emit_event(about, kind, reason, message)


def _is_settled(status: Mapping[str, Any]) -> bool:
    """Whether a status is not expected to change soon by itself."""
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    return (
        conditions["Accepted"]["status"] == "False"
        or conditions["Converged"]["status"] == "True"
        or conditions["Converged"]["reason"] == "Refused"
        or "RolledBack" in conditions
    )


def _without_shadow(status: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name != "shadow"}


def _condition_events(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the events for a change of status: type, reason and message of each."""
    old = {condition["type"]: condition for condition in before.get("conditions", ())}
    events = []
    for condition in after["conditions"]:
        previous = old.get(condition["type"], {})
        if (condition["status"], condition["reason"]) == (previous.get("status"), previous.get("reason")) and condition[
            "observedGeneration"
        ] == previous.get("observedGeneration"):
            continue
        match condition["type"], condition["status"]:
            case ("Accepted", "False") | ("RolledBack", "True"):
                events.append(("Warning", condition["reason"], condition["message"]))
            case "Converged", "True":
                events.append(
                    ("Normal", "Converged", f"generation {condition['observedGeneration']}: {condition['message']}")
                )
            case "Converged", "False" if condition["reason"] == "Refused":
                events.append(("Warning", "Refused", condition["message"]))
    return events


def _set_policy_metrics(desired: DesiredState) -> None:
    counts = dict.fromkeys(("converged", "progressing", "rolled_back", "refused", "not_accepted"), 0)
    for status in desired.statuses.values():
        conditions = {condition["type"]: condition for condition in status["conditions"]}
        if conditions["Accepted"]["status"] == "False":
            counts["not_accepted"] += 1
        elif "RolledBack" in conditions:
            counts["rolled_back"] += 1
        elif conditions["Converged"]["status"] == "True":
            counts["converged"] += 1
        else:
            counts["refused" if conditions["Converged"]["reason"] == "Refused" else "progressing"] += 1
    for state, count in counts.items():
        metrics.operator_policies.labels(state).set(count)
