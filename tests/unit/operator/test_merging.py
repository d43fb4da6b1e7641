"""Which resource governs what, which loses, and what the pods get."""

import pytest

from aurum.operator.desired_state import as_yaml
from aurum.runtime.policy.document import parse_platform_document
from tests.support.operator_world import Simulated

PREDICTION = {"targetRefs": [{"service": "prediction"}]}


def document(simulated: Simulated, service: str):
    return simulated.plan().services[service].in_force


def test_policy_part_replaces_only_that_part_of_defaults() -> None:
    simulated = Simulated()
    simulated.apply("patient", {**PREDICTION, "retry": {"maxAttempts": 5}})
    simulated.settle()
    policy = document(simulated, "api").for_call("api", "prediction", "Predict")
    assert policy is not None
    assert (policy.retry.max_attempts, policy.timeout.deadline) == (5, 3.0)
    assert simulated.conditions("patient") == {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("True", "Programmed"),
        "Converged": ("True", "Converged"),
    }
    assert simulated.resources["patient"].status["converged"] == "2/2"
    assert [source.name for source in document(simulated, "api").sources] == ["patient"]
    assert document(simulated, "ingestion").sources == ()


def test_most_specific_policy_wins_for_each_part() -> None:
    simulated = Simulated()
    simulated.apply("all", {**PREDICTION, "retry": {"maxAttempts": 2}, "bulkhead": {"maxConcurrent": 9}})
    method = {"targetRefs": [{"service": "prediction", "method": "Predict"}]}
    simulated.apply("method", {**method, "retry": {"maxAttempts": 4}})
    both = {"targetRefs": [{"service": "prediction", "method": "Predict", "client": "api"}]}
    simulated.apply("both", {**both, "hedge": {"delay": "200ms"}})
    simulated.settle()
    made = document(simulated, "api")
    predict = made.for_call("api", "prediction", "Predict")
    explain = made.for_call("api", "prediction", "Explain")
    assert predict
    assert explain
    assert explain
    assert (predict.retry.max_attempts, predict.bulkhead.max_concurrent, predict.hedge is not None) == (4, 9, True)
    assert (explain.retry.max_attempts, explain.bulkhead.max_concurrent, explain.hedge) == (2, 9, None)
    assert {simulated.conditions(name)["Converged"][0] for name in ("all", "method", "both")} == {"True"}


def test_older_policy_wins_and_younger_reports_conflict() -> None:
    simulated = Simulated()
    simulated.apply("older", {**PREDICTION, "retry": {"maxAttempts": 2}})
    simulated.apply("younger", {**PREDICTION, "retry": {"maxAttempts": 7}})
    simulated.settle()
    assert simulated.conditions("younger")["Accepted"] == ("False", "Conflicted")
    assert simulated.message("younger", "Accepted") == "retry of prediction is governed by older, which is older"
    policy = document(simulated, "api").for_call("api", "prediction", "Predict")
    assert policy
    assert policy.retry.max_attempts == 2
    del simulated.resources["older"]
    simulated.settle()
    assert simulated.conditions("younger")["Converged"] == ("True", "Converged")
    policy = document(simulated, "api").for_call("api", "prediction", "Predict")
    assert policy
    assert policy.retry.max_attempts == 7


