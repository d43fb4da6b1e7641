"""A release that is applied as Argo CD and Flux do it: `helm template`, then server-side apply, again and again."""

import base64
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurum.security.api_keys import KeyFile, make_key, write_keys
from tests.support.cluster import kube
from tests.support.cluster.charts import KUBE_VERSION
from tests.support.cluster.kube import CHARTS, Namespace, http, wait_for

NAME = "gitops"
TLS = ("api", "edge", "ingestion", "prediction")
SECRETS = (
    *(f"{NAME}-aurumai-{service}-tls" for service in TLS),
    *(f"{NAME}-aurumai-{name}" for name in ("admin", "authority", "sessions")),
)
_VALUES = {
    "api.replicas": "1",
    "prediction.replicas": "1",
    "ingestion.persistence.enabled": "false",
    "edge.persistence.enabled": "false",
    "telemetry.collector.enabled": "false",
    "security.api.keysSecret": "gitops-keys",
    "image.repository": kube.REPOSITORY,
    "image.tag": kube.TAG,
}


def render(namespace: Namespace) -> str:
    settings = ",".join(f"{key}={value}" for key, value in _VALUES.items())
    where = ("--namespace", namespace.name, "--skip-tests", *KUBE_VERSION)
    return str(kube.run("helm", "template", NAME, str(CHARTS / "aurumai"), *where, "--set", settings).stdout)


def sync(namespace: Namespace, manifests: str) -> str:
    """Applies the manifests and prunes what is no more among them; what the tool tells."""
    done = kube.run(
        *("env", "KUBECTL_APPLYSET=true", "kubectl", "--namespace", namespace.name, "apply", "--server-side"),
        *("--field-manager=gitops", "--force-conflicts", "--prune", f"--applyset={NAME}-inventory", "--filename=-"),
        given=manifests,
        timeout=120,
    )
    return str(done.stdout)


def pods(namespace: Namespace) -> dict[str, int]:
    """The pods of the release by uid, with the number of their restarts."""
    found = json.loads(
        namespace.kubectl("get", "pods", "--selector", f"app.kubernetes.io/instance={NAME}", "--output=json")
    )["items"]
    return {
        pod["metadata"]["uid"]: sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ()))
        for pod in found
    }


def secrets(namespace: Namespace) -> dict[str, Any]:
    return {name: namespace.get("secret", name)["data"] for name in SECRETS}


@pytest.fixture(scope="module")
def synced(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Namespace, str]]:
    """The release, and the key of an admin."""
    file: Path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    key, record = make_key("admin", ("admin",))
    write_keys(file, KeyFile(keys=(record,)))
    namespace.kubectl("create", "secret", "generic", "gitops-keys", f"--from-file=keys.yaml={file}")
    kube.install_definitions()
    manifests = render(namespace)
    sync(namespace, manifests)
    for workload in ("deployment/gitops-aurumai-api", "deployment/gitops-aurumai-prediction"):
        namespace.kubectl("rollout", "status", workload, "--timeout=240s", timeout=250)
    yield namespace, key
    kube.run(
        "kubectl", "--namespace", namespace.name, "delete", "--filename=-", "--wait=true", given=manifests, timeout=200
    )
    namespace.kubectl("delete", "secret", "gitops-keys", f"{NAME}-inventory")
    namespace.kubectl("delete", "secret", f"--selector=aurumai.io/release={NAME}")


class Asking:
    """Asks the API for the platform all the time, which asks each pod with the admin token, and ingestion by TLS."""

    def __init__(self, api: str, key: str) -> None:
        self._api, self._key = api, key
        self.problems: list[str] = []
        self.asked = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._ended.is_set():
            status, answer = http("GET", f"{self._api}/api/platform", headers={"X-API-Key": self._key})
            missing = {"api", "edge", "ingestion", "operator", "prediction"} - {
                each["service"] for each in answer.get("instances", ()) if each["reachable"]
            }
            if status != 200 or missing:
                self.problems.append(f"{status}, not reached: {missing}")
            found = http("GET", f"{self._api}/health", headers={"X-API-Key": self._key})
            if found[1].get("status") != "healthy":
                self.problems.append(json.dumps(found[1])[:300])
            self.asked += 1
            time.sleep(0.3)


def reached(api: str, key: str) -> bool:
    answer = http("GET", f"{api}/api/platform", headers={"X-API-Key": key})[1]
    there = {each["service"] for each in answer["instances"] if each["reachable"]}
    healthy = http("GET", f"{api}/health")[1]["status"] == "healthy"
    return healthy and there >= {"api", "edge", "ingestion", "operator", "prediction"}


