"""The operator on a real API server: what each condition says, and what it takes to get there."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cluster import kube
from tests.support.cluster.fake_release import RELEASE
from tests.support.cluster.kube import Namespace, http, wait_for
from tests.support.cluster.operator import MakeRelease, Operator, conditions, converged, policy

PREDICTION = [{"service": "prediction"}]
PODS = {"api": 3, "prediction": 1, "ingestion": 1}
INVALID = {
    "an unknown field": ({"retry": {"maxAtempts": 3}}, 'unknown field "spec.retry.maxAtempts"'),
    "a number out of range": ({"retry": {"maxAttempts": 99}}, "spec.retry.maxAttempts"),
    "a duration without a unit": ({"timeout": {"deadline": "5"}}, "spec.timeout.deadline"),
    "a duration out of range": ({"timeout": {"deadline": "11m"}}, "spec.timeout.deadline"),
    "an attempt above the deadline": ({"timeout": {"attempt": "9s", "deadline": "1s"}}, "spec.timeout.attempt"),
    "delays out of order": ({"retry": {"baseDelay": "3s", "maxDelay": "1s"}}, "spec.retry.baseDelay"),
    "a queue without a wait": ({"bulkhead": {"maxQueued": 3}}, "spec.bulkhead.maxWait"),
    "limits out of order": ({"adaptiveConcurrency": {"minLimit": 30}}, "spec.adaptiveConcurrency.minLimit"),
    "a hedge after the attempt": ({"hedge": {"delay": "3s"}, "timeout": {}}, "spec.hedge"),
    "no part": ({}, "must have at least one part"),
    "both ways to name targets": (
        {"selector": {"matchLabels": {"a": "b"}}, "retry": {}},
        "either targetRefs or selector",
    ),
    "steps that fall": ({"retry": {}, "rollout": {"steps": [50, 10, 100]}}, "spec.rollout.steps"),
    "an unknown code": ({"retry": {"retryOn": ["NOPE"]}}, "spec.retry.retryOn"),
}


@pytest.mark.parametrize(("spec", "said"), INVALID.values(), ids=INVALID)
def test_api_server_rejects_invalid_policy_with_reason(shared_space: Namespace, spec: dict, said: str) -> None:
    """The API server rejects each invalid policy with a message that says what is wrong."""
    body = policy("wrong", targetRefs=PREDICTION, **spec)
    done = kube.run(
        *("kubectl", "--namespace", shared_space.name, "apply", "--filename=-"), given=json.dumps(body), check=False
    )
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.proof("operator")
def test_omitted_policy_fields_get_defaults(shared_space: Namespace) -> None:
    """Omitted fields of a policy get their defaults, and omitted parts stay absent."""
    space = shared_space
    space.apply(policy("plain", targetRefs=PREDICTION, retry={}))
    spec = space.get("resiliencepolicy", "plain")["spec"]
    assert spec["mode"] == "Enforce"
    assert (spec["retry"]["maxAttempts"], spec["retry"]["baseDelay"]) == (3, "100ms")
    assert "timeout" not in spec
    assert "resiliencepolicy.aurumai.io/plain" in space.kubectl("get", "aurumai", "--output=name")


@pytest.mark.proof("operator")
def test_policy_edit_reaches_every_pod_and_shows_in_status(
    space: Namespace, releases: MakeRelease, operator: Operator
) -> None:
    """Creating, editing and deleting a policy reaches every pod, and its status reports convergence."""
    release = releases(PODS)
    operator.start()
    space.apply(policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 5}))
    wait_for(lambda: converged(space, "patient"), 20, "the policy has converged")
    assert conditions(space, "patient")["Programmed"] == ("True", "Programmed")
    status = space.get("rp", "patient")["status"]
    assert (status["converged"], status["targets"], status["pods"]["refused"]) == ("3/3", "prediction", 0)
    for pod in release.of("api"):
        found = pod.policies.document.for_call("api", "prediction", "Predict")
        assert found
        assert (found.retry.max_attempts, found.timeout.deadline) == (5, 3.0)
    owner = release.config_map("api")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("Deployment", "fake-api")

    space.apply(policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 7}))
    wait_for(lambda: converged(space, "patient"), 20, "the edit has converged")
    assert {pod.policies.document.policies[0].retry.max_attempts for pod in release.of("api")} == {7}
    assert "Converged" in space.kubectl("get", "events", "--output=custom-columns=R:.reason")

    space.kubectl("delete", "rp", "patient")
    wait_for(lambda: not release.of("api")[0].policies.document.sources, 20, "the defaults are back")
    found = release.of("api")[0].policies.document.for_call("api", "prediction", "Predict")
    assert found
    assert found.retry.max_attempts == 3


@pytest.mark.proof("operator")
def test_telemetry_policy_reaches_only_named_service(
    space: Namespace, releases: MakeRelease, operator: Operator
) -> None:
    """A telemetry policy reaches the service that it names and not another."""
    release = releases(PODS)
    operator.start()
    space.apply(policy("loud", "TelemetryPolicy", targetRefs=[{"service": "api"}], logLevel="DEBUG", samplingRatio=0.1))
    wait_for(lambda: converged(space, "loud", "telemetrypolicy"), 20, "it has converged")
    telemetry = release.of("api")[0].policies.document.telemetry
    assert telemetry
    assert (telemetry.log_level, telemetry.sampling_ratio) == ("DEBUG", 0.1)
    assert release.of("prediction")[0].policies.document.telemetry is None


@pytest.mark.proof("operator")
def test_ineffective_policies_get_conditions_and_events(
    space: Namespace, releases: MakeRelease, operator: Operator
) -> None:
    """A policy without effect gets a condition and a warning event with the reason."""
    releases(PODS)
    operator.start()
    space.apply(policy("first", targetRefs=PREDICTION, retry={"maxAttempts": 5}))
    wait_for(lambda: converged(space, "first"), 20, "it has converged")
    time.sleep(1.1)  # creation times have seconds
    space.apply(
        policy("second", targetRefs=PREDICTION, retry={"maxAttempts": 6}),
        policy("nobody", targetRefs=[{"service": "nobody"}], retry={}),
        policy("patient", targetRefs=[{"service": "ingestion", "client": "prediction"}], timeout={"attempt": "4s"}),
    )
    for name, reason in (
        ("second", "Conflicted"),
        ("nobody", "TargetNotFound"),
        ("patient", "BeyondCallersDeadline"),
    ):
        wait_for(lambda name=name: "Accepted" in conditions(space, name), 20, f"{name} has a condition")
        assert conditions(space, name)["Accepted"] == ("False", reason)
    assert converged(space, "first")
    events = space.kubectl("get", "events", "--field-selector=type=Warning", "--output=custom-columns=R:.reason")
    assert {"Conflicted", "TargetNotFound", "BeyondCallersDeadline"} <= set(events.split())


@pytest.mark.proof("operator")
def test_status_names_refusing_and_hanging_pods(space: Namespace, releases: MakeRelease, operator: Operator) -> None:
    """The status names pods that refuse a policy or hang; a refusing pod keeps the last good one."""
    release = releases({"api": 4, "prediction": 1})
    refusing, hanging, *_ = release.of("api")
    operator.start()
    space.apply(policy("p", targetRefs=PREDICTION, retry={"maxAttempts": 5}))
    wait_for(lambda: converged(space, "p"), 20, "it has converged")
    refusing.refuses = hanging.hangs = True
    space.apply(policy("p", targetRefs=PREDICTION, retry={"maxAttempts": 6}))
    wait_for(lambda: conditions(space, "p").get("Converged") == ("False", "Refused"), 20, "the refusal is told")
    status = wait_for(
        lambda: (found := space.get("rp", "p")["status"])["pods"]["applied"] == 2 and found, 20, "the others have it"
    )
    reasons = {each["pod"]: each["reason"] for each in status["pods"]["laggards"]}
    assert "policees" in reasons[refusing.name]
    assert hanging.name in reasons
    assert (status["converged"], status["pods"]["refused"]) == ("2/4", 1)
    kept = refusing.policies.document.for_call("api", "prediction", "Predict")
    assert kept
    assert kept.retry.max_attempts == 5, "the last good one stays"
    refusing.refuses = hanging.hangs = False
    space.apply(policy("p", targetRefs=PREDICTION, retry={"maxAttempts": 7}))
    wait_for(lambda: converged(space, "p"), 30, "it has converged")


@pytest.mark.proof("operator")
def test_edited_or_deleted_config_map_is_restored(space: Namespace, releases: MakeRelease, operator: Operator) -> None:
    """A ConfigMap edited or deleted by hand is restored, and an event records each case."""
    release = releases(PODS)
    operator.start()
    space.apply(policy("p", targetRefs=PREDICTION, retry={"maxAttempts": 5}))
    wait_for(lambda: converged(space, "p"), 20, "it has converged")
    before = release.config_map("api")["data"]
    patch = json.dumps({"data": {"policies.yaml": "policies: []"}})
    space.kubectl("patch", "configmap", "fake-api-policy", "--type=merge", f"--patch={patch}")
    wait_for(lambda: release.config_map("api")["data"] == before, 20, "the edit is undone")
    space.kubectl("delete", "configmap", "fake-api-policy")
    wait_for(lambda: "fake-api-policy" in space.kubectl("get", "configmaps", "--output=name"), 20, "it is there again")
    events = space.get("events", "--field-selector=reason=Restored")["items"]
    assert len(events) == 2
    assert {"edited", "deleted"} == {event["message"].split()[2] for event in events}


@pytest.mark.proof("operator")
def test_restarted_operator_applies_missed_changes(space: Namespace, releases: MakeRelease, operator: Operator) -> None:
    """Services keep their policies without an operator, which applies missed changes after a restart."""
    release = releases(PODS)
    operator.start()
    space.apply(
        policy("stays", targetRefs=PREDICTION, retry={"maxAttempts": 5}),
        policy("goes", targetRefs=PREDICTION, bulkhead={"maxConcurrent": 9}),
    )
    for name in ("stays", "goes"):
        wait_for(lambda name=name: converged(space, name), 40, f"{name} has converged")
    operator.kill()
    space.apply(
        policy("stays", targetRefs=PREDICTION, retry={"maxAttempts": 8}),
        policy("comes", targetRefs=PREDICTION, circuitBreaker={"failMax": 2}),
    )
    space.kubectl("delete", "rp", "goes")
    time.sleep(1)
    assert release.of("api")[0].policies.document.policies[0].retry.max_attempts == 5, "services keep their policy"
    operator.start()
    for name in ("stays", "comes"):
        wait_for(lambda name=name: converged(space, name), 80, f"{name} has converged")
    found = release.of("api")[0].policies.document.policies[0]
    assert (found.retry.max_attempts, found.circuit_breaker.fail_max, found.bulkhead.max_concurrent) == (8, 2, 256)


def aurum(space: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "AURUM_OPERATOR_NAMESPACE": space.name,
        "AURUM_OPERATOR_RELEASE": RELEASE,
        "AURUM_OPERATOR_DEFAULTS": "fake-policy",
    }
    command = [sys.executable, "-m", "aurum.cli", "policy", *arguments, "--from-cluster"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.proof("operator")
def test_policy_command_shows_effective_values_and_sources(
    space: Namespace, releases: MakeRelease, operator: Operator, tmp_path: Path
) -> None:
    """`aurum policy` shows effective values and sources, and diffs and simulates a proposal."""
    releases(PODS)
    operator.start()
    space.apply(policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 5}))
    wait_for(lambda: converged(space, "patient"), 20, "it has converged")
    told = aurum(space, "get")
    assert told.returncode == 0, told.stderr
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("ResiliencePolicy/patient")]
    assert "3/3" in line
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("api/prediction/*")]
    assert line.split()[2] == "5"
    assert "ResiliencePolicy patient #1, the chart's defaults" in line
    explained = aurum(space, "explain", "api", "prediction", "Predict").stdout.splitlines()
    (attempts,) = [line for line in explained if line.startswith("retry.maxAttempts")]
    (deadline,) = [line for line in explained if line.startswith("timeout.deadline")]
    assert attempts.split()[1:] == ["5", "ResiliencePolicy", "patient", "#1"]
    assert deadline.rstrip().endswith("the chart's defaults")

    file = tmp_path / "proposal.yaml"
    proposal = policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 1})
    file.write_text(json.dumps(proposal))
    changes = aurum(space, "diff", str(file))
    assert changes.returncode == 1
    assert "-    maxAttempts: 5" in changes.stdout
    assert "+    maxAttempts: 1" in changes.stdout
    trace = tmp_path / "outcomes.jsonl"
    lines = [
        {"time": number, "target": "api/prediction/Predict", "duration": 0.01, "code": "UNAVAILABLE", "attempt": 1}
        for number in range(4)
    ]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    replayed = aurum(space, "simulate", str(file), "--trace", str(trace), "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["targets"]["api/prediction"]["attempts"] == 4, "one attempt each, as proposed"
    file.write_text("kind: Pod")
    assert aurum(space, "diff", str(file)).returncode == 2


@pytest.mark.proof("operator")
def test_namespace_is_deletable_without_operator(space: Namespace, releases: MakeRelease, operator: Operator) -> None:
    """A namespace with policies can be deleted while no operator runs."""
    releases(PODS)
    operator.start()
    space.apply(policy("p", targetRefs=PREDICTION, retry={}))
    wait_for(lambda: converged(space, "p"), 20, "it has converged")
    assert "finalizers" not in space.get("rp", "p")["metadata"]
    operator.kill()
    kube.run("kubectl", "delete", "namespace", space.name, "--timeout=90s")


@pytest.mark.proof("operator")
def test_second_operator_takes_over_leadership(
    space: Namespace, releases: MakeRelease, operator: Operator, tmp_path
) -> None:
    """Of two operators one leads, and the other takes over when the first stops."""
    releases(PODS)
    operator.start()
    wait_for(lambda: operator.metric("operator_leader") == 1, 20, "the first one leads")
    (tmp_path / "second").mkdir()
    second = Operator(space.name, tmp_path / "second")
    second.start()
    try:
        wait_for(lambda: second.metric("system_info") == 1, 20, "the second one runs")
        time.sleep(3)
        assert second.metric("operator_leader") == 0
        assert http("GET", f"http://127.0.0.1:{second.port}/readyz")[0] == 200, "or a rolling update never ends"
        assert operator.kill(15) == 0
        wait_for(lambda: second.metric("operator_leader") == 1, 5, "the second one takes over at once")
        space.apply(policy("p", targetRefs=PREDICTION, retry={}))
        wait_for(lambda: converged(space, "p"), 20, "it has converged")
    finally:
        second.stop()


@pytest.mark.proof("operator")
def test_operator_writes_nothing_while_nothing_changes(
    space: Namespace, releases: MakeRelease, operator: Operator
) -> None:
    """A converged operator writes no ConfigMap, pod or status for 25 seconds."""
    releases(PODS)
    operator.start()
    space.apply(policy("p", targetRefs=PREDICTION, retry={}))
    wait_for(lambda: converged(space, "p"), 20, "it has converged")
    time.sleep(5)
    before = [operator.metric(f'operator_writes_total{{kind="{kind}"}}') for kind in ("configmap", "pod", "status")]
    time.sleep(25)
    after = [operator.metric(f'operator_writes_total{{kind="{kind}"}}') for kind in ("configmap", "pod", "status")]
    assert before == after


@pytest.mark.proof("operator")
def test_status_writes_are_limited_under_continuous_edits(
    space: Namespace, releases: MakeRelease, operator: Operator
) -> None:
    """Continuous edits cause one status write in two seconds at most, and the last edit converges."""
    releases(PODS)
    operator.start()
    space.apply(policy("p", targetRefs=PREDICTION, retry={}))
    wait_for(lambda: converged(space, "p"), 20, "it has converged")
    name = 'operator_writes_total{kind="status"}'
    before, started = operator.metric(name), time.monotonic()
    for number in range(25):
        space.apply(policy("p", targetRefs=PREDICTION, retry={"maxAttempts": 2 + number % 8}))
        time.sleep(0.2)
    seconds = time.monotonic() - started
    assert operator.metric(name) - before <= seconds / 2 + 1
    wait_for(lambda: converged(space, "p"), 20, "the last edit has converged")
