"""Metric series and limits of a process while its policy document changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from aurum.resilience import ErrorClassifier, Pipeline, events
from aurum.runtime import metrics
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings, load_settings

Reload = Callable[[str], None]


def series(name: str) -> dict[str, float]:
    """The values of all series that carry this name, by metric, and where there is a second label its value."""
    found = {}
    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.labels.get("name") == name:
                rest = [value for label, value in sample.labels.items() if label != "name"]
                found[" ".join([sample.name, *rest])] = sample.value
    return found


_ALL = {
    "circuit_breaker_state": 0.0,
    "circuit_breaker_failures_total": 0.0,
    "circuit_breaker_rejections_total": 0.0,
    "retry_attempts_total": 0.0,
    "retry_exhausted_total": 0.0,
    "retry_budget_exhausted_total": 0.0,
    "retry_budget_tokens": 0.0,
    "hedges_total": 0.0,
    "concurrency_limit": 256.0,
}


@pytest.fixture
def plant(tmp_path: Path) -> tuple[Policies, Reload]:
    path = tmp_path / "policies.yaml"
    path.write_text("generation: 1")
    policies = Policies("there", load_settings(Settings, policy_file=path))
    generation = [1]

    def reload(text: str) -> None:
        generation[0] += 1
        path.write_text(f"generation: {generation[0]}\n{text}")
        assert policies.reload()

    return policies, reload


def pipeline_of(policies: Policies, server: str, method: str) -> Pipeline:
    return policies.pipeline("here", server, method, ErrorClassifier())


def fail(pipeline: Pipeline) -> None:
    with pytest.raises(ConnectionError), pipeline.attempt():
        raise ConnectionError


def target(*patterns: str, more: str = "") -> str:
    """Policies whose breakers open at once, for long, and whose budgets earn nothing."""
    parts = "circuitBreaker: {failMax: 1, open: 1h, maxOpen: 1h}, retry: {budgetFloor: 0, budgetRatio: 0}"
    return "policies:\n" + "".join(f"- {{target: {pattern}, {parts}{more}}}\n" for pattern in patterns)


def test_series_of_a_renamed_target_move(plant: tuple[Policies, Reload]) -> None:
    policies, reload = plant
    reload(target("here/moved/Do"))
    pipeline = pipeline_of(policies, "moved", "Do")
    assert series("here/moved/Do") == _ALL
    fail(pipeline)
    opened = {"circuit_breaker_state": 1.0, "circuit_breaker_failures_total": 1.0}
    assert series("here/moved/Do") == _ALL | opened
    reload(target("here/moved/*", more=", bulkhead: {maxConcurrent: 9}"))
    assert pipeline_of(policies, "moved", "Do") is pipeline
    assert series("here/moved/Do") == {}
    assert series("here/moved") == _ALL | {"circuit_breaker_state": 1.0, "concurrency_limit": 9.0}


def test_series_of_a_gone_target_are_removed(plant: tuple[Policies, Reload]) -> None:
    policies, reload = plant
    reload(target("here/gone/Do", "here/gone/*"))
    pipeline_of(policies, "gone", "Do")
    other = pipeline_of(policies, "gone", "Else")
    kinds: list[tuple[events.EventKind, str]] = [
        ("breaker_failure", "OSError"),
        ("breaker_rejection", "open"),
        ("retry", "OSError"),
        ("retry_exhausted", "OSError"),
        ("hedge", "2"),
        ("budget_exhausted", ""),
        *(("limit_rejection", each) for each in ("alarm", "telemetry", "query", "batch")),
    ]
    for kind, value in kinds:
        events.emit(kind, "here/gone/Do", value)
    assert len(series("here/gone/Do")) == len(_ALL) + 4
    reload(target("here/gone/*"))
    assert series("here/gone/Do") == {}
    assert pipeline_of(policies, "gone", "Do") is other
    for kind, value in [*kinds, ("limit_change", "3"), ("breaker_state", "open")]:
        events.emit(kind, "here/gone/Do", value)  # as calls that were in progress do
    assert series("here/gone/Do") == {}
    reload(target("here/gone/Do", "here/gone/*"))
    events.emit("breaker_rejection", "here/gone/Do", "open")
    assert series("here/gone/Do") == _ALL | {"circuit_breaker_rejections_total": 1.0}


def test_a_name_stands_for_one_breaker(plant: tuple[Policies, Reload]) -> None:
    policies, reload = plant
    reload(target("here/pair/Q*"))
    both = pipeline_of(policies, "pair", "Query")
    assert both is pipeline_of(policies, "pair", "QueryRange")
    assert both.name == "here/pair/Q*"
    reload(target("here/pair/Query") + "default: {target: here/pair/Query}")
    assert [pipeline_of(policies, "pair", each).name for each in ("Query", "QueryRange")] == [
        "here/pair/Query",
        "here/pair",
    ]
    fail(pipeline_of(policies, "pair", "Query"))
    assert series("here/pair/Query")["circuit_breaker_state"] == 1.0
    assert series("here/pair")["circuit_breaker_state"] == 0.0
    assert series("here/pair/Q*") == {}


def test_exchanged_names_show_their_own_budget(plant: tuple[Policies, Reload]) -> None:
    policies, reload = plant
    reload(target("here/two/A", "here/two/*"))
    first, rest = pipeline_of(policies, "two", "A"), pipeline_of(policies, "two", "B")
    first.budget.take_over(7.0)
    reload(target("here/two/B", "here/two/*"))
    assert (first.name, rest.name) == ("here/two", "here/two/B")
    assert (series("here/two")["retry_budget_tokens"], series("here/two/B")["retry_budget_tokens"]) == (7.0, 0.0)


def test_switched_off_breaker_shows_as_closed(plant: tuple[Policies, Reload]) -> None:
    policies, reload = plant
    reload(target("here/off/*"))
    fail(pipeline_of(policies, "off", "Do"))
    assert series("here/off")["circuit_breaker_state"] == 1.0
    reload("policies: [{target: here/off/*, circuitBreaker: {enabled: false, force: open}}]")
    assert series("here/off")["circuit_breaker_state"] == 0.0
    reload("policies: [{target: here/off/Do, circuitBreaker: {enabled: false}}]")
    assert series("here/off/Do")["circuit_breaker_state"] == 0.0


def test_names_of_gone_targets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_GONE", 2)
    monkeypatch.setattr(metrics, "_gone", {})
    for name in ("one", "two", "three"):
        metrics.initialise_target(name, "closed", 1, lambda: 0.0)
        metrics.forget_target(name)
    for name in ("one", "two", "three"):
        events.emit("retry", name, "OSError")
    assert [bool(series(name)) for name in ("one", "two", "three")] == [True, False, False]
    metrics.retry_attempts_total.remove("one")


def test_series_of_a_gone_shadow_are_removed(plant: tuple[Policies, Reload]) -> None:
    policies, reload = plant
    for number in range(60):  # more than there is room for at a time
        name = f"here/shaded/{number}"
        reload(f"shadows: [{{target: {name}}}]")
        (shadow,) = policies.pipelines.shadows
        for decision in ("opening", "breaker_rejection", "limit_rejection", "timeout"):
            events.emit("shadow_decision", shadow.name, decision)
        assert len(series(name)) == 4
        assert series(f"here/shaded/{number - 1}") == {}
        reload(f"shadows: [{{target: {name}}}]")
        assert len(series(name)) == 4
    reload("")
    assert series("here/shaded/59") == {}


_ADMISSION = "servers: [{{server: there, admission: {{maxConcurrent: 64, maxQueued: {}, maxWait: 200ms, {}}}}}]"
_ADAPTIVE = "adaptiveConcurrency: {algorithm: aimd, initialLimit: 32, minLimit: 4, maxLimit: 64}"


def overload(policies: Policies, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = policies.admission()
    now = [0.0]
    monkeypatch.setattr(limit, "_clock", lambda: now[0])
    for _ in range(2):
        assert limit.try_acquire()
        limit.release(1.0, dropped=True)
        now[0] += 0.125


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("telemetry: {logLevel: DEBUG}\n" + _ADMISSION.format(64, _ADAPTIVE), 28),
        (_ADMISSION.format(7, _ADAPTIVE), 28),
        (_ADMISSION.format(64, _ADAPTIVE.replace("minLimit: 4", "minLimit: 30")), 30),
        (_ADMISSION.format(64, ""), 64),
        ("", 256),
    ],
)
def test_admission_limit_survives_other_changes(
    plant: tuple[Policies, Reload], monkeypatch: pytest.MonkeyPatch, text: str, limit: int
) -> None:
    policies, reload = plant
    reload(_ADMISSION.format(64, _ADAPTIVE))
    admission = policies.admission()
    assert admission.limit == 32
    overload(policies, monkeypatch)
    assert admission.limit == 28
    told: list[Any] = []
    stop = events.subscribe(told.append)
    reload(text)
    stop()
    assert policies.admission() is admission
    assert admission.limit == limit
    if "DEBUG" in text:
        assert told == []
