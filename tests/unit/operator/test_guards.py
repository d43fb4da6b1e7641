"""What a rollout's guard makes of a Prometheus' answers; a small HTTP server stands for it."""

import asyncio
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aurum.operator.cluster_snapshot import Finding, Pod, Resource
from aurum.operator.merging import Parsed, Target
from aurum.operator.resources import GuardSpec, RolloutSpec
from aurum.operator.rollout import Rollout
from aurum.operator.rollout_analysis import Guards
from aurum.resilience.status import SERVER_FAULTS
from aurum.runtime.http.client import HttpDependency
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings
from tests.support.waiting import until

PODS = (Pod("api-1", "1", "api", ""), Pod("api-2.x", "2", "api", ""))


class Prometheus:
    """answers: by a part of the query, the values of its series by pod; what is not there yields nothing."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, float]] = {"policy_generation": {pod.name: 3.0 for pod in PODS}}
        self.asked: list[str] = []
        prometheus = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["query"][0]
                prometheus.asked.append(query)
                found = next((values for part, values in prometheus.answers.items() if part in query), {})
                result = [{"metric": {"k8s_pod_name": pod}, "value": [0, str(value)]} for pod, value in found.items()]
                body = json.dumps({"status": "success", "data": {"result": result}}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    running = Prometheus()
    yield running
    running.server.shutdown()
    running.server.server_close()


async def find(address: str, guard: GuardSpec, since: float | None = 20.0) -> Finding:
    """What the guard finds first. since: seconds ago."""
    began = None if since is None else time.time() - since
    policies = Policies("operator", Settings())
    dependency = HttpDependency("operator", "prometheus", address, policies)
    changed = asyncio.Event()
    guards = Guards(dependency, "", changed.set)
    resource = Resource("ResiliencePolicy", "p", "uid", 1, "", {})
    parsed = Parsed(resource, 1, targets=(Target("api", "prediction", "Predict"),), rollout=RolloutSpec(guard=guard))
    guards.follow({"uid": (parsed, PODS)}, {"uid": Rollout(1, "Progressing", 0, began)})
    running = asyncio.create_task(guards.run())
    await asyncio.wait_for(changed.wait(), 10)
    running.cancel()
    await dependency.close()
    return guards.findings["uid"]


async def test_guard_burns_above_allowed_error_ratio(prometheus: Prometheus) -> None:
    prometheus.answers = {"code=~": {"": 0.2}, **prometheus.answers}
    assert await find(prometheus.address, GuardSpec()) == Finding(
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
    assert finding == Finding(True, "the 99th percentile of the calls is 1.25 s, above 500ms")
    prometheus.answers = {"mine": {"": 7.0}, **before}
    finding = await find(prometheus.address, GuardSpec(query='mine{pod=~"$pods"} > 3'))
    assert finding == Finding(True, "the guard's query yields 7")
    assert 'mine{pod=~"api-1|api-2[.]x"} > 3' in prometheus.asked


async def test_guard_is_quiet_without_errors_or_calls(prometheus: Prometheus) -> None:
    prometheus.answers = {"code=~": {"": 0.01}, **prometheus.answers}
    finding = await find(prometheus.address, GuardSpec())
    assert finding == Finding(False, "error ratio: 0.01; open breakers: none")
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
    guards = Guards(dependency, "", lambda: None)
    resource = Resource("ResiliencePolicy", "p", "uid", 1, "", {})
    parsed = Parsed(resource, 1, targets=(Target("api", "prediction", "Predict"),), rollout=RolloutSpec())
    guards.follow({"uid": (parsed, PODS[:1])}, {"uid": Rollout(1, "Progressing", 0, None)})
    running = asyncio.create_task(guards.run())
    try:
        await until(lambda: "uid" in guards.findings and guards.findings["uid"].burns is not None)
        assert guards.findings["uid"].burns
        assert 'k8s_pod_name=~"api-1"' in prometheus.asked[0]
    finally:
        running.cancel()
        await dependency.close()
