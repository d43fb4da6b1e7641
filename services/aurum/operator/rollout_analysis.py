"""Guards of rollouts: they check in Prometheus whether the pods with the new generation exceed their limits."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aurum.operator.cluster_snapshot import GuardFinding, Pod
from aurum.operator.merging import Parsed, PolicyTarget
from aurum.operator.resources import GuardSpec
from aurum.operator.rollout import Rollout
from aurum.resilience.durations import format_duration
from aurum.resilience.status import NOT_SERVED
from aurum.runtime.errors import AurumError
from aurum.runtime.http.client import HttpDependency
from aurum.runtime.rpc_methods import INGESTION_SERVICE, PREDICTION_SERVICE

_AT_A_TIME = 8  # rollouts that are checked at a time
INTERVAL = 2.0  # seconds between two checks
_LONGEST_WINDOW = 30.0  # seconds; the pause counts if it is longer
_SAMPLES = 2  # samples of a pod since the step began, below which there is no rate
_NOT_SERVED = "|".join(NOT_SERVED)
_SERVICES = {
    "ingestion": INGESTION_SERVICE,
    "edge": INGESTION_SERVICE,
    "prediction": PREDICTION_SERVICE,
}

_TOO_FEW = GuardFinding(None, "not every pod of the step has it yet")


class RolloutAnalysis:
    """Checks all rollouts in progress.

    Args:
        prometheus: Client of Prometheus.
        prefix: Path prefix of its API.
        on_change: Called when a finding differs from the previous one.

    Attributes:
        findings: Findings of the rollouts in progress, by the uids of the resources.
    """

    def __init__(self, prometheus: HttpDependency, prefix: str, on_change: Callable[[], None]) -> None:
        self.findings: dict[str, GuardFinding] = {}
        self._prometheus = prometheus
        self._prefix = prefix
        self._on_change = on_change
        self._watched: Mapping[str, tuple[Parsed, tuple[Pod, ...]]] = {}
        self._steps: dict[str, tuple[int, int, frozenset[str]]] = {}
        self._since: dict[str, float | None] = {}
        self._began: dict[str, float] = {}

    def follow(self, watched: Mapping[str, tuple[Parsed, tuple[Pod, ...]]], rollouts: Mapping[str, Rollout]) -> None:
        """Replaces the rollouts to check.

        A finding is dropped when the step of its rollout changes.

        Args:
            watched: Resources and exposed pods by uid.
            rollouts: Present state of each rollout by uid.
        """
        self._watched = watched
        self._since = {uid: rollouts[uid].since for uid in watched}
        for uid, (parsed, pods) in watched.items():
            step = (parsed.generation, rollouts[uid].step, frozenset(pod.uid for pod in pods))
            if self._steps.get(uid) != step:
                self._steps[uid], self._began[uid] = step, time.time()
                self.findings.pop(uid, None)
        for uid in set(self._steps) - set(watched):
            del self._steps[uid], self._began[uid]
            self.findings.pop(uid, None)

    async def run(self) -> None:
        """Checks the rollouts until it is cancelled."""
        while True:
            places = asyncio.Semaphore(_AT_A_TIME)
            await asyncio.gather(
                *(self._check_rollout(uid, *watched, places) for uid, watched in self._watched.items())
            )
            await asyncio.sleep(INTERVAL)

    async def _check_rollout(self, uid: str, parsed: Parsed, pods: tuple[Pod, ...], places: asyncio.Semaphore) -> None:
        """Checks one rollout. The finding counts only if the rollout is still at the same step afterwards."""
        async with places:
            step, since = self._steps.get(uid), self._since.get(uid)
            finding = await self._query_guard(parsed, pods, since, self._began.get(uid, math.inf))
        if (step, since) == (self._steps.get(uid), self._since.get(uid)) and finding != self.findings.get(uid):
            self.findings[uid] = finding
            self._on_change()

    async def _query_guard(
        self, parsed: Parsed, pods: tuple[Pod, ...], since: float | None, began: float
    ) -> GuardFinding:
        """Queries Prometheus for harm.

        Args:
            parsed: The resource.
            pods: Pods that have the new generation in force.
            since: When every pod of the step had it, or None. Until then only harm is reported.
            began: When the step began for these pods.
        """
        rollout, start = parsed.rollout, began if since is None else since
        # Times before the step are excluded, such as the failures of a generation that was rolled back
        seconds = min(max(_LONGEST_WINDOW, rollout.pause), time.time() - start) if pods and rollout else 0.0
        window = int(max(0.0, seconds))
        if rollout is None or window < 1:
            return (
                _TOO_FEW if since is None or not pods else GuardFinding(None, "every pod of the step has it just now")
            )
        figures: list[str] = []
        try:
            for question in _guard_queries(parsed, rollout.guard, pods, f"{window}s"):
                worst = await self._worst_value(question.query)
                if worst is None:
                    figures.append(f"{question.name}: none")  # no traffic, no harm
                elif question.most is None or worst > question.most:
                    return GuardFinding(True, question.harm.format(f"{worst:.4g}"))
                else:
                    figures.append(f"{question.name}: {worst:.4g}")
            series = await self._query(
                f"min by (k8s_pod_name) (count_over_time(policy_generation{{{_pod_matcher(pods)}}}[{window}s]))"
            )
        except (AurumError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            why = error.message if isinstance(error, AurumError) else f"it does not answer as it should, {error!r}"
            return GuardFinding(None, f"Prometheus cannot be asked: {why}"[:300])
        if since is None:
            return _TOO_FEW
        samples = {labels.get("k8s_pod_name", ""): value for labels, value in series}
        if unseen := [pod.name for pod in pods if samples.get(pod.name, 0.0) < _SAMPLES]:
            return GuardFinding(None, f"Prometheus has too little of {unseen[0]} yet")
        return GuardFinding(False, "; ".join(figures))

    async def _worst_value(self, query: str) -> float | None:
        return max((value for _, value in await self._query(query) if not math.isnan(value)), default=None)

    async def _query(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Returns the labels and values of a query's present series."""
        answer = await self._prometheus.get_json(
            f"{self._prefix}/api/v1/query", {"query": query, "time": f"{time.time():.3f}"}
        )
        return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]


