"""What survives which change of the policy document: each row of the table in docs/resilience.md."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aurum.resilience import ErrorClassifier, Pipeline, PipelineRegistry, Policy, PolicyDocument
from aurum.runtime.policy.document import PlatformPolicyDocument
from tests.support.resilience import Clock

_DOCS = Path(__file__).parents[3] / "docs" / "resilience.md"
_HEAD = "| change | breaker | window | adaptive limit | tokens | calls in progress |"
_ERRORS = ErrorClassifier()
_DEFAULT = Policy(target="*/*/*")
_KEPT = ("kept", "kept", "kept", "kept", "kept")


def _rows() -> dict[str, tuple[str, ...]]:
    lines = _DOCS.read_text().partition(_HEAD)[2].partition("\n\n")[0].strip().splitlines()[1:]
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    return {row[0]: row[1:] for row in cells}


def policy(target: str = "api/store/*", **parts: Any) -> dict[str, Any]:
    whole = {
        "target": target,
        "retry": {"budgetFloor": 8},
        "circuitBreaker": {"mode": "count", "windowCalls": 10, "minimumCalls": 6, "open": "30s", "openJitter": 0},
        "adaptiveConcurrency": {"algorithm": "aimd", "initialLimit": 20, "minLimit": 4, "maxLimit": 64},
    }
    for name, part in parts.items():
        whole[name] = (whole.get(name) or {}) | part if part is not None else None
    return whole


def document(*policies: dict[str, Any], **more: Any) -> PolicyDocument:
    return PlatformPolicyDocument.model_validate({"policies": list(policies), **more})


@dataclass
class Plant:
    """The pipelines of three methods, and what has happened to them: so many failures in the window, two retries, a
    limit that was lowered, a call in progress."""

    pipelines: PipelineRegistry
    clock: Clock = field(default_factory=Clock)

    @classmethod
    def of(cls, before: PolicyDocument) -> "Plant":
        clock = Clock(100.0)
        return cls(PipelineRegistry(before, _DEFAULT, clock=clock), clock)

    def __getitem__(self, method: str) -> Pipeline:
        return self.pipelines.pipeline_for("api", "store", method, _ERRORS)

    def learn(self, pipeline: Pipeline, failures: int) -> None:
        assert pipeline.breaker
        permits = [pipeline.breaker.acquire() for _ in range(failures)]
        for permit in permits:
            pipeline.breaker.failed(permit, ConnectionError())
        assert pipeline.budget.withdraw()
        assert pipeline.budget.withdraw()
        for _ in range(2):  # samples of AIMD with a dropped call, each of which takes a tenth off
            for later in (0.0, 0.125):
                self.clock.now += later
                assert pipeline.limit.try_acquire()
                pipeline.limit.release(0.01, dropped=True)
        assert pipeline.limit.try_acquire()  # and this call goes on


@dataclass
class Seen:
    state: str
    window: tuple[int, int]
    limit: int
    tokens: float
    in_flight: int


def seen(pipeline: Pipeline) -> Seen:
    breaker = pipeline._breaker  # also where it is switched off
    counts = breaker.counts
    return Seen(
        breaker.current_state,
        (counts.calls, counts.failures),
        pipeline.limit.limit,
        pipeline.budget.tokens,
        pipeline.limit.in_flight,
    )


def cells(before: Seen, after: Seen, opened: Seen, **others: str) -> tuple[str, ...]:
    """What became of each, in the words of the table. opened: the same change while the breaker was open. others: words
    for what is not kept, to be looked at by the test itself."""
    return (
        "kept" if opened.state == "open" else opened.state,
        others.get("window") or ("kept" if after.window == before.window else "empty"),
        others.get("limit") or ("kept" if after.limit == before.limit else f"{after.limit}"),
        "kept" if after.tokens == before.tokens else f"{after.tokens}",
        "kept" if after.in_flight == before.in_flight == 1 else f"{after.in_flight}",
    )


def changed(before: PolicyDocument, after: PolicyDocument, failures: int) -> tuple[Seen, Seen]:
    """One pipeline before and after a change."""
    plant = Plant.of(before)
    plant.learn(plant["Read"], failures)
    was = seen(plant["Read"])
    plant.pipelines.apply(after)
    (pipeline,) = plant.pipelines
    assert plant["Read"] is pipeline
    return was, seen(pipeline)


def change(after: dict[str, Any], before: dict[str, Any] | None = None, **words: str) -> tuple[str, ...]:
    documents = document(before or policy()), document(after)
    was, now = changed(*documents, failures=4)
    assert was == Seen("closed", (4, 4), was.limit, 6.0, 1)
    return cells(was, now, changed(*documents, failures=6)[1], **words)


def _elsewhere() -> list[tuple[str, ...]]:
    found = []
    for more in (
        {"generation": 2},
        {"sources": [{"name": "n", "uid": "u", "generation": 3}]},
        {"telemetry": {"logLevel": "DEBUG"}},
        {"servers": [{"server": "store"}]},
        {"shadows": [{"target": "api/store/*"}]},
    ):
        documents = document(policy()), document(policy(), **more)
        found.append(cells(*changed(*documents, failures=4), changed(*documents, failures=6)[1]))
    documents = document(policy()), document(policy("edge/store/*"), policy())
    found.append(cells(*changed(*documents, failures=4), changed(*documents, failures=6)[1]))
    return found


def _renamed() -> list[tuple[str, ...]]:
    documents = document(policy()), document(default=policy("*/*/*"))
    return [
        change(policy("api/store/Read")),
        change(policy("api/store/R*")),
        change(policy("*/*/*")),
        change(policy("api/store/*"), policy("api/store/Re?d")),
        cells(*changed(*documents, failures=4), changed(*documents, failures=6)[1]),
    ]


def _breaker_fields() -> list[tuple[str, ...]]:
    fields: list[dict[str, Any]] = [
        {"failureRate": 0.9},
        {"minimumCalls": 7},
        {"windowCalls": 20},
        {"slowCall": "1s"},
        {"failureCodes": ["UNAVAILABLE"]},
        {"open": "9s", "maxOpen": "10s"},
        {"openGrowth": 3, "openJitter": 0.5},
        {"halfOpenProbes": 3},
    ]
    whole = [change(policy(circuitBreaker=each)) for each in fields]
    assert set(whole) == {_KEPT}
    was, now = changed(
        document(policy()), document(policy(circuitBreaker={"windowCalls": 3, "minimumCalls": 3})), failures=4
    )
    assert (was.window, now.window) == ((4, 4), (3, 3))
    return [(*each[:1], "kept, as much as fits", *each[2:]) for each in whole]


def _adaptive_fields() -> list[tuple[str, ...]]:
    for part, limit in (({"maxLimit": 12, "initialLimit": 12}, 12), ({"minLimit": 18}, 18)):
        was, now = changed(document(policy()), document(policy(adaptiveConcurrency=part)), failures=4)
        assert (was.limit, now.limit) == (16, limit)
    fields: list[dict[str, Any]] = [{"initialLimit": 30}, {"minLimit": 2}, {"maxLimit": 17, "initialLimit": 17}]
    found = [change(policy(adaptiveConcurrency=each)) for each in [*fields, {"slowCall": "1s"}]]
    assert set(found) == {_KEPT}
    return [(*each[:2], "kept, within the bounds", *each[3:]) for each in found]


def _algorithm() -> list[tuple[str, ...]]:
    found = change(policy(adaptiveConcurrency={"algorithm": "vegas"}))
    assert found == _KEPT
    return [(*found[:2], "kept, without samples", *found[3:])]


def _added() -> list[tuple[str, ...]]:
    was, now = changed(document(policy(adaptiveConcurrency=None)), document(policy()), failures=4)
    assert (was.limit, now.limit) == (256, 20)
    return [change(policy(), policy(adaptiveConcurrency=None), limit="`initialLimit`")]


def _removed() -> list[tuple[str, ...]]:
    without = policy(adaptiveConcurrency=None, bulkhead={"maxConcurrent": 99})
    was, now = changed(document(policy()), document(without), failures=4)
    assert (was.limit, now.limit) == (16, 99)
    return [change(without, limit="`maxConcurrent`")]


def _divided() -> list[tuple[str, ...]]:
    seen_by: dict[int, list[Seen]] = {}
    for failures in (4, 6):
        plant = Plant.of(document(policy()))
        whole = plant["Read"]
        assert whole is plant["Write"] is plant["List"]
        plant.learn(whole, failures)
        plant.pipelines.apply(document(policy("api/store/Read"), policy()))
        part, rest = plant["Read"], plant["Write"]
        assert rest is plant["List"] is whole is not part
        seen_by[failures] = [seen(rest), seen(part)]
    assert seen_by[4] == [Seen("closed", (4, 4), 16, 3.0, 1), Seen("closed", (4, 4), 16, 3.0, 0)]
    assert [each.state for each in seen_by[6]] == ["open", "open"]
    return [("copied", "copied", "copied", "divided evenly", "of the largest part")]


def _joined() -> list[tuple[str, ...]]:
    for failures, state in ((4, "closed"), (6, "open")):
        plant = Plant.of(document(policy("api/store/Read"), policy()))
        small, large = plant["Read"], plant["Write"]
        assert large is plant["List"] is not small
        plant.learn(small, failures)
        plant.learn(large, 1)
        plant.learn(large, 0)  # its limit is lower, and two of its calls go on
        assert (small.limit.limit, large.limit.limit, large.limit.in_flight) == (16, 13, 2)
        plant.pipelines.apply(document(policy()))
        assert plant["Read"] is plant["Write"] is plant["List"] is large
        now = seen(large)
        assert (now.state, now.limit, now.tokens, now.in_flight) == (state, 13, 10.0, 2)
        assert now.window == (failures, failures)
    nearest, largest = "nearest to refusing", "of the largest part"
    return [(nearest, nearest, largest, "added", largest)]


_PROOFS: dict[str, Callable[[], list[tuple[str, ...]]]] = {
    "`generation`, `sources`, `telemetry`, `servers`, `shadows`, another policy": _elsewhere,
    "`target`, for the same calls; or `default` governs them now": _renamed,
    "`timeout`, `hedge`, `fallback`": lambda: [
        change(policy(timeout={"attempt": "1s", "deadline": "9s"})),
        change(policy(hedge={"delay": "50ms"})),
        change(policy(fallback={"rule": False})),
    ],
    "`retry`": lambda: [
        change(policy(retry={"maxAttempts": 9, "retryOn": ["ABORTED"]})),
        change(policy(retry={"budgetRatio": 0.5})),
        change(policy(retry={"budgetFloor": 5})),
    ],
    "`circuitBreaker`, other fields than the next two": _breaker_fields,
    "`circuitBreaker.mode`": lambda: [
        change(policy(circuitBreaker={"mode": mode})) for mode in ("time", "consecutive")
    ],
    "`circuitBreaker.enabled: false`": lambda: [change(policy(circuitBreaker={"enabled": False}))],
    "`bulkhead`": lambda: [change(policy(bulkhead={"maxConcurrent": 99, "maxQueued": 7, "maxWait": "1s"}))],
    "`adaptiveConcurrency`, other fields than the next": _adaptive_fields,
    "`adaptiveConcurrency.algorithm`": _algorithm,
    "`adaptiveConcurrency` added": _added,
    "`adaptiveConcurrency` removed": _removed,
    "a target divided into several": _divided,
    "several targets joined": _joined,
}


def test_each_documented_change_is_proved() -> None:
    assert list(_rows()) == list(_PROOFS)


@pytest.mark.parametrize("row", list(_PROOFS))
def test_change_keeps_what_its_row_says(row: str) -> None:
    assert set(_PROOFS[row]()) == {_rows()[row]}
