"""The operator as a process: its lease, its watches and the pods, with an API server of the tests."""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.cluster.fake_release import FakeRelease
from tests.support.cluster.operator import Operator, policy
from tests.support.kubernetes_api import KubernetesApi
from tests.support.prometheus import Prometheus
from tests.support.waiting import wait_for

PREDICTION = [{"service": "prediction"}]
LEASE = "fake-operator"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("operator")


@pytest.fixture(scope="module")
def api(folder: Path) -> Iterator[KubernetesApi]:
    running = KubernetesApi(folder)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def release(api: KubernetesApi, folder: Path) -> Iterator[FakeRelease]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(api.kubeconfig))
        running = FakeRelease(api.namespace, folder / "pods", {"api": 2, "prediction": 1})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    running = Prometheus()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def operator(api: KubernetesApi, folder: Path, prometheus: Prometheus) -> Iterator[Operator]:
    """It has not been started."""
    settings = {"KUBECONFIG": str(api.kubeconfig), "AURUM_OPERATOR_PROMETHEUS_URL": f"http://{prometheus.address}/prom"}
    process = Operator(api.namespace, folder, **settings)
    yield process
    process.stop()


def conditions(api: KubernetesApi, name: str) -> dict[str, tuple[str, str]]:
    """By type: status and reason; only what is of the present generation."""
    body = api.get("resiliencepolicies", name)
    return {
        each["type"]: (each["status"], each["reason"])
        for each in body["status"].get("conditions", ())
        if each["observedGeneration"] == body["metadata"]["generation"]
    }


def converged(api: KubernetesApi, name: str) -> bool:
    return conditions(api, name).get("Converged") == ("True", "Converged")


def attempts(release: FakeRelease) -> set[int]:
    """Of the calls that the pods of the API make."""
    found = [pod.policies.document.for_call("api", "prediction", "Predict") for pod in release.of("api")]
    return {each.retry.max_attempts for each in found if each}


def reasons(api: KubernetesApi) -> set[str]:
    return {event["reason"] for event in api.all("events")}


def test_operator_does_nothing_until_it_holds_the_lease(
    api: KubernetesApi, release: FakeRelease, operator: Operator
) -> None:
    api.refused["GET", "leases"] = 403
    api.apply(policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 5}))
    operator.start()
    wait_for(lambda: "leases are refused" in operator.log.read_text(), 60, "it tells that it waits for the lease")
    assert operator.metric("operator_leader") == 0
    assert {each["metadata"]["name"] for each in api.all("configmaps")} == {"fake-policy"}
    del api.refused["GET", "leases"]
    wait_for(lambda: converged(api, "patient"), 60, "the policy has converged")
    assert operator.metric("operator_leader") == 1
    assert attempts(release) == {5}
    assert api.get("resiliencepolicies", "patient")["status"]["converged"] == "2/2"
    owner = api.get("configmaps", "fake-api-policy")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("Deployment", "fake-api")
    assert "Converged" in reasons(api)


def test_edits_and_deletions_of_policies_reach_pods(api: KubernetesApi, release: FakeRelease) -> None:
    api.apply(policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 7}))
    wait_for(lambda: attempts(release) == {7}, 20, "the edit is in force")
    api.delete("resiliencepolicies", "patient")
    wait_for(lambda: attempts(release) == {3}, 20, "the defaults are in force")


def test_policy_applied_during_lost_watch_is_noticed(api: KubernetesApi, release: FakeRelease) -> None:
    api.end_watches(policy("unseen", targetRefs=PREDICTION, retry={"maxAttempts": 4}))
    wait_for(lambda: attempts(release) == {4}, 20, "the policy is in force")
    wait_for(lambda: converged(api, "unseen"), 20, "and its status says so")


def test_config_map_edited_by_hand_is_put_back(api: KubernetesApi, operator: Operator) -> None:
    before = api.get("configmaps", "fake-api-policy")
    api.apply({**before, "data": {"policies.yaml": "policies: []"}})
    wait_for(lambda: api.get("configmaps", "fake-api-policy")["data"] == before["data"], 20, "the edit is undone")
    wait_for(lambda: "Restored" in reasons(api), 20, "an event tells of it")


def test_rollout_is_rolled_back_on_harm_seen_in_prometheus(
    api: KubernetesApi, release: FakeRelease, prometheus: Prometheus
) -> None:
    prometheus.answers = {"code=~": {"": 0.4}}
    rollout = {"steps": [50, 100], "pause": "20s"}
    api.apply(policy("unseen", targetRefs=PREDICTION, retry={"maxAttempts": 9}, rollout=rollout))
    wait_for(lambda: "RolledBack" in conditions(api, "unseen"), 30, "it is rolled back")
    (told,) = [
        each["message"]
        for each in api.get("resiliencepolicies", "unseen")["status"]["conditions"]
        if each["type"] == "RolledBack"
    ]
    assert "a share of 0.4 of the calls fails" in told
    wait_for(lambda: attempts(release) == {4}, 20, "all pods have the generation before")
    loaded = [
        found.retry.max_attempts
        for pod in release.of("api")
        if pod.policies.document.policies and (found := pod.policies.document.for_call("api", "prediction", "Predict"))
    ]
    assert 9 not in loaded


def test_stopping_operator_gives_back_the_lease(api: KubernetesApi, operator: Operator) -> None:
    assert api.get("leases", LEASE)["spec"]["holderIdentity"]
    assert operator.kill(signal.SIGTERM) == 0
    assert not api.get("leases", LEASE)["spec"]["holderIdentity"]


def test_operator_ends_when_another_takes_its_lease(api: KubernetesApi, operator: Operator) -> None:
    operator.start()
    wait_for(lambda: api.get("leases", LEASE)["spec"]["holderIdentity"], 60, "it holds the lease")
    lease = api.get("leases", LEASE)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    api.apply({**lease, "spec": {**lease["spec"], "holderIdentity": "another", "renewTime": now}})
    assert operator.wait() == 1
    assert "was taken by another" in operator.log.read_text()
    assert api.get("leases", LEASE)["spec"]["holderIdentity"] == "another"
