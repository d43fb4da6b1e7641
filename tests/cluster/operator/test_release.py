"""The operator of a real release: real pods, a real kubelet, a Prometheus that a rollout is watched in."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.support.cluster import kube
from tests.support.cluster.kube import Namespace, http, wait_for
from tests.support.cluster.operator import conditions, converged, policy

RATE = 20  # requests/s
PREDICTION = [{"service": "prediction"}]


@pytest.fixture(autouse=True)
def no_policies(release: Namespace) -> Iterator[None]:
    release.kubectl("rollout", "status", "deployment", "--timeout=180s", timeout=200)
    yield
    release.kubectl("delete", "resiliencepolicies,telemetrypolicies", "--all")
    release.kubectl("delete", "pod", "load", "--ignore-not-found", "--grace-period=0", "--force")


def loaded(release: Namespace, service: str) -> list[dict]:
    """What each pod of a service says of its policies."""
    found = []
    for pod in release.pods(service):
        with release.forwarded(f"pod/{pod['metadata']['name']}", 9090) as admin:
            found.append(http("GET", f"{admin}/policy")[1])
    return found


def deadline(state: dict) -> str:
    """The deadline of predictions that a pod has in force."""
    return next(each["policy"]["timeout"]["deadline"] for each in state["targets"] if each["name"] == "api/prediction")


def test_policy_reaches_running_pods_without_restart(release: Namespace) -> None:
    """Applying and deleting a policy reaches every running API pod without a restart."""
    before = {pod["metadata"]["uid"] for pod in release.pods()}
    release.apply(policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 5}))
    wait_for(lambda: converged(release, "patient"), 30, "it has converged")
    assert release.get("rp", "patient")["status"]["converged"] == "2/2"
    for state in loaded(release, "api"):
        assert [source["name"] for source in state["sources"]] == ["patient"]
        (target,) = [each for each in state["targets"] if each["name"] == "api/prediction"]
        assert target["policy"]["retry"]["maxAttempts"] == 5
        assert target["policy"]["timeout"]["deadline"] == "3s", "the chart's part stays"
    release.kubectl("delete", "rp", "patient")
    wait_for(lambda: not any(state["sources"] for state in loaded(release, "api")), 30, "the defaults are back")
    assert {pod["metadata"]["uid"] for pod in release.pods()} == before


@pytest.mark.proof("operator")
def test_telemetry_policy_sets_log_level_of_running_pod(release: Namespace) -> None:
    """A telemetry policy makes a running edge pod log at level DEBUG."""
    release.apply(policy("loud", "TelemetryPolicy", targetRefs=[{"service": "edge"}], logLevel="DEBUG"))
    wait_for(lambda: converged(release, "loud", "tp"), 30, "it has converged")

    def debug_lines() -> list[str]:
        log = release.kubectl("logs", "aurumai-edge-0", "--container=edge", "--since=30s")
        return [line for line in log.splitlines() if '"severity": "DEBUG"' in line]

    wait_for(debug_lines, 30, "a line of severity DEBUG")


@pytest.mark.proof("operator")
def test_shadow_policy_counts_timeouts_without_effect(release: Namespace, api: str) -> None:
    """A shadow policy counts the timeouts that it would cause and leaves all answers unaffected."""
    shadow = {"maxConcurrent": 1000}, {"deadline": "2s", "attempt": "1ms"}
    release.apply(policy("strict", targetRefs=PREDICTION, mode="Shadow", bulkhead=shadow[0], timeout=shadow[1]))
    wait_for(lambda: converged(release, "strict"), 30, "it has converged")
    items = http("GET", f"{api}/api/machines?limit=20")[1]["items"]
    machines = [item["machine_id"] for item in items if item["machine_type"]]
    answers = [http("POST", f"{api}/api/predict", {"machine_id": machine}) for machine in machines for _ in range(3)]
    assert {status for status, _ in answers} == {200}
    assert not [answer for _, answer in answers if answer["degraded"] and answer["model_version"]]
    status = wait_for(
        lambda: (found := release.get("rp", "strict")["status"]["shadow"])["timeouts"] >= 20 and found,
        60,
        "the status counts what would have timed out",
    )
    assert status["calls"] >= status["timeouts"]


@pytest.mark.proof("operator")
def test_failing_rollout_is_rolled_back_automatically(release: Namespace) -> None:
    """A rollout that makes calls fail is rolled back automatically with one of two pods exposed."""
    good = {"timeout": {"deadline": "3s", "attempt": "1500ms"}}
    rollout = {"steps": [50, 100], "pause": "20s"}
    release.apply(policy("predict", targetRefs=PREDICTION, **good))
    wait_for(lambda: converged(release, "predict"), 30, "the good one has converged")
    release.start_script("load", "load.py", URL="http://aurumai-api:8000", RATE=RATE, SECONDS=900, RETRY=1)
    time.sleep(25)  # so that Prometheus has seen calls of every pod
    release.apply(
        policy("predict", targetRefs=PREDICTION, timeout={"deadline": "4ms", "attempt": "2ms"}, rollout=rollout)
    )
    started = time.monotonic()
    most = 0

    def taken_back() -> bool:
        nonlocal most
        most = max(most, release.get("rp", "predict")["status"].get("rollout", {}).get("exposed", 0))
        return conditions(release, "predict").get("RolledBack", ("",))[0] == "True"

    wait_for(taken_back, 60, "it is taken back")
    seconds = time.monotonic() - started
    status = release.get("rp", "predict")["status"]
    figures = status["rollout"]["figures"]
    print(json.dumps({"rolled_back_after_seconds": round(seconds, 1), "exposed": most, "figures": figures}))
    assert most == 1, "half of two pods"
    assert "of the calls fails" in figures or "breaker is open" in figures
    wait_for(
        lambda: {deadline(state) for state in loaded(release, "api")} == {"3s"},
        30,
        "every pod has the good one again",
    )
    time.sleep(10)
    assert conditions(release, "predict")["RolledBack"][0] == "True", "it stays so"
    release.apply(policy("predict", targetRefs=PREDICTION, **good, rollout=rollout))
    wait_for(lambda: converged(release, "predict"), 120, "a harmless change goes through all steps")
    assert release.get("rp", "predict")["status"]["rollout"]["state"] == "Complete"


@pytest.mark.proof("operator")
def test_crd_upgrade_and_uninstall_keep_stored_policies(release: Namespace) -> None:
    """Upgrading or uninstalling the CRD chart keeps stored policies and restarts no pod."""
    release.apply(policy("kept", targetRefs=PREDICTION, retry={"maxAttempts": 5}))
    uid = release.get("rp", "kept")["metadata"]["uid"]
    kube.install_definitions()
    assert release.get("rp", "kept")["metadata"]["uid"] == uid
    kube.run("helm", "uninstall", "aurumai-crds", "--namespace", "default")
    assert release.get("rp", "kept")["metadata"]["uid"] == uid, "the definitions stay when the chart goes"
    kube.install_definitions()
    assert release.get("rp", "kept")["metadata"]["uid"] == uid
    assert not (restarted := release.restarted()), restarted
