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
class _Touch:
    """The annotation of a pod. wanted: Hash of the document, and the track."""

    wanted: tuple[str, str]
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
        store: Known state of the cluster.
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
        store: InformerCache,
        reports: PodPoller,
        guards: RolloutAnalysis | None,
        nudged: asyncio.Event,
        *,
        resync: float,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        tidy: Callable[[], object] = gc.collect,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._reports = reports
        self._guards = guards
        self._resync = resync
        self._nudged = nudged
        self._clock = clock
        self._now = now
        self._tidy = tidy
        self._attempts = Attempts(nudged.set, may_write, clock)
        self._rollouts: dict[str, Rollout] = {}
        self._touches: dict[str, _Touch] = {}
        self._written: dict[str, _Written] = {}
        self._made: set[str] = set()  # services whose ConfigMap has existed
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
                again = self._look()
                self._attempts.measure()
                metrics.operator_reconcile_duration_seconds.observe(self._clock() - started)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.005, again)):
                        await self._nudged.wait()
        finally:
            await self._attempts.close()

    def _look(self) -> float:
        """Starts a list if one is due, and reconciles once. Returns the seconds until the next pass."""
        list_in = self._list_when_due()
        if self._listed_at is None:
            return list_in
        try:
            with traced_operation("reconcile"):
                again = self._reconcile()
        except Exception as error:  # not an error of a single object, since those are handled separately
            logger.exception("what is to be could not be worked out, trying again in %.1f s", _BACKOFF)
            metrics.operator_reconciles_total.labels("failed").inc()
            track_error(type(error).__name__)
            return _BACKOFF
        metrics.operator_reconciles_total.labels("done").inc()
        return min(again, list_in, self._attempts.wait())

    def _list_when_due(self) -> float:
        """Starts a list if one is due. Returns the seconds until the next one."""
        if self._store.doubt and self._listed_at is not None:
            self._list_due = min(self._list_due, self._listed_at + _LIST_AGAIN)
        if self._list_due <= self._clock():
            self._attempts.begin(_LIST, self._list, _LIST_TIMEOUT)
            return self._attempts.wait()
        return self._list_due - self._clock()

    async def _list(self) -> None:
        cluster, asked, began = self._cluster, self._store.mark(), self._clock()
        workloads = await cluster.workloads()
        resources, pods, config_maps = await cluster.resources(), await cluster.pods(), await cluster.config_maps()
        self._store.workloads = workloads
        self._store.take_all(resources, pods, config_maps, asked)
        self._listed_at, self._list_due = self._clock(), began + self._resync
        del resources, pods, config_maps
        self._tidy()  # a list leaves much garbage, which is rarely collected otherwise

    def _reconcile(self) -> float:
        """Brings the cluster closer to the desired state. Returns the seconds until there is more to do."""
        store = self._store
        cluster = ClusterSnapshot(
            self._cluster.namespace,
            store.resources,
            store.workloads,
            store.pods,
            store.config_maps(),
            store.defaults,
            self._reports.by_pod,
            self._guards.findings if self._guards else {},
            self._now(),
            guarded=self._guards is not None,
            refused=self._failures({name: Key("configmap", name) for name in store.workloads}),
            untouched=self._failures({pod.uid: Key("pod", pod.uid) for pod in store.pods}),
            problem=store.problem,
            held=store.held,
        )
        made = derive_desired_state(cluster, self._rollouts)
        self._tell_problems((*store.problems, *made.problems))
        self._rollouts = dict(made.rollouts)
        for service in made.services.values():
            self._write_config_map(service)
        self._attempts.keep("configmap", made.services)
        waits = [self._touch_pods(made), self._write_statuses(made)]
        self._reports.follow(
            (pod, service.document_of(pod).content_hash)
            for name, service in made.services.items()
            for pod in cluster.pods_of(name)
        )
        if self._guards:
            self._guards.follow(made.watched, made.rollouts)
        for uid, rollout in made.rollouts.items():
            spec = made.standings[uid].rollout_spec
            if rollout.state == "Progressing" and rollout.since is not None and spec is not None:
                left = rollout.since + spec.pause - cluster.now
                waits += [left + 0.05] if left > 0 else []
        _measure(made)
        return min(waits)

    def _failures(self, keys: Mapping[str, Key]) -> dict[str, str]:
        return {name: problem for name, key in keys.items() if (problem := self._attempts.problem(key))}

    def _tell_problems(self, problems: tuple[str, ...]) -> None:
        """Logs each problem once for as long as it lasts."""
        for problem in dict.fromkeys(problems):
            if problem not in self._problems:
                logger.error("%s", problem)
        self._problems = frozenset(problems)
        metrics.operator_problems.set(len(self._problems))

    def _write_config_map(self, service: ServicePlan) -> None:
        name, data = service.workload.service, service.data
        before = self._store.config_maps().get(name)
        key = Key("configmap", name)
        if before is not None and before.data == data and before.content == content_hash(data):
            self._made.add(name)
            self._attempts.settle(key)
            return
        by_hand = before.content != content_hash(before.data) if before else name in self._made

        async def write() -> None:
            asked = self._store.mark()
            body = await self._cluster.apply_config_map(service.workload, data)
            self._store.config_map(body, asked=asked)
            self._made.add(name)
            logger.info(
                "a ConfigMap was written",
                extra={"config_map": service.workload.config_map, "generation": service.in_force.generation},
            )
            if by_hand:
                self._tell_restored(body["metadata"], "deleted" if before is None else "edited")

        self._attempts.begin(key, write, REQUEST_TIMEOUT, content_hash(data))

    def _tell_restored(self, metadata: Mapping[str, Any], what: str) -> None:
        about = {"apiVersion": "v1", "kind": "ConfigMap", "name": metadata["name"], "uid": metadata["uid"]}
        logger.warning("the ConfigMap %s was %s by somebody else and is put back", metadata["name"], what)
        message = f"it was {what} by somebody else; edit a ResiliencePolicy or TelemetryPolicy instead"
        self._tell(about, "Warning", "Restored", message)

    def _tell(self, about: Mapping[str, str], kind: str, reason: str, message: str) -> None:
        """Records a Kubernetes event. Nothing waits for it, and it is not retried."""

        def event() -> Awaitable[None]:
            return self._cluster.event(about, kind, reason, message, self._now())

        self._attempts.begin(Key("event", f"{reason} {about['name']}"), event, REQUEST_TIMEOUT, again=False)

    def _touch_pods(self, made: DesiredState) -> float:
        """Annotates pods so that the kubelet updates their volumes. Returns the seconds until the next annotation."""
        lagging, wait = 0, float("inf")
        present: set[str] = set()
        for pod in self._store.pods:
            service = made.services.get(pod.service)
            if service is None:
                continue
            present.add(pod.uid)
            wait = min(wait, self._touch(service, pod))
            report = self._reports.by_pod.get(pod.uid)
            lagging += report is None or report.hash != service.document_of(pod).content_hash
        for uid in set(self._touches) - present:
            del self._touches[uid]
        self._attempts.keep("pod", present)
        metrics.operator_pods_lagging.set(lagging)
        return wait

    def _touch(self, service: ServicePlan, pod: Pod) -> float:
        document, track = service.document_of(pod), service.track_of(pod)
        wanted, now = document.content_hash, self._clock()
        touch = self._touches.get(pod.uid)
        if touch is None or touch.wanted != (wanted, track):
            touch = self._touches[pod.uid] = _Touch((wanted, track))
        key = Key("pod", pod.uid)
        report = self._reports.by_pod.get(pod.uid)
        has_it = report is not None and report.hash == wanted
        refuses = report is not None and report.refused_generation == document.generation
        on_track = pod.annotations.get(TRACK, "stable") == track
        annotated = pod.annotations.get(TOUCHED, "").split("/")[0] == wanted and on_track
        if on_track and (has_it or refuses or service.awaits_candidate(pod)):  # no annotation is needed
            self._attempts.settle(key)
            return float("inf")
        if self._attempts.busy(Key("configmap", pod.service)) and (on_track or track != "stable"):
            return float("inf")  # the ConfigMap is being written; only a rollback does not wait
        if annotated and touch.number == 0:  # annotated by the previous operator
            touch.number, touch.at = 1, now
        if touch.number and now - touch.at < touch.pause:
            return touch.at + touch.pause - now

        async def write() -> None:
            touch.number, touch.at = touch.number + 1, self._clock()
            asked = self._store.mark()
            self._store.pod(await self._cluster.touch_pod(pod.name, f"{wanted}/{touch.number}", track), asked=asked)

        self._attempts.begin(key, write, REQUEST_TIMEOUT, f"{wanted} {track}")
        return touch.pause

    def _write_statuses(self, made: DesiredState) -> float:
        """Starts the writes of statuses that are due. Returns the seconds until the next one."""
        wait, now = float("inf"), self._clock()
        for uid, standing in made.standings.items():
            resource, status = standing.resource, made.statuses[uid]
            written, key = self._written.setdefault(uid, _Written()), Key("status", uid)
            if resource.status == status:
                written.differs_since = None
                self._attempts.settle(key)
                continue
            if written.differs_since is None:
                written.differs_since = now
            kept_back = 0.0 if _settled(status) else _UNSETTLED
            if _without_shadow(resource.status) == _without_shadow(status):
                kept_back = _SHADOW_INTERVAL
            at = max(written.at + _STATUS_INTERVAL, written.differs_since + kept_back)
            if at > now:
                wait = min(wait, at - now)
                continue
            self._attempts.begin(key, self._status_write(standing, status, written), REQUEST_TIMEOUT)
        for uid in set(self._written) - set(made.standings):
            del self._written[uid]
        self._attempts.keep("status", made.standings)
        return wait

    def _status_write(
        self, standing: PolicyState, status: dict[str, Any], written: _Written
    ) -> Callable[[], Awaitable[None]]:
        resource = standing.resource

        async def write() -> None:
            written.at, written.differs_since = self._clock(), None
            asked = self._store.mark()
            self._store.resource(await self._cluster.write_status(resource, status), asked=asked)
            self._tell_news(resource, status)

        return write

    def _tell_news(self, resource: Resource, status: Mapping[str, Any]) -> None:
        about = {
            "apiVersion": "aurumai.io/v1alpha1",
            "kind": resource.kind,
            "name": resource.name,
            "uid": resource.uid,
        }
        for kind, reason, message in _news(resource.status, status):
            logger.log(logging.WARNING if kind == "Warning" else logging.INFO, "%s: %s", resource.name, message)
            self._tell(about, kind, reason, message)


