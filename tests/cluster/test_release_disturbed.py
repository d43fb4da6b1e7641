"""A release that is disturbed: pods deleted and killed, telemetry gone, upgrades under load. Nothing may get lost."""

import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.support.cluster import kube
from tests.support.cluster.kube import CHARTS, Namespace, http, query, wait_for
from tests.support.cluster.load import RATE, Load, assert_kill_fails_no_request

CALM = 5  # requests/s that leave a small machine time to start pods


@pytest.fixture(autouse=True)
def settled(release: Namespace) -> Iterator[None]:
    """Each test begins with everything ready and machines that have predictions."""
    release.kubectl("rollout", "status", "deployment", "--timeout=180s", timeout=200)
    for name in ("aurumai-ingestion", "aurumai-edge"):
        release.kubectl("rollout", "status", f"statefulset/{name}", "--timeout=180s", timeout=200)
    with release.forwarded("service/aurumai-api", 8000) as api:
        wait_for(lambda: http("GET", f"{api}/health")[1]["status"] == "healthy", 60, "the platform is healthy")
    yield
    release.kubectl("delete", "pod", "load", "device", "--ignore-not-found", "--grace-period=0", "--force")


@pytest.mark.proof("disruption")
def test_deleted_edge_pod_loses_no_acknowledged_reading(release: Namespace, api: str) -> None:
    """Deleting the edge pod, also by force, loses no acknowledged reading and stores none twice."""
    machine = f"ledger-{int(time.time())}"
    target = "aurumai-edge:50051"
    release.start_script("device", "device.py", TARGET=target, MACHINE=machine, SECONDS=40, PAUSE=0.1)
    time.sleep(10)
    release.kubectl("delete", "pod", "aurumai-edge-0", "--wait=false")
    time.sleep(15)
    release.kubectl("delete", "pod", "aurumai-edge-0", "--grace-period=0", "--force")
    ledger = release.finish_script("device", 180)
    assert ledger["again"] > 0, "the device did not notice"
    expected = {float(sequence) for sequence in range(1, ledger["acknowledged"] + 1)}

    def stored() -> list[float]:
        status, answer = http("GET", f"{api}/api/machines/{machine}/metrics?points=5000&start={ledger['start']}")
        assert status == 200, answer
        return [value for series in answer["series"] for value in series["values"]]

    wait_for(lambda: set(stored()) >= expected, 60, f"all of {len(expected)} acknowledged readings are stored")
    assert sorted(stored()) == sorted(expected)


@pytest.mark.proof("disruption")
def test_telemetry_outage_fails_no_request(release: Namespace, prometheus: str, jaeger: str) -> None:
    """Requests succeed without the telemetry gateway or collectors, and traces resume afterwards."""
    load = Load(release, retry=False)
    time.sleep(20)
    quiet = load.stop()

    load = Load(release, retry=False)
    release.kubectl("scale", "deployment/observability-collector", "--replicas=0")
    try:
        time.sleep(60)
        away = load.stop()
        rss = query(prometheus, "max by (k8s_pod_name) (max_over_time(otelcol_process_memory_rss[5m]))")
    finally:
        release.kubectl("scale", "deployment/observability-collector", "--replicas=1")
        release.kubectl("rollout", "status", "deployment/observability-collector", "--timeout=60s")
    assert away["failed"] == 0, away
    assert away["degraded"] == 0, away
    assert max(value for _, value in rss) < 160 * 2**20
    assert restarts(release) == 0

    with release.forwarded("service/aurumai-api", 8000) as api:
        wait_for(lambda: traced(api, jaeger), 90, "traces flow again")

        load = Load(release, retry=False)
        pods = [name for pod in release.pods() if "observability" not in (name := pod["metadata"]["name"])]
        for pod in far_apart(pods):
            kill_collector(release, pod)
        wait_for(lambda: restarts(release) >= len(pods), 120, "all collectors were killed and started again")
        killed = load.stop()
        assert killed["failed"] == 0, killed
        wait_for(lambda: traced(api, jaeger), 90, "traces flow again")
    # Not a bound on the noise of the machine, but on requests that wait for telemetry: an export has 2 s, a retry 5 s
    assert away["p50"] < quiet["p50"] + 0.5, (quiet, away)


