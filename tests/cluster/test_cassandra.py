"""Ingestion over a real Cassandra: two pods that keep nothing. In a namespace of its own, without telemetry.

Java, Maven and something that builds images (AURUM_IMAGE_BUILDER, or docker and kind) are needed for the Cassandra.
"""

import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cassandra import cluster as cassandra
from tests.support.cluster import kube
from tests.support.cluster.kube import CHARTS, EXAMPLES, Namespace, http, wait_for
from tests.support.cluster.load import assert_kill_fails_no_request

IMAGE = "localhost/aurumai-test/cassandra:5.0.5"
DATA = Path("/data")
MACHINES = 7
RATE = 3  # requests/s: the Cassandra is one node that has just started, beside everything else
# Slow is not gone: with this much time, what is degraded is what a killed pod has cost, not a busy machine
POLICIES = [
    {
        "target": "api/prediction/*",
        "timeout": {"deadline": "9s", "attempt": "8s", "connect": "2s"},
        "retry": {"maxAttempts": 3, "baseDelay": "50ms", "maxDelay": "200ms"},
        "fallback": {"lastGood": True, "rule": True},
    },
    {
        "target": "prediction/ingestion/*",
        "timeout": {"deadline": "7s", "attempt": "3s", "connect": "2s"},
        "retry": {"maxAttempts": 3, "baseDelay": "50ms", "maxDelay": "200ms"},
    },
]
_DOCKERFILE = """\
ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE}
COPY java /opt/java
COPY jars /opt/cassandra
ENV PATH=/opt/java/bin:$PATH
"""
_NOT_TO_RUN = ("jmods", "include", "man", "src.zip", "demo", "docs")  # of a JDK


@pytest.fixture(scope="module")
def image() -> str:
    """An image with the Java of this machine and the jars that Maven brings, on the nodes."""
    if lacking := kube.missing() or cassandra.what_is_missing(nodes=0):
        pytest.skip(lacking)
    builder = os.environ.get("AURUM_IMAGE_BUILDER")
    if not builder and not (shutil.which("docker") and shutil.which("kind")):
        pytest.skip("needs AURUM_IMAGE_BUILDER, or docker and kind, to build an image of Cassandra")
    cassandra.fetch_jars()
    context = cassandra.JARS.parent / "image"
    shutil.rmtree(context, ignore_errors=True)
    java = Path(shutil.which("java") or "").resolve().parents[1]
    shutil.copytree(java, context / "java", ignore=shutil.ignore_patterns(*_NOT_TO_RUN), ignore_dangling_symlinks=True)
    shutil.copytree(cassandra.JARS, context / "jars")
    (context / "Dockerfile").write_text(_DOCKERFILE)
    if builder:
        kube.run(*shlex.split(builder), IMAGE, str(context), "--file", str(context / "Dockerfile"), timeout=600)
    else:
        kube.run("docker", "build", "--tag", IMAGE, str(context), timeout=600)
        kube.run("kind", "load", "docker-image", IMAGE, timeout=600)
    return IMAGE


@pytest.fixture(scope="module")
def space(image: str) -> Iterator[Namespace]:
    """A Cassandra and a release over it."""
    space = Namespace("aurumai-test-cassandra")
    kube.run("kubectl", "delete", "namespace", space.name, "--ignore-not-found", "--timeout=120s")
    try:
        kube.run("kubectl", "create", "namespace", space.name)
        kube.install_definitions()
        space.apply(*_cassandra(image))
        wait_for(
            lambda: "Starting listening for CQL" in space.kubectl("logs", "cassandra", check=False),
            180,
            "Cassandra is there",
        )
        space.helm(
            *("install", "aurumai", str(CHARTS / "aurumai"), "--values", str(EXAMPLES / "ci-values.yaml")),
            *("--values", str(EXAMPLES / "cassandra-values.yaml")),
            *("--set", "store.url=cassandra://cassandra/aurumai?replication=1,store.existingSecret="),
            *("--set", f"image.repository={kube.REPOSITORY},image.tag={kube.TAG},api.replicas=1,prediction.replicas=1"),
            *("--set", "simulators.iot.machines=5,simulators.edge.machines=2,operator.enabled=false"),
            *("--set", "security.api.keysSecret=,telemetry.collector.enabled=false,settings.AURUM_TRACING_ENABLED=no"),
            *("--set-string", "prediction.settings.AURUM_PREDICTION_SCORE_INTERVAL=15"),
            *("--set-string", "prediction.settings.AURUM_PREDICTION_WINDOW_LAG=0"),  # each prediction queries ingestion
            *("--set-json", f"policy.policies={json.dumps(POLICIES)}", "--wait", "--timeout=5m"),
            timeout=330,
        )
        yield space
    finally:  # also if it could not be installed: what is left would be felt by the tests after these
        if not kube.KEEP:
            kube.run("kubectl", "delete", "namespace", space.name, "--timeout=180s")