def test_deleted_policy_restores_defaults() -> None:
    simulated = Simulated()
    simulated.settle()
    before = document(simulated, "api")
    simulated.apply("patient", {**PREDICTION, "retry": {"maxAttempts": 5}})
    simulated.settle()
    del simulated.resources["patient"]
    simulated.settle()
    after = document(simulated, "api")
    assert after.model_copy(update={"generation": 0}) == before.model_copy(update={"generation": 0})
    assert after.generation > before.generation


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        ({"targetRefs": [{"service": "nobody"}], "retry": {}}, "TargetNotFound", "there is no service nobody"),
        (
            {"targetRefs": [{"service": "prediction", "method": "Guess"}], "retry": {}},
            "TargetNotFound",
            "prediction has no method Guess",
        ),
        (
            {"targetRefs": [{"service": "prediction", "client": "edge"}], "retry": {}},
            "TargetNotFound",
            "edge does not call prediction",
        ),
        ({"targetRefs": [{"service": "pods"}], "retry": {}}, "TargetNotFound", "nothing that runs here calls pods"),
        ({"selector": {"matchLabels": {"a": "b"}}, "retry": {}}, "TargetNotFound", "no Service here has the labels"),
        ({**PREDICTION, "hedge": {"delay": "2s"}}, "Invalid", "hedge.delay: 2s is not below timeout.attempt (1.5s)"),
        ({**PREDICTION, "retry": {"attempts": 3}}, "Invalid", "spec.retry.attempts: is not a field that there is here"),
        (
            {"targetRefs": [{"service": "ingestion", "client": "prediction"}], "timeout": {"attempt": "4s"}},
            "BeyondCallersDeadline",
            "timeout.attempt of prediction→ingestion (4s) is above the deadline of api→prediction (3s)",
        ),
    ],
)
def test_ineffective_policy_is_not_accepted_with_reason(spec: dict, reason: str, message: str) -> None:
    simulated = Simulated()
    simulated.apply("wrong", spec)
    simulated.settle()
    assert simulated.conditions("wrong")["Accepted"] == ("False", reason)
    assert message in simulated.message("wrong", "Accepted")
    assert simulated.conditions("wrong")["Programmed"] == ("False", "NotAccepted")
    assert document(simulated, "api").sources == ()


def test_ineffective_generation_keeps_last_good_one() -> None:
    simulated = Simulated()
    simulated.apply("policy", {**PREDICTION, "retry": {"maxAttempts": 5}})
    simulated.settle()
    simulated.apply("policy", {**PREDICTION, "hedge": {"delay": "2s"}})
    simulated.settle()
    assert simulated.conditions("policy")["Accepted"] == ("False", "Invalid")
    assert simulated.message("policy", "Programmed") == "it has no effect; generation 1 stays"
    policy = document(simulated, "api").for_call("api", "prediction", "Predict")
    assert policy
    assert policy.retry.max_attempts == 5


def test_admission_reaches_server_found_by_selector() -> None:
    simulated = Simulated()
    labels = {"app.kubernetes.io/component": "prediction"}
    simulated.apply("gate", {"selector": {"matchLabels": labels}, "admission": {"maxConcurrent": 7}})
    simulated.settle()
    server = document(simulated, "prediction").for_server("prediction")
    assert server
    assert server.admission.max_concurrent == 7
    assert document(simulated, "api").sources == ()
    assert simulated.resources["gate"].status["converged"] == "2/2"


def test_shadow_policy_leaves_enforced_policy_unchanged() -> None:
    simulated = Simulated()
    simulated.apply("shadow", {**PREDICTION, "mode": "Shadow", "circuitBreaker": {"failMax": 1}})
    simulated.settle()
    made = document(simulated, "api")
    (shadow,) = made.shadows
    assert (shadow.circuit_breaker.fail_max, shadow.timeout.deadline) == (1, 3.0)
    policy = made.for_call("api", "prediction", "Predict")
    assert policy
    assert policy.circuit_breaker.fail_max == 5
    assert simulated.resources["shadow"].status["shadow"]["calls"] == 0


def test_named_telemetry_policy_overrides_general_one() -> None:
    simulated = Simulated()
    simulated.apply("all", {"logLevel": "WARNING", "samplingRatio": 0.1}, "TelemetryPolicy")
    simulated.apply("loud", {"targetRefs": [{"service": "api"}], "logLevel": "DEBUG"}, "TelemetryPolicy")
    simulated.apply("late", {"logLevel": "ERROR"}, "TelemetryPolicy")
    simulated.settle()
    api, edge = document(simulated, "api").telemetry, document(simulated, "edge").telemetry
    assert api
    assert (api.log_level, api.sampling_ratio) == ("DEBUG", 0.1)
    assert edge
    assert (edge.log_level, edge.sampling_ratio) == ("WARNING", 0.1)
    assert simulated.conditions("late")["Accepted"] == ("False", "Conflicted")
    assert simulated.resources["all"].status["converged"] == "6/6"


def test_rendered_document_parses_back_unchanged() -> None:
    simulated = Simulated()
    simulated.apply("policy", {**PREDICTION, "circuitBreaker": {"mode": "time", "open": "1500ms"}, "fallback": {}})
    simulated.apply("loud", {"logLevel": "DEBUG"}, "TelemetryPolicy")
    for service in simulated.settle().services.values():
        again = parse_platform_document(as_yaml(service.in_force), "again")
        assert again == service.in_force
        assert again.content_hash == service.in_force.content_hash