def traced(api: str, jaeger: str) -> bool:
    machines = http("GET", f"{api}/api/machines?limit=1")[1]["items"]
    _, answer = http("POST", f"{api}/api/predict", {"machine_id": machines[0]["machine_id"]})
    for _ in range(15):
        status, found = http("GET", f"{jaeger}/api/traces/{answer['trace_id']}")
        if status == 200 and found["data"]:
            return True
        time.sleep(1)
    return False


def far_apart(pods: list[str]) -> list[str]:
    """Not the replicas of one service right after each other: for the second in which its collector starts again a pod
    is not ready, and with all of them in the same second nobody would be."""
    replicas = [list(each) for _, each in itertools.groupby(sorted(pods), key=lambda pod: pod.rsplit("-", 1)[0])]
    return [pod for turn in itertools.zip_longest(*replicas) for pod in turn if pod is not None]


def restarts(release: Namespace) -> int:
    """How often collectors beside services were started again."""
    return sum(
        status["restartCount"]
        for pod in release.pods()
        for status in pod["status"].get("initContainerStatuses", [])
        if status["name"] == "collector"
    )


def kill_collector(release: Namespace, pod: str) -> None:
    """SIGQUIT, at which a Go program dies at once: a container's first process gets no SIGKILL from inside."""
    custom = kube.PODS / "debug.json"
    release.kubectl(
        *("debug", pod, f"--image={kube.REPOSITORY}/api:{kube.TAG}", "--image-pull-policy=IfNotPresent"),
        *("--target=collector", "--profile=restricted", f"--custom={custom}", "--quiet", "--"),
        *("python", "-c", "import os, signal; os.kill(1, signal.SIGQUIT)"),
    )


@pytest.mark.proof("disruption")
def test_killed_api_and_prediction_pods_fail_no_request(release: Namespace, prometheus: str) -> None:
    """Both pods of api and of prediction take load, and killing one of each fails no request."""

    def shared_by_all(rate: float) -> None:
        for service, metric in (("api", "http_requests_total"), ("prediction", "rpc_server_requests_total")):
            pods = {pod["metadata"]["name"] for pod in release.pods(service)}
            assert len(pods) == 2

            def shared(metric: str = metric, pods: set[str] = pods) -> bool:
                found = query(prometheus, f"sum by (k8s_pod_name) (rate({metric}[20s]))")
                rates = {labels["k8s_pod_name"]: value for labels, value in found}
                return all(rates[pod] > 0.2 * rate / 2 for pod in pods)

            wait_for(shared, 60, f"both pods of {service} get requests")

    def kill() -> None:
        for service in ("api", "prediction"):
            victim = release.pods(service)[0]["metadata"]["name"]
            release.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
            time.sleep(20)

    assert_kill_fails_no_request(release, RATE / 2, 1.0, shared_by_all, kill)


