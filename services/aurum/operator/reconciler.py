"""The loop: works out what is to be, writes what is not so, and says in each resource's status how far it has got."""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx2
from lightkube.core.exceptions import ApiError

from aurum.operator.conditions import Standing
from aurum.operator.guards import Guards
from aurum.operator.kubernetes import Cluster, is_gone
from aurum.operator.observed import TOUCHED, TRACK, Pod, Resource, World
from aurum.operator.planning import Plan, ServicePlan, content_hash, plan
from aurum.operator.reports import Reports
from aurum.operator.rollout import Rollout
from aurum.operator.store import Store
from aurum.runtime import metrics
from aurum.runtime.tracing import traced_operation

logger = logging.getLogger(__name__)

_STATUS_INTERVAL = 2.0  # seconds between two writes of one resource's status, at least
_UNSETTLED = 1.2  # seconds that a status in between is kept back: it mostly settles sooner
_SHADOW_INTERVAL = 15.0  # seconds between two writes of nothing but what a shadow has counted
_TOUCH_AGAIN, _TOUCH_LONGEST = 0.7, 60.0  # seconds after which a pod that did not follow is touched again, doubling
_BACKOFF, _BACKOFF_LONGEST = 0.2, 30.0  # seconds to wait after errors, doubling


@dataclass(slots=True)
class _Touch:
    wanted: str
    number: int = 0
    at: float = 0.0

    @property
    def pause(self) -> float:
        """Seconds until it is touched again."""
        return min(_TOUCH_LONGEST, _TOUCH_AGAIN * 2.0 ** max(0, min(self.number, 20) - 1))


@dataclass(slots=True)
class _Written:
    at: float = -_STATUS_INTERVAL
    differs_since: float | None = None