def _cassandra(image: str) -> tuple[dict[str, Any], ...]:
    """One node, under the name cassandra. It learns its address when it starts."""
    config = json.dumps(cassandra.node_config("ADDRESS", DATA, seed="ADDRESS"))  # which is YAML as well
    command = shlex.join(cassandra.node_command(DATA / "node.yaml", DATA, Path("/opt/cassandra"), 7199))
    script = f"""set -e
        printf %s "$LOGGING" > {DATA}/{cassandra.LOGGING}
        printf %s "$CONFIG" | sed "s/ADDRESS/$ADDRESS/g" > {DATA}/node.yaml
        exec {command}"""
    container = {
        "name": "cassandra",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "env": [
            {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CONFIG", "value": config},
            {"name": "LOGGING", "value": cassandra.LOGGING_CONFIG},
            {"name": "HOME", "value": str(DATA)},
        ],
        "workingDir": str(DATA),
        "volumeMounts": [{"name": "data", "mountPath": str(DATA)}],
        "resources": {"requests": {"cpu": "50m", "memory": "700Mi"}},
    }
    metadata = {"name": "cassandra", "labels": {"app": "cassandra"}}
    pod = {
        "enableServiceLinks": False,
        "securityContext": {"runAsUser": 10001, "runAsNonRoot": True, "fsGroup": 10001},
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    service = {"clusterIP": "None", "selector": {"app": "cassandra"}, "ports": [{"port": cassandra.CQL_PORT}]}
    return (
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    )


def queries(space: Namespace) -> dict[str, float]:
    """How many queries each ingestion pod has answered."""
    found = {}
    for pod in space.pods("ingestion"):
        name = pod["metadata"]["name"]
        counted = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9090/metrics').read().decode())"
        for line in space.kubectl("exec", name, "--", "python", "-c", counted).splitlines():
            if line.startswith('rpc_server_requests_total{code="OK",method="/aurum.v1.IngestionService/Query"}'):
                found[name] = float(line.split()[1])
    return found


@pytest.mark.proof("cassandra-release")
def test_ingestion_over_cassandra_is_stateless_deployment(space: Namespace) -> None:
    """Over Cassandra ingestion is a Deployment of two ready pods without a volume claim."""
    assert space.get("deployment", "aurumai-ingestion")["status"]["readyReplicas"] == 2
    claims = [each["metadata"]["name"] for each in space.get("persistentvolumeclaims")["items"]]
    assert not [name for name in claims if "ingestion" in name]


@pytest.mark.proof("cassandra-release")
def test_killed_ingestion_pod_fails_no_request(space: Namespace) -> None:
    """Both ingestion pods answer queries, and killing one fails no request."""
    with space.forwarded("service/aurumai-api", 8000) as api:

        def predicted() -> bool:
            items = http("GET", f"{api}/api/machines?limit=100")[1]["items"]
            typed = [each["machine_id"] for each in items if each["machine_type"]]
            answers = [http("POST", f"{api}/api/predict", {"machine_id": machine}) for machine in typed]
            return len(typed) == MACHINES and all(status == 200 and not it["degraded"] for status, it in answers)

        for _ in range(3):  # and again: Java gets going
            wait_for(predicted, 120, "every machine has a prediction")
            time.sleep(5)
    before = queries(space)

    def shared_by_all(rate: float) -> None:
        nonlocal before
        after = queries(space)
        assert len(after) == 2
        for pod, count in after.items():
            assert count - before.get(pod, 0.0) > 0.2 * rate * 20 / 2, (before, after)
        before = after

    def kill() -> None:
        space.kubectl("delete", "pod", next(iter(before)), "--grace-period=0", "--force")
        time.sleep(30)

    assert_kill_fails_no_request(space, RATE, 3.0, shared_by_all, kill)


@pytest.mark.proof("cassandra-release")
def test_readings_survive_deletion_of_all_ingestion_pods(space: Namespace) -> None:
    """Deleting every ingestion pod loses no acknowledged reading and stores none twice."""
    machine = f"ledger-{int(time.time())}"
    device = {"TARGET": "aurumai-edge:50051", "MACHINE": machine, "SECONDS": 30, "PAUSE": 0.1}
    space.start_script("device", "device.py", **device)
    time.sleep(5)
    for pod in space.pods("ingestion"):
        space.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    ledger = space.finish_script("device", 180)
    expected = [float(number) for number in range(1, ledger["acknowledged"] + 1)]
    with space.forwarded("service/aurumai-api", 8000) as api:

        def stored() -> bool:
            path = f"/api/machines/{machine}/metrics?points=5000&start={ledger['start']}"
            status, answer = http("GET", f"{api}{path}")
            return bool(status == 200 and [v for each in answer["series"] for v in each["values"]] == expected)

        wait_for(stored, 60, "everything that was acknowledged is there, once")