def _settled(status: Mapping[str, Any]) -> bool:
    """Whether a status is not expected to change soon by itself."""
    conditions = {each["type"]: each for each in status["conditions"]}
    return (
        conditions["Accepted"]["status"] == "False"
        or conditions["Converged"]["status"] == "True"
        or conditions["Converged"]["reason"] == "Refused"
        or "RolledBack" in conditions
    )


def _without_shadow(status: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name != "shadow"}


def _news(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the events for a change of status: type, reason and message of each."""
    old = {each["type"]: each for each in before.get("conditions", ())}
    found = []
    for each in after["conditions"]:
        known = old.get(each["type"], {})
        if (each["status"], each["reason"]) == (known.get("status"), known.get("reason")) and each[
            "observedGeneration"
        ] == known.get("observedGeneration"):
            continue
        match each["type"], each["status"]:
            case ("Accepted", "False") | ("RolledBack", "True"):
                found.append(("Warning", each["reason"], each["message"]))
            case "Converged", "True":
                found.append(("Normal", "Converged", f"generation {each['observedGeneration']}: {each['message']}"))
            case "Converged", "False" if each["reason"] == "Refused":
                found.append(("Warning", "Refused", each["message"]))
    return found


def _measure(made: DesiredState) -> None:
    counts = dict.fromkeys(("converged", "progressing", "rolled_back", "refused", "not_accepted"), 0)
    for status in made.statuses.values():
        conditions = {each["type"]: each for each in status["conditions"]}
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