def test_settled_state_does_not_change() -> None:
    simulated = Simulated()
    simulated.apply("policy", {**PREDICTION, "retry": {"maxAttempts": 5}})
    before = simulated.settle()
    simulated.now += 1000
    after = simulated.step()
    assert before.statuses == after.statuses
    assert {name: each.data for name, each in before.services.items()} == {
        name: each.data for name, each in after.services.items()
    }


def test_lagging_and_refusing_pods_are_named() -> None:
    simulated = Simulated()
    simulated.apply("policy", {**PREDICTION, "retry": {"maxAttempts": 5}})
    simulated.settle()
    simulated.apply("policy", {**PREDICTION, "retry": {"maxAttempts": 6}})
    for _ in range(3):
        made = simulated.step(follow=False)
    assert simulated.conditions("policy")["Converged"] == ("False", "Waiting")
    wanted = made.services["api"].in_force
    lagging, refusing = (pod for pod in simulated.pods if pod.service == "api")
    old = simulated.reports[refusing.uid]
    simulated.reports[refusing.uid] = type(old)(
        0.0, None, old.hash, old.generation, old.sources, "policies[0]: is wrong", wanted.generation
    )
    simulated.step(follow=False)
    assert simulated.conditions("policy")["Converged"] == ("False", "Refused")
    pods = simulated.resources["policy"].status["pods"]
    assert (pods["total"], pods["applied"], pods["refused"]) == (2, 0, 1)
    assert {each["pod"]: each["reason"] for each in pods["laggards"]} == {
        lagging.name: f"still has generation {old.generation} of its document",
        refusing.name: "refused: policies[0]: is wrong",
    }


SLOW_HEDGED = """
policies:
  - target: api/prediction/*
    timeout: {deadline: 3s, attempt: 1500ms}
    hedge: {delay: 900ms}
    circuitBreaker: {mode: time, slowCall: 1s, slowCallRate: 0.5}
    bulkhead: {maxConcurrent: 64}
    adaptiveConcurrency: {initialLimit: 50, minLimit: 45, maxLimit: 64}
"""


def test_stated_part_bounds_inherited_ones() -> None:
    """A stated bulkhead bounds the inherited limit; a stated timeout ends what no attempt could reach any more."""
    simulated = Simulated(defaults=SLOW_HEDGED)
    simulated.apply("small", {**PREDICTION, "bulkhead": {"maxConcurrent": 40}})
    method = {"targetRefs": [{"service": "prediction", "method": "Predict"}]}
    simulated.apply("short", {**method, "timeout": {"deadline": "2s", "attempt": "800ms"}})
    simulated.settle()
    assert {simulated.conditions(name)["Converged"][0] for name in ("small", "short")} == {"True"}
    predict = document(simulated, "api").for_call("api", "prediction", "Predict")
    explain = document(simulated, "api").for_call("api", "prediction", "Explain")
    limit = explain.adaptive_concurrency
    assert (limit.initial_limit, limit.min_limit, limit.max_limit) == (40, 40, 40)
    assert (explain.hedge.delay, explain.circuit_breaker.slow_call) == (0.9, 1.0)
    assert (predict.hedge, predict.circuit_breaker.slow_call, predict.circuit_breaker.mode) == (None, None, "time")
    assert predict.adaptive_concurrency.max_limit == 40


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"adaptiveConcurrency": {"maxLimit": 65}}, "adaptiveConcurrency.maxLimit: 65 is above"),
        ({"hedge": {"delay": "2s"}}, "hedge.delay: 2s is not below timeout.attempt"),
        ({"bulkhead": {"maxConcurrent": 40}, "adaptiveConcurrency": {"maxLimit": 64}}, "64 is above"),
    ],
    ids=["limit", "hedge", "both stated"],
)
def test_stated_part_that_does_not_fit_is_invalid(part: dict[str, object], told: str) -> None:
    """A part that is stated itself is not bounded, since its author may correct it."""
    simulated = Simulated(defaults=SLOW_HEDGED)
    simulated.apply("large", {**PREDICTION, **part})
    simulated.settle()
    assert simulated.conditions("large")["Accepted"] == ("False", "Invalid")
    assert told in simulated.message("large", "Accepted")
