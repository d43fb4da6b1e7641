"""A release that asks who its callers are, with mutual TLS within: its operator makes both."""

import base64
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from aurum.security.api_keys import KeyFile, make_key, write_keys
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from aurum_sim.machine_types import MACHINE_TYPES
from aurum_sim.plant_model import run_to_failure
from tests.support.cluster import kube
from tests.support.cluster.kube import CHARTS, Namespace, http, wait_for

SMALL = "api.replicas=1,prediction.replicas=1,ingestion.persistence.enabled=false"
WITHOUT = "edge.enabled=false,telemetry.collector.enabled=false"


@pytest.fixture(scope="module")
def closed(
    namespace: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Namespace, dict[str, str]]]:
    file: Path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    made = {role: make_key(role, (role,)) for role in ("viewer", "engineer", "ingest")}
    write_keys(file, KeyFile(keys=tuple(record for _, record in made.values())))
    namespace.kubectl("create", "secret", "generic", "closed-keys", f"--from-file=keys.yaml={file}")
    kube.install_definitions()
    install(namespace)
    yield namespace, {role: key for role, (key, _) in made.items()}
    namespace.helm("uninstall", "closed", "--wait", "--timeout=3m")
    namespace.kubectl("delete", "secret", "closed-keys")
    namespace.kubectl("delete", "secret", "--selector=aurumai.io/release=closed")


def install(namespace: Namespace) -> None:
    namespace.helm(
        *("upgrade", "--install", "closed", str(CHARTS / "aurumai"), "--set", f"{SMALL},{WITHOUT}"),
        *("--set", "security.api.keysSecret=closed-keys"),
        *("--set", f"image.repository={kube.REPOSITORY},image.tag={kube.TAG}", "--wait", "--timeout=5m"),
        timeout=330,
    )


@pytest.mark.proof("security")
def test_closed_release_enforces_roles_and_mutual_tls(closed: tuple[Namespace, dict[str, str]]) -> None:
    """A closed release enforces roles at its API, and its services work with mutual TLS."""
    namespace, keys = closed
    as_ = {role: {"X-API-Key": key} for role, key in keys.items()}
    with namespace.forwarded("service/closed-aurumai-api", 8000) as api:
        wait_for(lambda: http("GET", f"{api}/health")[1]["status"] == "healthy", 60, "it is healthy by mutual TLS")
        assert http("GET", f"{api}/api/machines")[0] == 401
        assert http("GET", f"{api}/api/machines", headers=as_["ingest"])[0] == 403
        pump = {"machine_id": "pump-closed", "machine_type": "pump"}
        assert http("POST", f"{api}/api/machines", pump, as_["viewer"])[0] == 403
        assert http("POST", f"{api}/api/machines", pump, as_["engineer"])[0] == 201
        run, now = run_to_failure(MACHINE_TYPES["pump"], 1, seed=5)[0], time.time()
        rows = [
            {"machine_id": "pump-closed", "sensor": sensor, "timestamp": now - 200 + second, "value": float(value)}
            for sensor, column in run.columns.items()
            if sensor != "fault"
            for second, value in enumerate(column[:200])
            if math.isfinite(value)
        ]
        assert http("POST", f"{api}/api/readings", {"readings": rows}, as_["ingest"])[0] == 200
        status, predicted = http("POST", f"{api}/api/machines/pump-closed/predict", headers=as_["viewer"])
        assert status == 200
        assert not predicted["degraded"], json.dumps(predicted)
        instances = http("GET", f"{api}/api/platform", headers=as_["viewer"])[1]["instances"]
        reached = {each["service"] for each in instances if each["reachable"]}
        assert reached >= {"api", "ingestion", "prediction"}, "admin servers know the API by its token"
        who = http("GET", f"{api}/api/session", headers=as_["viewer"])[1]
        assert (who["asked"], who["roles"]) == (True, ["viewer"])


@pytest.mark.proof("security")
def test_helm_test_passes_on_closed_release(closed: tuple[Namespace, dict[str, str]]) -> None:
    """`helm test` passes on a closed release."""
    namespace, _ = closed
    namespace.helm("test", "closed", "--timeout=3m")
    assert "the API is healthy and requires authentication" in namespace.kubectl("logs", "closed-aurumai-test-api")


@pytest.mark.proof("security")
def test_admin_port_requires_token_of_release(closed: tuple[Namespace, dict[str, str]]) -> None:
    """The admin port answers /livez openly, and /policy only with the release's token."""
    namespace, _ = closed
    token = base64.b64decode(namespace.get("secret", "closed-aurumai-admin")["data"]["token"]).decode()
    with namespace.forwarded(f"pod/{_pod(namespace, 'prediction')}", 9090) as admin:
        assert http("GET", f"{admin}/livez")[0] == 200
        assert http("GET", f"{admin}/policy")[0] == 401
        assert http("GET", f"{admin}/policy", headers={"Authorization": f"Bearer {token}"})[0] == 200


def _pod(namespace: Namespace, service: str) -> str:
    return next(
        str(each["metadata"]["name"])
        for each in namespace.pods(service)
        if each["metadata"]["labels"]["app.kubernetes.io/instance"] == "closed"
    )


@pytest.mark.proof("security")
def test_plaintext_call_to_closed_ingestion_is_rejected(closed: tuple[Namespace, dict[str, str]]) -> None:
    """Ingestion of a closed release rejects a plaintext call without a certificate."""
    namespace, _ = closed
    with (
        namespace.forwarded(f"pod/{_pod(namespace, 'ingestion')}", 50051) as address,
        grpc.insecure_channel(address.removeprefix("http://")) as channel,
    ):
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListMachines(ingestion_pb2.ListMachinesRequest(), timeout=10)
    assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@pytest.mark.proof("security")
def test_upgrade_keeps_certificates_and_session_secrets(closed: tuple[Namespace, dict[str, str]]) -> None:
    """An upgrade keeps the release's certificates, session secret and admin token."""
    namespace, _ = closed
    names = ("closed-aurumai-authority", "closed-aurumai-api-tls", "closed-aurumai-sessions", "closed-aurumai-admin")
    before = [namespace.get("secret", name)["data"] for name in names]
    install(namespace)
    assert [namespace.get("secret", name)["data"] for name in names] == before


@pytest.mark.proof("security")
def test_release_without_authentication_choice_is_rejected(namespace: Namespace) -> None:
    """The chart refuses to install a release whose API no caller could use."""
    refused = namespace.helm("install", "nobody", str(CHARTS / "aurumai"), check=False)
    assert refused.returncode != 0
    assert "security.api: no caller could authenticate" in refused.stderr