@pytest.mark.proof("disruption")
def test_killed_scorer_pod_hands_over_its_machines(release: Namespace, api: str) -> None:
    """Another pod scores the machines of a killed scorer within 10 s, and no alarm repeats or is lost."""
    alarming = [f"handed-over-{int(time.time())}-{number}" for number in range(12)]

    def send(fault: float) -> None:
        values = [
            {"machine_id": machine, "sensor": "fault", "timestamp": time.time(), "value": fault} for machine in alarming
        ]
        status, answer = http("POST", f"{api}/api/readings", {"readings": values})
        assert status == 200, answer

    def transitions() -> Counter[str]:
        items = http("GET", f"{api}/api/alarms/journal?limit=1000")[1]["items"]
        return Counter(f"{each['id']} {each['transition']}" for each in items if each["machine_id"] in alarming)

    def predicted(after: float) -> bool:
        """Whether each simulated machine has a prediction that was made after this time."""
        send(1)  # else the machines would become silent
        machines = [each for each in machines_of(api) if each["machine_id"].startswith(("pump", "compressor", "motor"))]
        return bool(machines) and all(
            each["predicted_at"] and datetime.fromisoformat(each["predicted_at"]).timestamp() > after
            for each in machines
        )

    wait_for(lambda: predicted(time.time() - 10), 60, "all machines are scored")
    raised = Counter(f"{machine}~stopped raised" for machine in alarming)
    wait_for(lambda: transitions() == raised, 30, "the alarms are raised")
    victim = release.pods("prediction")[0]["metadata"]["name"]
    release.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    killed = time.time()
    # Three checks a second apart detect that it is gone, and names are resolved every two seconds
    wait_for(lambda: predicted(killed + 2), 10 + 5, "the machines of the killed scorer are scored")
    release.kubectl("rollout", "status", "deployment/aurumai-prediction", "--timeout=120s", timeout=150)
    joined = time.time()
    wait_for(lambda: predicted(joined + 10), 60, "all machines are scored after the new scorer has taken its share")
    assert transitions() == raised
    send(0)
    cleared = Counter(f"{machine}~stopped cleared" for machine in alarming)
    wait_for(lambda: transitions() == raised + cleared, 30, "the alarms are cleared")


def machines_of(api: str) -> list[dict[str, Any]]:
    """All machines, by all pages of the list."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        _, page = http("GET", f"{api}/api/machines?limit=500&cursor={cursor}")
        found += page["items"]
        cursor = page["next_cursor"]
    return found


def test_killed_api_pod_fails_no_request(release: Namespace) -> None:
    """A caller that retries loses no request when one of two API pods is killed."""
    load = Load(release, retry=True, keepalive=0, rate=CALM)
    victim = release.pods("api")[0]["metadata"]["name"]
    release.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    release.kubectl("rollout", "status", "deployment/aurumai-api", "--timeout=120s", timeout=150)
    found = load.stop()
    assert found["requests"] > 5 * CALM
    assert found["failed"] == 0, found


def test_upgrade_under_load_fails_no_request(release: Namespace) -> None:
    """An upgrade of the API to another image fails no request."""
    next_tag = os.environ.get("AURUM_IMAGE_TAG_NEXT")
    if not next_tag:
        pytest.skip("AURUM_IMAGE_TAG_NEXT names no image to upgrade to")
    load = Load(release, retry=False, rate=CALM)
    upgrade = ("upgrade", "aurumai", str(CHARTS / "aurumai"), "--reuse-values", "--wait", "--timeout=5m")
    image = f"{kube.REPOSITORY}/api:{next_tag}"
    release.helm(*upgrade, "--set", f"api.image={image}", timeout=330)
    assert {pod["spec"]["containers"][0]["image"] for pod in release.pods("api")} == {image}
    found = load.stop()
    assert found["requests"] > 5 * CALM
    assert found["failed"] == 0, found


@pytest.mark.proof("disruption")
def test_upgrades_and_a_rollback_fail_no_request(release: Namespace) -> None:
    """Upgrades and a rollback under load fail no request."""
    upgrade = ("upgrade", "aurumai", str(CHARTS / "aurumai"), "--reuse-values", "--wait", "--timeout=5m")
    revision = json.loads(release.helm("history", "aurumai", "--output=json").stdout)[-1]["revision"]
    load = Load(release, retry=False)
    release.helm(*upgrade, "--set", "settings.AURUM_LOG_LEVEL=DEBUG", timeout=330)
    if next_tag := os.environ.get("AURUM_IMAGE_TAG_NEXT"):
        release.helm(*upgrade, "--set", f"image.tag={next_tag}", timeout=330)
        images = {pod["spec"]["containers"][0]["image"] for pod in release.pods("api")}
        assert images == {f"{kube.REPOSITORY}/api:{next_tag}"}
    release.helm("rollback", "aurumai", str(revision), "--wait", "--timeout=5m", timeout=330)
    found = load.stop()
    assert found["requests"] > 20 * RATE
    assert found["failed"] == 0, found
    if not next_tag:
        pytest.skip("the change of an image was left out: AURUM_IMAGE_TAG_NEXT names none")