class Reconciler:
    """nudged: set when something has changed. resync: seconds between two looks at everything."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        reports: Reports,
        guards: Guards | None,
        nudged: asyncio.Event,
        *,
        resync: float,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._reports = reports
        self._guards = guards
        self._resync = resync
        self._nudged = nudged
        self._rollouts: dict[str, Rollout] = {}
        self._touches: dict[str, _Touch] = {}
        self._written: dict[str, _Written] = {}
        self._made: set[str] = set()  # services whose ConfigMap has been there
        self._listed_at = float("-inf")

    async def run(self) -> None:
        """Reconciles, for as long as it runs; after errors later and later."""
        backoff = 0.0
        while True:
            self._nudged.clear()
            started = time.monotonic()
            try:
                with traced_operation("reconcile"):
                    if started - self._listed_at >= self._resync:
                        await self._list()
                    again = await self._reconcile()
                metrics.operator_reconciles_total.labels("done").inc()
                backoff = 0.0
            except (ApiError, httpx2.HTTPError, OSError) as error:
                backoff = min(_BACKOFF_LONGEST, 2 * backoff or _BACKOFF)
                again = backoff
                self._listed_at = float("-inf")  # what it knows may be wrong
                logger.warning("the policies could not be brought about, trying again in %.1f s: %s", backoff, error)
                metrics.operator_reconciles_total.labels("failed").inc()
                metrics.track_error(type(error).__name__)
            metrics.operator_backoff_seconds.set(backoff)
            metrics.operator_reconcile_duration_seconds.observe(time.monotonic() - started)
            if backoff:
                await asyncio.sleep(backoff)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.005, again)):
                    await self._nudged.wait()

    async def _list(self) -> None:
        cluster = self._cluster
        self._store.workloads = await cluster.workloads()
        self._store.take_all(await cluster.resources(), await cluster.pods(), await cluster.config_maps())
        gc.collect()  # what a list leaves behind is large, and seldom enough looked for
        self._listed_at = time.monotonic()

    async def _reconcile(self) -> float:
        """Brings about what is to be, as far as it can be now; seconds until there is more to do."""
        store = self._store
        world = World(
            self._cluster.namespace,
            store.resources,
            store.workloads,
            store.pods,
            store.config_maps(),
            store.defaults,
            self._reports.by_pod,
            self._guards.findings if self._guards else {},
            time.time(),
            guarded=self._guards is not None,
        )
        made = plan(world, self._rollouts)
        if store.problem:
            made = replace(made, problems=(store.problem, *made.problems))
        for problem in made.problems:
            logger.error("%s", problem)
        self._rollouts = dict(made.rollouts)
        for service in made.services.values():
            await self._write_config_map(service)
        lagging = await self._touch_pods(made)
        self._reports.follow(
            (pod, service.document_of(pod).content_hash)
            for name, service in made.services.items()
            for pod in world.pods_of(name)
        )
        if self._guards:
            self._guards.follow(made.watched, made.rollouts)
        waits = [await self._write_statuses(made), lagging, self._listed_at + self._resync - time.monotonic()]
        waits += [
            rollout.since + standing.rollout_spec.pause - time.time() + 0.05
            for uid, rollout in made.rollouts.items()
            if rollout.state == "Progressing"
            and rollout.since is not None
            and (standing := made.standings[uid]).rollout_spec is not None
            and rollout.since + standing.rollout_spec.pause > time.time()
        ]
        _measure(made)
        return min(waits)

    async def _write_config_map(self, service: ServicePlan) -> None:
        name, data = service.workload.service, service.data
        before = self._store.config_maps().get(name)
        if before is not None and before.data == data and before.content == content_hash(data):
            self._made.add(name)
            return
        by_hand = before.content != content_hash(before.data) if before else name in self._made
        body = await self._cluster.apply_config_map(service.workload, data)
        self._store.config_map(body)
        self._made.add(name)
        logger.info(
            "a ConfigMap was written",
            extra={"config_map": service.workload.config_map, "generation": service.in_force.generation},
        )
        if by_hand:
            metadata = body["metadata"]
            about = {"apiVersion": "v1", "kind": "ConfigMap", "name": metadata["name"], "uid": metadata["uid"]}
            what = "deleted" if before is None else "edited"
            logger.warning("the ConfigMap %s was %s by somebody else and is put back", metadata["name"], what)
            message = f"it was {what} by somebody else; edit a ResiliencePolicy or TelemetryPolicy instead"
            await self._cluster.event(about, "Warning", "Restored", message, time.time())

    async def _touch_pods(self, made: Plan) -> float:
        """Makes the kubelet bring each pod what it is to have; seconds until one is to be touched again."""
        lagging, wait = 0, float("inf")
        present: set[str] = set()
        for name, service in made.services.items():
            for pod in self._store.pods:
                if pod.service != name:
                    continue
                present.add(pod.uid)
                wait = min(wait, await self._touch(service, pod))
                report = self._reports.by_pod.get(pod.uid)
                lagging += report is None or report.hash != service.document_of(pod).content_hash
        for uid in set(self._touches) - present:
            del self._touches[uid]
        metrics.operator_pods_lagging.set(lagging)
        return wait

    async def _touch(self, service: ServicePlan, pod: Pod) -> float:
        document, track = service.document_of(pod), service.track_of(pod)
        wanted, now = document.content_hash, time.monotonic()
        touch = self._touches.get(pod.uid)
        if touch is None or touch.wanted != wanted:
            touch = self._touches[pod.uid] = _Touch(wanted)
        report = self._reports.by_pod.get(pod.uid)
        has_it = report is not None and report.hash == wanted
        refuses = report is not None and report.refused_generation == document.generation
        annotated = pod.annotations.get(TOUCHED, "").split("/")[0] == wanted and (
            pod.annotations.get(TRACK, "stable") == track
        )
        if (has_it and annotated) or refuses:
            return float("inf")
        if has_it and pod.annotations.get(TRACK, "stable") == track:
            return float("inf")  # it came with it: nobody has to look
        pause = touch.pause
        if annotated and touch.number == 0:  # by the operator before this one
            touch.number, touch.at = 1, now
        if annotated and now - touch.at < pause:
            return touch.at + pause - now
        touch.number, touch.at = touch.number + 1, now
        try:
            self._store.pod(await self._cluster.touch_pod(pod.name, f"{wanted}/{touch.number}", track))
        except ApiError as error:
            if not is_gone(error):
                raise
        return touch.pause

    async def _write_statuses(self, made: Plan) -> float:
        """Writes the statuses that are to be written now; seconds until the next one is."""
        wait, now = float("inf"), time.monotonic()
        for uid, standing in made.standings.items():
            resource, status = standing.resource, made.statuses[uid]
            written = self._written.setdefault(uid, _Written())
            if resource.status == status:
                written.differs_since = None
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
            written.at, written.differs_since = now, None
            await self._write_status(resource, standing, status)
        for uid in set(self._written) - set(made.standings):
            del self._written[uid]
        return wait

    async def _write_status(self, resource: Resource, standing: Standing, status: dict[str, Any]) -> None:
        try:
            self._store.resource(await self._cluster.write_status(resource, status))
        except ApiError as error:
            if is_gone(error):
                logger.info("%s %s has gone: %s", resource.kind, resource.name, error)
                return
            raise
        about = {
            "apiVersion": "aurumai.io/v1alpha1",
            "kind": resource.kind,
            "name": resource.name,
            "uid": resource.uid,
        }
        for kind, reason, message in _news(resource.status, status):
            logger.log(logging.WARNING if kind == "Warning" else logging.INFO, "%s: %s", resource.name, message)
            await self._cluster.event(about, kind, reason, message, time.time())


def _settled(status: Mapping[str, Any]) -> bool:
    """Whether a status will not soon be another by itself."""
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
    """What a person wants to hear of a change of status: type, reason and message of events."""
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


def _measure(made: Plan) -> None:
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