@dataclass(frozen=True, slots=True)
class _GuardQuery:
    """A query and its limit.

    Attributes:
        name: Name of the figure.
        query: PromQL query.
        most: Highest allowed value. None: any value is harm.
        harm: Message for harm, with a place for the value.
    """

    name: str
    query: str
    most: float | None
    harm: str


def _guard_queries(parsed: Parsed, guard: GuardSpec, pods: tuple[Pod, ...], window: str) -> list[_GuardQuery]:
    of_pods = _pod_matcher(pods)
    queries: list[_GuardQuery] = []
    methods = "|".join(sorted({_method_pattern(target) for target in parsed.targets}))
    calls = f'{of_pods}, method=~"{methods}"'
    if methods and guard.error_ratio is not None:
        failed = f'sum(rate(rpc_client_requests_total{{{calls}, code=~"{_NOT_SERVED}"}}[{window}])) or vector(0)'
        query = f"({failed}) / sum(rate(rpc_client_requests_total{{{calls}}}[{window}]))"
        harm = f"a share of {{}} of the calls fails, more than {guard.error_ratio:g}"
        queries.append(_GuardQuery("error ratio", query, guard.error_ratio, harm))
    if methods and guard.p99 is not None:
        rate = f"sum by (le) (rate(rpc_client_duration_seconds_bucket{{{calls}}}[{window}]))"
        harm = f"the 99th percentile of the calls is {{}} s, above {format_duration(guard.p99)}"
        queries.append(_GuardQuery("p99 seconds", f"histogram_quantile(0.99, {rate})", guard.p99, harm))
    if guard.breaker_open and parsed.targets:
        servers = "|".join(sorted({f"[^/]+/{target.server}(/.+)?" for target in parsed.targets}))
        query = f'circuit_breaker_state{{{of_pods}, name=~"{servers}"}} == 1'
        queries.append(_GuardQuery("open breakers", query, None, "a circuit breaker is open"))
    if guard.query is not None:
        queries.append(
            _GuardQuery("query", guard.query.replace("$pods", _pod_pattern(pods)), None, "the guard's query yields {}")
        )
    return queries


def _pod_pattern(pods: tuple[Pod, ...]) -> str:
    return "|".join(_literal_pattern(pod.name) for pod in pods)


def _pod_matcher(pods: tuple[Pod, ...]) -> str:
    """Returns a PromQL matcher of the pods' series."""
    return f'k8s_pod_name=~"{_pod_pattern(pods)}"'


def _method_pattern(target: PolicyTarget) -> str:
    """Returns a regular expression for the method labels of the calls to a target."""
    service = _SERVICES.get(target.server, target.server)
    return f"/{_literal_pattern(service)}/{target.method or '.+'}"


def _literal_pattern(name: str) -> str:
    """Returns a regular expression for a literal name. It avoids backslashes, which PromQL requires to be doubled."""
    return name.replace(".", "[.]")
