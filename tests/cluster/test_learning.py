"""A closed release that learns from its plant: its CronJob, run by hand, fills the volume of models."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aurum.security.api_keys import KeyFile, make_key, write_keys
from aurum_sim.machine_types import PUMP
from tests.support.cluster import kube
from tests.support.cluster.kube import CHARTS, Namespace, wait_for
from tests.support.http import http
from tests.support.recorded_plant import RecordedPlant, recorded_plant

RELEASE, CLAIM = "taught", "taught-models"
TYPE = "press"  # the image has no model of it
ROWS, STEP = 1000, 2.0  # hours
SMALL = "api.replicas=1,prediction.replicas=1,ingestion.persistence.enabled=false"
WITHOUT = "edge.enabled=false,telemetry.collector.enabled=false"  # the operator makes the certificates
LEARNING = "learning.enabled=true,learning.resources.requests.cpu=50m,learning.resources.requests.memory=256Mi"
ARGUMENTS = '["--rows","2000","--rounds","30"]'
JOB_SECONDS = 400


@pytest.fixture(scope="module")
def taught(
    namespace: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Namespace, str, dict[str, str]]]:
    """A closed release with learning, the address of its API, and the header of a caller."""
    file: Path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    key, record = make_key("teacher", ("engineer", "operator", "ingest"))
    write_keys(file, KeyFile(keys=(record,)))
    namespace.kubectl("create", "secret", "generic", "taught-keys", f"--from-file=keys.yaml={file}")
    namespace.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
    )
    kube.install_definitions()
    namespace.helm(
        *("upgrade", "--install", RELEASE, str(CHARTS / "aurumai"), "--set", f"{SMALL},{WITHOUT},{LEARNING}"),
        *("--set", f"security.api.keysSecret=taught-keys,prediction.models.existingClaim={CLAIM}"),
        *("--set-json", f"learning.arguments={ARGUMENTS}"),
        *("--set", f"image.repository={kube.REPOSITORY},image.tag={kube.TAG}", "--wait", "--timeout=5m"),
        timeout=330,
    )
    with namespace.forwarded(f"service/{RELEASE}-aurumai-api", 8000) as api:
        yield namespace, api, {"X-API-Key": key}
    namespace.helm("uninstall", RELEASE, "--wait", "--timeout=3m")
    namespace.kubectl("delete", "job", "--selector=app.kubernetes.io/instance=" + RELEASE, "--ignore-not-found")
    namespace.kubectl("delete", "secret/taught-keys", f"pvc/{CLAIM}", "--wait=false")
    namespace.kubectl("delete", "secret", f"--selector=aurumai.io/release={RELEASE}")


def tell(api: str, key: dict[str, str], plant: RecordedPlant, rows: slice) -> None:
    """Sends the readings of some rows, and records what happened to the machines meanwhile."""
    times = plant.timestamps[rows]
    for machine, columns in plant.columns.items():
        lines = [",".join(["machine_id", "timestamp", *columns])]
        for row, at in zip(range(rows.start, rows.stop), times.tolist(), strict=True):
            cells = ("" if np.isnan(values[row]) else repr(float(values[row])) for values in columns.values())
            lines.append(",".join([machine, str(at), *cells]))
        sent = http("POST", f"{api}/api/readings", "\n".join(lines).encode(), {"Content-Type": "text/csv", **key})
        assert sent.status == 200, sent.body
        if rows.start == 0:
            registered = {"machine_id": machine, "machine_type": TYPE}
            assert http("POST", f"{api}/api/machines", registered, key).status == 201
        for stop in plant.stops[machine]:
            if times[0] <= (stop.to_us or 0) <= times[-1]:
                record = {
                    "text": "stopped",
                    "kind": "failure" if stop.failed else "overhaul",
                    "from": str(stop.from_us),
                    "to": str(stop.to_us),
                }
                answer = http("POST", f"{api}/api/machines/{machine}/maintenance", record, key)
                assert answer.status == 201, answer.body


def learn(namespace: Namespace, name: str) -> str:
    """Runs the CronJob once. Returns what it printed."""
    namespace.kubectl("create", "job", name, f"--from=cronjob/{RELEASE}-aurumai-learning")

    def ended() -> dict[str, Any]:
        status: dict[str, Any] = namespace.get("job", name)["status"]
        return status if {"succeeded", "failed"} & set(status) else {}

    status = wait_for(ended, JOB_SECONDS, f"job {name} ends")
    said = namespace.kubectl("logs", f"job/{name}", check=False)
    assert status.get("succeeded") == 1, said[-3000:]
    return said


def models(api: str, key: dict[str, str]) -> list[dict[str, Any]]:
    """The models of the type that the API lists."""
    answer = http("GET", f"{api}/api/models", headers=key)
    assert answer.status == 200, answer.body
    return [each for each in answer.json["items"] if each["machine_type"] == TYPE]


def test_learning_job_teaches_a_closed_release(taught: tuple[Namespace, str, dict[str, str]]) -> None:
    """The job makes a first champion, waits for further lives with the reason, and then puts a model in the shadow."""
    namespace, api, key = taught
    begin = int((time.time() - ROWS * STEP * 3600) * 1e6)
    plant = recorded_plant(PUMP, 14, ROWS * STEP, STEP, 3, begin)
    tell(api, key, plant, slice(0, ROWS // 2))
    assert "is the first champion" in learn(namespace, "learn-first")
    champion = wait_for(lambda: [each for each in models(api, key) if each["champion"]], 60, "the API lists the model")
    assert [each["without_skill"] for each in champion] == [None]

    assert f"{TYPE}: not trained: 0 lives ended in a failure" in learn(namespace, "learn-again")
    assert [each["version"] for each in models(api, key)] == [champion[0]["version"]]

    tell(api, key, plant, slice(ROWS // 2, ROWS))
    assert "is in the shadow" in learn(namespace, "learn-later")
    shadow = wait_for(lambda: [each for each in models(api, key) if each["shadow"]], 60, "the API lists the shadow")
    assert shadow[0]["version"] != champion[0]["version"]