@pytest.mark.proof("security")
def test_second_apply_restarts_no_pod_and_changes_no_secret(synced: tuple[Namespace, str]) -> None:
    """Rendering and applying a release again restarts no pod, changes no Secret and fails no call."""
    namespace, key = synced
    with namespace.forwarded("service/gitops-aurumai-api", 8000) as api:
        wait_for(lambda: reached(api, key), 120, "every pod is reached with the admin token")
        before, had = pods(namespace), secrets(namespace)
        owned = [each["metadata"] for each in (namespace.get("secret", name) for name in SECRETS)]
        assert not [each["name"] for each in owned if "app.kubernetes.io/instance" in each["labels"]]
        with Asking(api, key) as asking:
            for _ in range(2):
                told = sync(namespace, render(namespace))
                assert "pruned" not in told
                time.sleep(5)
        assert pods(namespace) == before
        assert secrets(namespace) == had
        assert asking.asked > 5
        assert asking.problems == []


@pytest.mark.proof("security")
def test_token_and_authority_are_renewed_without_a_restart(synced: tuple[Namespace, str]) -> None:
    """A renewed admin token and certificates reach running pods: no restart, no 401, no failed call."""
    namespace, key = synced
    with namespace.forwarded("service/gitops-aurumai-api", 8000) as api:
        wait_for(lambda: reached(api, key), 120, "every pod is reached with the admin token")
        before, had = pods(namespace), secrets(namespace)
        with Asking(api, key) as asking:
            for name in ("admin", "authority", "ingestion-tls", "prediction-tls", "api-tls", "edge-tls"):
                namespace.kubectl("annotate", "secret", f"{NAME}-aurumai-{name}", "aurumai.io/renew=true")

            def renewed() -> bool:
                now = secrets(namespace)
                changed = {name for name in SECRETS if now[name] != had[name]}
                return changed == set(SECRETS) - {f"{NAME}-aurumai-sessions"}

            wait_for(renewed, 90, "the operator has renewed what was asked for")
            token = base64.b64decode(secrets(namespace)[f"{NAME}-aurumai-admin"]["token"]).decode()
            (pod,) = namespace.pods("prediction")
            with namespace.forwarded(f"pod/{pod['metadata']['name']}", 9090) as admin:
                as_new = {"Authorization": f"Bearer {token}"}
                wait_for(
                    lambda: http("GET", f"{admin}/policy", headers=as_new)[0] == 200, 90, "the new token is accepted"
                )
                assert http("GET", f"{admin}/policy", headers={"Authorization": "Bearer x"})[0] == 401
            time.sleep(10)
        assert pods(namespace) == before
        assert asking.problems == []
        log = namespace.kubectl("logs", "deployment/gitops-aurumai-operator", "--container=operator")
        assert not re.search(r"\b401\b", log)


@pytest.mark.proof("security")
def test_drift_and_pruned_objects_are_restored(synced: tuple[Namespace, str]) -> None:
    """The next apply corrects an edited object and restores a deleted one; a deleted Secret comes from the operator."""
    namespace, _ = synced
    before = pods(namespace)
    manifests = render(namespace)
    without = "\n---\n".join(
        each for each in manifests.split("\n---\n") if "name: gitops-aurumai-default-deny" not in each
    )
    assert "networkpolicy.networking.k8s.io/gitops-aurumai-default-deny pruned" in sync(namespace, without)
    namespace.kubectl("delete", "networkpolicy", "gitops-aurumai-api")
    namespace.kubectl(
        "patch",
        "configmap",
        "gitops-aurumai-clients",
        "--type=merge",
        '--patch={"data":{"clients.yaml":"clients: []"}}',
    )
    namespace.kubectl("delete", "secret", "gitops-aurumai-edge-tls")
    sync(namespace, manifests)
    assert "gitops-aurumai-api" in namespace.get("configmap", "gitops-aurumai-clients")["data"]["clients.yaml"]
    assert namespace.get("networkpolicy", "gitops-aurumai-api")["spec"]["ingress"]
    assert namespace.get("networkpolicy", "gitops-aurumai-default-deny")
    written = namespace.get("configmap", "gitops-aurumai-api-policy")["metadata"]
    assert written["ownerReferences"], "what the operator writes is not pruned, since it has an owner"
    found = ("get", "secret", "gitops-aurumai-edge-tls", "--ignore-not-found", "--output=name")
    wait_for(lambda: namespace.kubectl(*found), 60, "the Secret is back")
    assert pods(namespace) == before
