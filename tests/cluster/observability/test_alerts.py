"""Each alert, provoked by a real fault, on its way to a webhook behind Alertmanager, and its end when the fault ends.

The rules are the chart's over windows and waits that are 120 times shorter. Faults come in rounds, some together.
That alerts clear is looked at when all faults are over, in test_all_clear.py.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from charts.telemetry.alerts import ALERTS

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.cluster.alerts import Watch, known_machines, predict
from tests.support.cluster.kube import Namespace, http, wait_for
from tests.support.cluster.operator import conditions, converged, policy


@contextlib.contextmanager
def fault(release: Namespace, service: str, *what: str) -> Iterator[None]:
    """`aurum fault add` in every pod of a service."""
    with contextlib.ExitStack() as stack:
        for pod in release.pods(service):
            admin = stack.enter_context(release.forwarded(f"pod/{pod['metadata']['name']}", 9090))
            target = f"{service}={admin.removeprefix('http://')}"
            _aurum(target, "fault", "add", service, *what, "--duration", "600s")
            stack.callback(_aurum, target, "fault", "clear", service)
        yield


def _aurum(target: str, *arguments: str) -> None:
    command = [sys.executable, "-m", "aurum.cli", *arguments]
    environment = {**os.environ, "AURUM_ADMIN_TARGETS": target}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def scaled(release: Namespace, what: str, back: int) -> Iterator[None]:
    """None of it, for the time of a block."""
    release.kubectl("scale", what, "--replicas=0")
    try:
        yield
    finally:
        release.kubectl("scale", what, f"--replicas={back}")
        release.kubectl("rollout", "status", what, "--timeout=180s", timeout=200)


@contextlib.contextmanager
def broken_policy(release: Namespace) -> Iterator[None]:
    """A policy document that the API cannot load, and no operator that puts it right."""
    broken = {"data": {"policies.yaml": "policies: [{target: nowhere}]"}}
    with scaled(release, "deployment/aurumai-operator", 1):
        wait_for(lambda: not release.pods("operator"), 60, "the operator is gone")
        release.kubectl("patch", "configmap", "aurumai-api-policy", "--type=merge", "--patch", json.dumps(broken))
        for pod in release.pods("api"):  # The kubelet looks at once
            release.kubectl("annotate", "pod", pod["metadata"]["name"], f"looked-at={time.time():.0f}")
        yield


@contextlib.contextmanager
def nearly_full_store(release: Namespace) -> Iterator[None]:
    """An ingestion like the release's, whose disk has less than a gigabyte."""
    spec = release.get("statefulset", "aurumai-ingestion")["spec"]["template"]["spec"]
    spec["volumes"].append({"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "900Mi"}})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "small-store"}, "spec": spec}
    release.apply(pod)
    yield
    release.kubectl("delete", "pod", "small-store", "--grace-period=0", "--force")


def write(release: Namespace, service: str, batch: ingestion_pb2.Batch) -> None:
    """Writes a batch to ingestion or to the gateway."""
    with (
        release.forwarded(f"service/aurumai-{service}", 50051) as url,
        grpc.insecure_channel(url.removeprefix("http://")) as channel,
    ):
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        stub.Write(ingestion_pb2.WriteRequest(batch=batch), timeout=10)


@contextlib.contextmanager
def dead_letter(release: Namespace) -> Iterator[None]:
    """A batch in the gateway whose source belongs to somebody else, for the time of a block."""
    source = f"taken-{int(time.time())}"
    series = [Series("poison", "s", np.array([time.time_ns() // 1000], np.int64), np.array([1.0]))]
    for service, sequence, owner in (("ingestion", 1, "somebody else"), ("edge", 2, "")):
        batch = encode(source, sequence, series)
        batch.owner = owner
        write(release, service, batch)
    yield
    pod = release.pods("edge")[0]
    gateway = ("exec", pod["metadata"]["name"], "--container", "edge", "--", "aurum", "edge", "dead-letters")
    for line in release.kubectl(*gateway, "list").splitlines():
        release.kubectl(*gateway, "delete", line.split()[0])


@contextlib.contextmanager
def refused_config_maps(release: Namespace) -> Iterator[None]:
    """An operator that may not write ConfigMaps, for the time of a block."""
    rules = release.get("role", "aurumai-operator")["rules"]
    read_only = [
        {**rule, "verbs": ["get", "list", "watch"]} if rule["resources"] == ["configmaps"] else rule for rule in rules
    ]
    assert read_only != rules
    patch = ("patch", "role", "aurumai-operator", "--type=merge", "--patch")
    release.kubectl(*patch, json.dumps({"rules": read_only}))
    try:
        yield
    finally:
        release.kubectl(*patch, json.dumps({"rules": rules}))


# It prints the path of the store; nothing while the readings of the machine are not in the tables.
_ROT = """
import os, sqlite3, sys
path = os.path.join(os.environ["AURUM_STATE_DIR"], "store.db")
tables = sqlite3.connect(path, timeout=30)
found = tables.execute(
    "SELECT segments.id, data FROM segments JOIN series ON series.id = segments.series WHERE machine_id = ?",
    sys.argv[1:]).fetchone()
if found:
    data = bytearray(found[1])
    data[-1] ^= 1
    tables.execute("UPDATE segments SET data = ? WHERE id = ?", (bytes(data), found[0]))
    tables.commit()
    print(path)
"""


@contextlib.contextmanager
def damaged_segment(release: Namespace, api: str) -> Iterator[None]:
    """A segment of the store with a flipped bit, which a question has met, for the time of a block."""
    # More readings than ingestion holds in memory: predictions ask for the latest ones, which need no segment then
    machine, count = f"rotten-{int(time.time())}", 10_000
    times = time.time_ns() // 1000 - 1_000_000 * np.arange(count, 0, -1)
    batch = encode(machine, 1, [Series(machine, "s", times, np.ones(count))])
    write(release, "ingestion", batch)
    pod = release.pods("ingestion")[0]["metadata"]["name"]
    inside = ("exec", pod, "--container", "ingestion", "--")
    damage = (*inside, "python", "-c", _ROT, machine)
    path = wait_for(lambda: release.kubectl(*damage).strip(), 90, "a segment of the machine")
    shown = f"{api}/api/machines/{machine}/metrics?points=100"
    wait_for(lambda: http("GET", shown)[0] == 200, 60, "the question is answered without the segment")
    yield
    release.kubectl(*inside, "aurum", "store", "check", "--repair", path)


def shifted_pump(api: str) -> str:
    """A new pump all of whose sensors show what no pump ever did; its name."""
    machines = known_machines(api)
    pump = next(each["machine_id"] for each in machines if each["machine_type"] == "pump")
    _, shown = http("GET", f"{api}/api/machines/{pump}/metrics?points=100")
    machine = f"shifted-{int(time.time())}"
    assert http("POST", f"{api}/api/machines", {"machine_id": machine, "machine_type": "pump"})[0] == 201
    now = time.time()
    rows = [
        {"machine_id": machine, "sensor": series["sensor"], "timestamp": now - 200 + index, "value": value}
        for series in shown["series"]
        for index in range(200)
        # Life goes on as it does; all else is far away
        for value in ([series["values"][-1] + index / 100] if series["sensor"] == "operating_hours" else [1e6 + index])
    ]
    status, answer = http("POST", f"{api}/api/readings", {"readings": rows})
    assert status == 200, answer
    return machine


SLOW = {"AurumAISlowRequests", *(f"AurumAIPredictLatencyBurn{each}" for each in ("Fast", "Medium", "Slow"))}
FAILING = {"AurumAIErrors", *(f"AurumAIPredictAvailabilityBurn{each}" for each in ("Fast", "Medium", "Slow"))}
CUT_OFF = {
    "AurumAIIngestionAbsent",
    "AurumAISpoolFilling",
    *(f"AurumAIIngestFreshnessBurn{each}" for each in ("Fast", "Medium", "Slow")),
}
PREDICTION_GONE = {"AurumAIBreakerOpen", "AurumAIPredictionAbsent"}
ROUNDS = (
    SLOW | FAILING | {"AurumAIPolicyRefused", "AurumAIStoreDiskFull", "AurumAITelemetryDropped", "AurumAIModelDrift"},
    {"AurumAIManyRetries", "AurumAIPolicyNotConverged", "AurumAIOperatorObjectsFailing"},
    CUT_OFF | PREDICTION_GONE,
    {
        "AurumAIApiAbsent",
        "AurumAIInputAway",
        "AurumAIInputIncomplete",
        "AurumAIInputRefuses",
        "AurumAIDeadLetters",
        "AurumAIDamaged",
    },
)
OF_CASSANDRA = {"AurumAIMergeLag"}  # the release stores in SQLite


@pytest.mark.proof("alerts")
def test_fault_rounds_cover_every_alert_once() -> None:
    """The rounds of faults list each defined alert exactly once, except those of a store in Cassandra."""
    names = [*OF_CASSANDRA, *(name for each in ROUNDS for name in each)]
    assert sorted(names) == sorted(alert.name for alert in ALERTS)


@pytest.mark.proof("alerts")
def test_latency_error_policy_disk_and_drift_alerts_fire(watch: Watch) -> None:
    """Slow or failing calls, a refused policy, a full disk, lost spans and drift fire their alerts."""
    release, names = watch.release, ROUNDS[0]
    with release.forwarded("service/aurumai-api", 8000) as api:
        machine = shifted_pump(api)
        predict(api, [machine] * 200)  # its share of the latest predictions of both pods
    with (
        scaled(release, "deployment/observability-jaeger", 1),
        fault(release, "prediction", "delay", "--method", "Predict", "--delay", "1200ms"),
        fault(release, "api", "error", "--method", "/api/predict", "--percentage", "40"),
        broken_policy(release),
        nearly_full_store(release),
    ):
        watch.fires(names)


@pytest.mark.proof("alerts")
def test_retry_storm_rollout_and_refused_write_alerts_fire(watch: Watch) -> None:
    """Retries without a budget, a rollout that stays paused and a refused ConfigMap fire their alerts."""
    release, names = watch.release, ROUNDS[1]
    retry = {"maxAttempts": 10, "baseDelay": "5ms", "maxDelay": "10ms", "budgetRatio": 1, "budgetFloor": 1000}
    ingestion, prediction = {"service": "ingestion", "client": "prediction"}, {"service": "prediction"}
    release.apply(
        policy("storm", targetRefs=[prediction], retry=retry, circuitBreaker={"enabled": False}),
        policy("slow", targetRefs=[ingestion], retry={"maxAttempts": 2}, rollout={"pause": "10m"}),
    )
    wait_for(lambda: converged(release, "storm"), 60, "the storm has converged")
    wait_for(lambda: conditions(release, "slow").get("Programmed") == ("True", "RollingOut"), 60, "the rollout begins")
    with refused_config_maps(release), fault(release, "prediction", "error", "--method", "Predict"):
        release.apply(policy("kept-back", "TelemetryPolicy", targetRefs=[{"service": "edge"}], logLevel="DEBUG"))
        watch.fires(names)
        reason = conditions(release, "kept-back", "telemetrypolicy")["Programmed"]
        assert reason == ("False", "Pending")
    release.kubectl("delete", "resiliencepolicies,telemetrypolicies", "--all")


@pytest.mark.proof("alerts")
def test_missing_prediction_and_ingestion_alerts_fire(watch: Watch) -> None:
    """Missing prediction and ingestion fire the breaker, absence, spool and freshness alerts."""
    release, names = watch.release, ROUNDS[2]
    device = {"TARGET": "aurumai-edge:50051", "MACHINE": f"loud-{int(time.time())}", "SECONDS": 180, "PAUSE": 0.05}
    with (
        scaled(release, "deployment/aurumai-prediction", 2),
        scaled(release, "statefulset/aurumai-ingestion", 1),
    ):
        release.start_script("device", "device.py", **device, NOISE=2000)
        watch.fires(names)
        release.kubectl("delete", "pod", "device", "--grace-period=0", "--force")


@pytest.mark.proof("alerts")
def test_absence_dead_letter_and_damage_alerts_fire(watch: Watch) -> None:
    """A missing API, a faulty and a silent meter, a batch refused for good and a damaged segment fire their alerts."""
    release = watch.release
    with release.forwarded("service/aurumai-api", 8000) as api:
        shown = f"{api}/api/machines/meter-1/metrics?sensor=seconds"
        wait_for(lambda: http("GET", shown)[1]["series"][0]["values"], 120, "readings of the meter")
    release.kubectl("delete", "pod", "meter", "--grace-period=0", "--force")
    # The value is out of the range that the input declares, and the second register does not exist
    release.start_script("meter", "meter.py", image="edge", OFFSET=1000, WORDS=5)
    of_the_meter = {"AurumAIInputRefuses", "AurumAIInputIncomplete"}
    watch.fires(of_the_meter)
    release.kubectl("delete", "pod", "meter", "--grace-period=0", "--force")
    with contextlib.ExitStack() as faults:
        with release.forwarded("service/aurumai-api", 8000) as api:
            faults.enter_context(damaged_segment(release, api))
        faults.enter_context(dead_letter(release))
        faults.enter_context(scaled(release, "deployment/aurumai-api", 2))
        watch.fires(ROUNDS[3] - of_the_meter)
    release.start_script("meter", "meter.py", image="edge")
