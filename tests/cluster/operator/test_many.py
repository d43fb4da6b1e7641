"""Many policies, many pods, many deaths: the operator on a real API server, in this process so that it can die between
any two of its writes; the pods are played (see fake.py)."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Mapping
from typing import Any

import pytest

from aurum.operator.api_connection import open_client
from aurum.operator.cluster_snapshot import ClusterSnapshot, Resource, Workload
from aurum.operator.desired_state import derive_desired_state
from aurum.operator.informer_cache import InformerCache
from aurum.operator.kubernetes import Cluster
from aurum.operator.pod_poller import PodPoller
from aurum.operator.reconciler import Reconciler
from aurum.operator.service import BUILT_IN
from aurum.runtime.http.client import HttpDependency
from aurum.runtime.policy.call_catalog import CALLS
from aurum.runtime.policy.document import parse_platform_document
from aurum.runtime.policy.files import DEFAULTS
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings
from tests.support.cluster.fake_release import RELEASE, FakeRelease
from tests.support.cluster.kube import Namespace, wait_for
from tests.support.cluster.operator import MakeRelease, Operator, converged, policy

KILLS = 200


class Killed(BaseException):
    """What SIGKILL is to a process: nothing catches it, nothing is tidied up."""


class MortalCluster(Cluster):
    """Dies before or after its n-th write."""

    writes_left = 10**9

    def _live(self) -> None:
        if self.writes_left <= 0:
            raise Killed
        self.writes_left -= 1

    async def apply_config_map(self, workload: Workload, data: Mapping[str, str]) -> dict[str, Any]:
        self._live()
        return await super().apply_config_map(workload, data)

    async def annotate_pod(self, name: str, touched: str, track: str) -> dict[str, Any]:
        self._live()
        return await super().annotate_pod(name, touched, track)

    async def write_status(self, resource: Resource, status: Mapping[str, Any]) -> dict[str, Any]:
        self._live()
        return await super().write_status(resource, status)


async def live(namespace: str, writes: int, seconds: float) -> bool:
    """One life of the operator, from nothing; whether it died at a write, before the time was over."""
    client = open_client(namespace)
    cluster = MortalCluster(client, namespace, RELEASE)
    cluster.writes_left = writes
    policies = Policies("operator", Settings())
    policies.apply(BUILT_IN)
    pods = HttpDependency("operator", "pods", "pods", policies)
    store, nudged = InformerCache("fake-policy"), asyncio.Event()
    reports = PodPoller(pods, nudged.set)
    reconciler = Reconciler(cluster, store, reports, None, nudged, resync=0.3)
    asking = asyncio.create_task(reports.run())
    living = asyncio.create_task(reconciler.run())
    done, _ = await asyncio.wait({living}, timeout=seconds)
    for task in (asking, living):
        task.cancel()
        with contextlib.suppress(Killed, asyncio.CancelledError):
            await task
    await pods.close()
    await client.aclose()
    return bool(done)


@pytest.mark.proof("operator")
def test_operator_killed_200_times_reaches_ideal_state(space: Namespace, releases: MakeRelease) -> None:
    """An operator killed 200 times, often between writes, ends in the state of one never killed."""
    release = releases({"api": 2, "prediction": 1, "ingestion": 1})
    chance = random.Random(7)
    names = [f"p{number}" for number in range(6)]
    parts = ["retry", "bulkhead", "circuitBreaker"]

    def edit() -> None:
        name = chance.choice(names)
        if chance.random() < 0.2:
            space.kubectl("delete", "rp", name, "--ignore-not-found")
            return
        number = names.index(name)
        spec = {
            "retry": {"maxAttempts": chance.randint(1, 9)},
            "bulkhead": {"maxConcurrent": chance.randint(1, 99)},
            "circuitBreaker": {"failMax": chance.randint(1, 99)},
        }[parts[number % 3]]
        refs = [{"service": ("prediction", "ingestion")[number % 2]}]
        space.apply(policy(name, targetRefs=refs, **{parts[number % 3]: spec}))

    in_the_middle = 0
    for number in range(KILLS):
        if number % 4 == 0:
            edit()
        in_the_middle += asyncio.run(live(space.name, chance.randint(0, 3), chance.uniform(0.05, 0.3)))
    assert in_the_middle > KILLS // 10, "too few died between two writes"
    for name in names:
        if chance.random() < 0.5:
            space.kubectl("delete", "rp", name, "--ignore-not-found")
    asyncio.run(live(space.name, 10**9, 8))
    check_settled(space, release)


def check_settled(space: Namespace, release: FakeRelease) -> None:
    """Every policy and every pod is as an operator that never died would have it."""
    bodies = space.get("rp")["items"]
    client_workloads = {
        service: Workload(service, "apps/v1", "Deployment", f"fake-{service}", "")
        for service in {pod.service for pod in release.pods}
    }
    text = space.get("configmap", "fake-policy")["data"][DEFAULTS]
    defaults = parse_platform_document(text, "defaults")
    resources = tuple(Resource.from_json(body) for body in bodies)
    world = ClusterSnapshot(space.name, resources, client_workloads, (), {}, defaults, {}, {}, time.time())
    ideal = derive_desired_state(world, {})
    for pod in release.pods:
        wanted = ideal.services[pod.service].in_force
        has = pod.policies.document
        assert has.policies == wanted.policies, pod.name
        assert has.sources == wanted.sources, pod.name
    for body in bodies:
        standing = ideal.policy_states[body["metadata"]["uid"]]
        conditions = {each["type"]: each["status"] for each in body["status"]["conditions"]}
        accepted = "False" if standing.refusal else "True"
        assert (conditions["Accepted"], conditions["Converged"]) == (accepted, accepted), json.dumps(body["status"])
        assert body["status"]["observedGeneration"] == body["metadata"]["generation"]


@pytest.mark.proof("operator")
def test_hundred_policies_converge_on_twenty_pods(space: Namespace, releases: MakeRelease, operator: Operator) -> None:
    """A hundred policies converge on twenty pods within 90 seconds."""
    release = releases({"api": 10, "prediction": 4, "ingestion": 2, "edge": 2, "iot-sim": 1, "edge-sim": 1})
    present = {pod.service for pod in release.pods}
    calls = [
        (each.client, each.server, method)
        for each in CALLS
        if each.client in present and not each.server.endswith("-admin")
        for method in each.methods
    ]
    wanted = [
        policy(
            f"p{number}",
            targetRefs=[{"client": client, "service": server, "method": method}],
            **{part: spec},
        )
        for number, ((client, server, method), (part, spec)) in enumerate(
            (call, each)
            for call in calls
            for each in (("retry", {"maxAttempts": 4}), ("bulkhead", {"maxConcurrent": 33}))
        )
    ][:100]
    assert len(wanted) == 100
    operator.start()
    started = time.monotonic()
    space.apply(*wanted)
    applied = time.monotonic()
    wait_for(lambda: all(converged_all(space)), 90, "all policies have converged")
    seconds = time.monotonic() - applied
    print(f"100 policies on 20 pods: applied in {applied - started:.1f} s, converged {seconds:.1f} s later")
    assert converged(space, "p0")
    assert operator.metric("operator_pods_lagging") == 0


def converged_all(space: Namespace) -> list[bool]:
    return [
        any(each["type"] == "Converged" and each["status"] == "True" for each in body["status"]["conditions"])
        for body in space.get("rp")["items"]
    ]
