"""What a rollout's guard makes of a Prometheus' answers; a small HTTP server stands for it."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from aurum.operator.cluster_snapshot import GuardFinding, Pod, Resource
from aurum.operator.merging import Parsed, PolicyTarget
from aurum.operator.resources import GuardSpec, RolloutSpec
from aurum.operator.rollout import Rollout
from aurum.operator.rollout_analysis import RolloutAnalysis
from aurum.resilience.status import SERVER_FAULTS
from aurum.runtime.http.client import HttpDependency
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings
from tests.support.prometheus import Prometheus
from tests.support.waiting import until

PODS = (Pod("api-1", "1", "api", ""), Pod("api-2.x", "2", "api", ""))


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    running = Prometheus()
    running.answers = {"policy_generation": {pod.name: 3.0 for pod in PODS}}
    yield running
    running.stop()


async def find(address: str, guard: GuardSpec, since: float | None = 20.0) -> GuardFinding:
    """What the guard finds first. since: seconds ago."""
    began = None if since is None else time.time() - since
    policies = Policies("operator", Settings())
    dependency = HttpDependency("operator", "prometheus", address, policies)
    changed = asyncio.Event()
    guards = RolloutAnalysis(dependency, "", changed.set)
    resource = Resource("ResiliencePolicy", "p", "uid", 1, "", {})
    parsed = Parsed(
        resource, 1, targets=(PolicyTarget("api", "prediction", "Predict"),), rollout=RolloutSpec(guard=guard)
    )
    guards.follow({"uid": (parsed, PODS)}, {"uid": Rollout(1, "Progressing", 0, began)})
    running = asyncio.create_task(guards.run())
    await asyncio.wait_for(changed.wait(), 10)
    running.cancel()
    await dependency.close()
    return guards.findings["uid"]


async def test_guard_burns_above_allowed_error_ratio(prometheus: Prometheus) -> None:
    prometheus.answers = {"code=~": {"": 0.2}, **prometheus.answers}
    assert await find(prometheus.address, GuardSpec()) == GuardFinding(
        True, "a share of 0.2 of the calls fails, more than 0.05"
    )
    query = prometheus.asked[0]
    assert 'k8s_pod_name=~"api-1|api-2[.]x"' in query
    assert 'method=~"/aurum[.]v1[.]PredictionService/Predict"' in query
    counted = query.partition('code=~"')[2].partition('"')[0].split("|")
    assert sorted(counted) == sorted((*SERVER_FAULTS, "RESOURCE_EXHAUSTED"))  # a policy may overload its target


async def test_guard_burns_on_open_breaker_latency_or_own_query(prometheus: Prometheus) -> None:
    before = dict(prometheus.answers)
    prometheus.answers = {"circuit_breaker_state": {"api-1": 1.0}, **before}
    assert (await find(prometheus.address, GuardSpec())).figures == "a circuit breaker is open"
    prometheus.answers = {"histogram_quantile": {"": 1.25}, **before}
    finding = await find(prometheus.address, GuardSpec(p99="500ms"))
    assert finding == GuardFinding(True, "the 99th percentile of the calls is 1.25 s, above 500ms")
    prometheus.answers = {"mine": {"": 7.0}, **before}
    finding = await find(prometheus.address, GuardSpec(query='mine{pod=~"$pods"} > 3'))
    assert finding == GuardFinding(True, "the guard's query yields 7")
    assert 'mine{pod=~"api-1|api-2[.]x"} > 3' in prometheus.asked


async def test_guard_is_quiet_without_errors_or_calls(prometheus: Prometheus) -> None:
    prometheus.answers = {"code=~": {"": 0.01}, **prometheus.answers}
    finding = await find(prometheus.address, GuardSpec())
    assert finding == GuardFinding(False, "error ratio: 0.01; open breakers: none")
    prometheus.answers["code=~"] = {"": float("nan")}
    assert (await find(prometheus.address, GuardSpec())).burns is False


@pytest.mark.parametrize(
    ("samples", "since", "why"),
    [
        ({"api-1": 1.0, "api-2.x": 4.0}, 20.0, "too little of api-1"),
        ({"api-1": 4.0}, 20.0, "too little of api-2.x"),
        ({"api-1": 4.0, "api-2.x": 4.0}, None, "not every pod of the step has it yet"),
        ({"api-1": 4.0, "api-2.x": 4.0}, 0.0, "just now"),
    ],
)
async def test_guard_is_undecided_without_recent_figures(
    prometheus: Prometheus, samples: dict[str, float], since: float | None, why: str
) -> None:
    prometheus.answers = {"policy_generation": samples}
    finding = await find(prometheus.address, GuardSpec(), since)
    assert finding.burns is None
    assert why in finding.figures


async def test_guard_window_is_limited_to_the_step(prometheus: Prometheus) -> None:
    await find(prometheus.address, GuardSpec(), 12.5)
    assert "[12s]" in prometheus.asked[0]
    await find(prometheus.address, GuardSpec(), 500.0)
    assert "[30s]" in prometheus.asked[-3]


async def test_guard_is_undecided_without_prometheus() -> None:
    finding = await find("127.0.0.1:9", GuardSpec())
    assert finding.burns is None
    assert finding.figures.startswith("Prometheus cannot be asked")


async def test_guard_finds_harm_before_every_pod_has_it(prometheus: Prometheus) -> None:
    prometheus.answers = {"code=~": {"": 0.2}, **prometheus.answers}
    policies = Policies("operator", Settings())
    dependency = HttpDependency("operator", "prometheus", prometheus.address, policies)
    guards = RolloutAnalysis(dependency, "", lambda: None)
    resource = Resource("ResiliencePolicy", "p", "uid", 1, "", {})
    parsed = Parsed(resource, 1, targets=(PolicyTarget("api", "prediction", "Predict"),), rollout=RolloutSpec())
    guards.follow({"uid": (parsed, PODS[:1])}, {"uid": Rollout(1, "Progressing", 0, None)})
    running = asyncio.create_task(guards.run())
    try:
        await until(lambda: "uid" in guards.findings and guards.findings["uid"].burns is not None)
        assert guards.findings["uid"].burns
        assert 'k8s_pod_name=~"api-1"' in prometheus.asked[0]
    finally:
        running.cancel()
        await dependency.close()
