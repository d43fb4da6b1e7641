"""The operator as a process that keeps the credentials of a release, with an API server of the tests."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster.operator import Operator
from tests.support.kubernetes_api import KubernetesApi
from tests.support.waiting import wait_for

ADMIN, AUTHORITY, TLS = "fake-admin", "fake-authority", "fake-api-tls"
WANTED = {
    "AURUM_OPERATOR_CERTIFICATES": "fake-api",
    "AURUM_OPERATOR_AUTHORITY": AUTHORITY,
    "AURUM_OPERATOR_ADMIN_SECRET": ADMIN,
    "AURUM_OPERATOR_SESSION_SECRET": "fake-sessions",
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubernetesApi]:
    running = KubernetesApi(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def operator(api: KubernetesApi, tmp_path: Path) -> Iterator[Operator]:
    """It has not been started."""
    process = Operator(api.namespace, tmp_path, KUBECONFIG=str(api.kubeconfig), **WANTED)
    yield process
    process.stop()


def names(api: KubernetesApi) -> set[str]:
    return {each["metadata"]["name"] for each in api.all("secrets")}


def test_operator_creates_secrets_and_replaces_a_token(api: KubernetesApi, operator: Operator) -> None:
    """The operator creates missing Secrets without an owner, keeps existing ones, and replaces a token on request."""
    token = base64.b64encode(b"token of the release before").decode()
    api.apply({"kind": "Secret", "metadata": {"name": ADMIN, "labels": {"a": "b"}}, "data": {"token": token}})
    labels = {"app.kubernetes.io/part-of": "aurumai", "app.kubernetes.io/instance": "fake"}
    api.apply({"kind": "Pod", "metadata": {"name": "fake-api-0", "labels": labels}, "spec": {"containers": []}})
    operator.start()
    wait_for(lambda: names(api) == {ADMIN, AUTHORITY, TLS, "fake-sessions"}, 60, "all Secrets exist")
    made = api.get("secrets", TLS)
    assert made["type"] == "kubernetes.io/tls"
    assert made["metadata"]["labels"]["aurumai.io/release"] == "fake"
    assert "app.kubernetes.io/instance" not in made["metadata"]["labels"], "Argo CD would prune it"
    assert "ownerReferences" not in made["metadata"]
    wait_for(
        lambda: "aurumai.io/credentials" in api.get("pods", "fake-api-0")["metadata"].get("annotations", {}),
        20,
        "the pod is told",
    )
    wait_for(
        lambda: "aurumai.io/rotated" in api.get("secrets", ADMIN)["metadata"].get("annotations", {}), 20, "adopted"
    )
    assert api.get("secrets", ADMIN)["data"] == {"token": token}
    assert operator.metric("operator_certificate_seconds_left") > 80 * 86400
    operator.stop()
    kept = api.get("secrets", ADMIN)
    kept["metadata"]["annotations"]["aurumai.io/renew"] = "true"
    api.apply(kept)
    operator.start()
    wait_for(lambda: api.get("secrets", ADMIN)["data"].get("previous") == token, 60, "the token is replaced")
    assert api.get("secrets", ADMIN)["metadata"]["labels"]["a"] == "b"
    assert api.get("secrets", TLS)["data"] == made["data"]
    assert token not in operator.log.read_text()


def test_operator_reports_refused_secrets_and_retries(api: KubernetesApi, operator: Operator) -> None:
    """Refused Secrets are reported in the log and a metric, and created when the API server accepts them."""
    api.refused["POST", "secrets"] = 403
    operator.start()
    wait_for(lambda: "the credentials could not be checked" in operator.log.read_text(), 60, "the log says so")
    assert operator.metric('operator_objects_failing{kind="secret"}') == 1
    del api.refused["POST", "secrets"]
    wait_for(lambda: TLS in names(api), 60, "the Secrets exist")
    wait_for(lambda: operator.metric('operator_objects_failing{kind="secret"}') == 0, 20, "the failure is over")
