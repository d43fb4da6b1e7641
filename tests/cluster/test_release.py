"""A release as it stands: everything ready, a request seen whole, every signal of every service."""

import datetime
import json
import time
from typing import Any

import pytest

from tests.support.cluster.kube import CHARTS, SERVICES, Namespace, http, query, wait_for

# A series that only this service has, or that shows it at its work
_OWN = {
    "api": "http_requests_total",
    "ingestion": "data_ingestion_total",
    "prediction": "ml_predictions_total",
    "edge": "edge_spool_forwarded_total",
    "iot-sim": "rpc_client_requests_total",
    "edge-sim": "edge_spool_forwarded_total",
    "operator": "operator_reconciles_total",
}


def test_every_pod_is_ready_and_none_was_restarted(release: Namespace) -> None:
    """Every pod is ready, none was restarted, and only the operator has a service account token."""
    pods = release.pods()
    assert {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods} >= set(SERVICES)
    assert not (restarted := release.restarted()), restarted
    for pod in pods:
        assert all(status["ready"] for status in pod["status"]["containerStatuses"])
        token = "serviceAccountToken" in json.dumps(pod["spec"]["volumes"])
        assert token == (pod["metadata"]["labels"]["app.kubernetes.io/component"] == "operator")


def test_helm_test_passes_and_can_fail(release: Namespace) -> None:
    """`helm test` passes on a release, and fails when it is made to fail."""
    release.helm("test", "aurumai", "--timeout=3m")
    failing = ("upgrade", "aurumai", str(CHARTS / "aurumai"), "--reuse-values", "--set", "tests.failOnPurpose=true")
    release.helm(*failing)
    done = release.helm("test", "aurumai", "--timeout=3m", check=False)
    assert done.returncode != 0
    assert "/api/resilience does not know nobody" in release.kubectl("logs", "aurumai-test-api")
    release.helm("rollback", "aurumai")


_COMPARED = """
import importlib.metadata, json, pathlib
bill = json.loads(pathlib.Path("/usr/share/aurumai/sbom.cdx.json").read_text())
listed = {(each["name"].lower().replace("_", "-"), each["version"]) for each in bill["components"]}
there = {(each.name.lower().replace("_", "-"), each.version) for each in importlib.metadata.distributions()}
root = bill["metadata"]["component"]["name"]
missing = sorted(each for each in there - listed if each[0] != root)
debian = sum(each.get("purl", "").startswith("pkg:deb/") for each in bill["components"])
said = {"format": bill["bomFormat"], "root": root, "missing": missing, "there": len(there), "debian": debian}
print(json.dumps(said))
"""


@pytest.mark.proof("security")
@pytest.mark.parametrize("service", SERVICES)
def test_image_sbom_lists_every_python_package(release: Namespace, service: str) -> None:
    """The SBOM within each image lists every installed Python package."""
    pod = release.pods(service)[0]["metadata"]["name"]
    said = json.loads(release.kubectl("exec", pod, "--container", service, "--", "python", "-c", _COMPARED))
    assert (said["format"], said["root"], said["missing"]) == ("CycloneDX", "aurumai", [])
    assert said["there"] > 20
    assert said["debian"] > 50


_SEARCHED = r"""
import os, re
looks = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{20}|aurum_[a-z2-7]{10}_[A-Za-z0-9_\-]{43}")
files = 0
for top in ("/opt", "/src", "/home", "/root", "/var/lib/aurum", "/usr/share/aurumai", "/usr/local/etc"):
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name != "state"]
        for name in names:
            path = os.path.join(folder, name)
            try:
                content = open(path, "rb").read(2_000_000)
            except OSError:
                continue
            files += 1
            if name in (".env", "keys.yaml", ".netrc", ".pypirc", "id_rsa") or looks.search(content):
                print(path)
print("files", files)
"""


@pytest.mark.proof("security")
@pytest.mark.parametrize("service", SERVICES)
def test_images_contain_no_secret(release: Namespace, service: str) -> None:
    """No image contains a private key, an API key or a file of credentials."""
    pod = release.pods(service)[0]["metadata"]["name"]
    found = release.kubectl("exec", pod, "--container", service, "--", "python", "-c", _SEARCHED).splitlines()
    assert int(found.pop().split()[1]) > 500
    assert found == []


def predict(api: str) -> dict[str, Any]:
    machines = http("GET", f"{api}/api/machines?limit=1")[1]["items"]
    status, answer = http("POST", f"{api}/api/predict", {"machine_id": machines[0]["machine_id"]})
    assert status == 200, answer
    return dict(answer)


@pytest.mark.proof("telemetry")
def test_audit_event_reaches_telemetry_gateway(release: Namespace, api: str) -> None:
    """A recorded act reaches the telemetry gateway as a log event with machine and content."""
    machine = http("GET", f"{api}/api/machines?limit=1")[1]["items"][0]["machine_id"]
    text = f"looked at {time.time_ns()}"
    assert http("POST", f"{api}/api/machines/{machine}/maintenance", {"text": text})[0] == 201

    def told() -> bool:
        lines = release.kubectl("logs", "deployment/observability-collector", "--since=60s").splitlines()
        return any("maintenance.record" in line and machine in line for line in lines) and any(
            "audit.after" in line and text in line for line in lines
        )

    wait_for(told, 30, "the event is in the gateway's log")


def trace(jaeger: str, trace_id: str) -> dict[str, Any] | None:
    status, answer = http("GET", f"{jaeger}/api/traces/{trace_id}")
    return dict(answer["data"][0]) if status == 200 and answer["data"] else None


def test_request_is_one_trace_from_api_to_ingestion(release: Namespace, api: str, jaeger: str) -> None:
    """One explanation is one whole trace through api, prediction and ingestion, with logs of each."""
    wait_for(lambda: not predict(api)["degraded"], 60, "a prediction that is not degraded")
    machine = http("GET", f"{api}/api/machines?limit=1")[1]["items"][0]["machine_id"]
    status, answer = http("GET", f"{api}/api/machines/{machine}/explanation")
    assert status == 200, answer
    trace_id = answer["prediction"]["trace_id"]

    def whole() -> dict[str, Any] | None:
        found = trace(jaeger, trace_id)
        services = {process["serviceName"] for process in found["processes"].values()} if found else set()
        return found if services == {"api", "prediction", "ingestion"} else None

    found = wait_for(whole, 60, "the whole trace is in Jaeger")
    spans = {span["spanID"]: span for span in found["spans"]}

    def service_of(span: dict[str, Any]) -> str:
        return str(found["processes"][span["processID"]]["serviceName"])

    def parent_of(span: dict[str, Any]) -> dict[str, Any] | None:
        return next((spans.get(each["spanID"]) for each in span["references"]), None)

    for span in spans.values():
        if span["references"]:
            assert parent_of(span) is not None, f"{span['operationName']} has lost its parent"
    way = next(span for span in spans.values() if service_of(span) == "ingestion")
    passed = [service_of(way)]
    while (way := parent_of(way)) is not None:
        if service_of(way) != passed[-1]:
            passed.append(service_of(way))
    assert passed == ["ingestion", "prediction", "api"]
    pods = {pod["metadata"]["name"] for pod in release.pods()}
    for process in found["processes"].values():
        tags = {tag["key"]: tag["value"] for tag in process["tags"]}
        assert tags["k8s.pod.name"] in pods
        assert tags["k8s.pod.name"].startswith(f"aurumai-{process['serviceName']}")
        assert tags["k8s.namespace.name"] == release.name
        assert tags["service.namespace"] == "aurumai"
        assert tags["service.version"]
        log = release.kubectl("logs", tags["k8s.pod.name"], "--container", process["serviceName"], "--since=5m")
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        assert any(line.get("trace_id") == trace_id for line in lines), f"no log line of {process['serviceName']}"


@pytest.mark.proof("telemetry")
def test_exemplar_refers_to_existing_trace(api: str, prometheus: str, jaeger: str) -> None:
    """An exemplar of the request duration refers to a trace that Jaeger has."""

    def exemplar_with_trace() -> bool:
        predict(api)
        now = time.time()
        asked = f"query=http_request_duration_seconds_bucket&start={now - 300}&end={now}"
        url = f"{prometheus}/api/v1/query_exemplars?{asked}"
        found = [
            exemplar["labels"]["trace_id"]
            for series in http("GET", url)[1]["data"]
            for exemplar in series["exemplars"]
            if series["seriesLabels"]["service_name"] == "api"
        ]
        return any(trace(jaeger, trace_id) for trace_id in found[-20:])

    wait_for(exemplar_with_trace, 90, "an exemplar of http_request_duration_seconds whose trace is in Jaeger")


@pytest.mark.proof("telemetry")
@pytest.mark.parametrize("service", SERVICES)
def test_each_service_has_metrics_traces_and_logs(
    service: str, release: Namespace, api: str, prometheus: str, jaeger: str
) -> None:
    """Every service delivers metrics, traces, and logs with a trace id."""
    predict(api)
    pods = {pod["metadata"]["name"] for pod in release.pods(service)}

    def scraped() -> bool:
        up = query(prometheus, f'up{{service_name="{service}", k8s_namespace_name="{release.name}"}} == 1')
        return {labels["k8s_pod_name"] for labels, _ in up} >= pods

    wait_for(scraped, 60, f"every pod of {service} is scraped")
    own = query(prometheus, f'count by (k8s_pod_name) ({_OWN[service]}{{service_name="{service}"}})')
    assert {labels["k8s_pod_name"] for labels, _ in own} & pods
    own_collector = query(prometheus, f'otelcol_exporter_sent_spans_total{{k8s_pod_name=~"{"|".join(pods)}"}} > 0')
    assert own_collector, "the collector beside it has sent nothing"

    def traced() -> bool:
        return bool(http("GET", f"{jaeger}/api/traces?service={service}&limit=1&lookback=1h")[1]["data"])

    wait_for(traced, 60, f"a trace of {service}")

    def logged() -> bool:
        lines = [json.loads(line) for pod in pods for line in _log(release, pod, service) if line.startswith("{")]
        assert all(line["service"] == service for line in lines)
        return any("trace_id" in line for line in lines)

    wait_for(logged, 60, f"a log line of {service} with a trace id")


def _log(release: Namespace, pod: str, container: str) -> list[str]:
    return release.kubectl("logs", pod, "--container", container, "--tail=500").splitlines()


@pytest.mark.proof("telemetry")
def test_span_metrics_of_prediction_exist(prometheus: str, api: str) -> None:
    """The collector derives span metrics of prediction's server calls."""
    predict(api)
    wait_for(
        lambda: query(
            prometheus, 'traces_span_metrics_calls_total{service_name="prediction", span_kind="SPAN_KIND_SERVER"}'
        ),
        60,
        "span metrics of prediction",
    )


@pytest.mark.proof("telemetry")
def test_simulated_reading_appears_within_seconds(api: str) -> None:
    """The API shows a simulated pump's reading that is less than five seconds old."""

    def fresh() -> bool:
        items = http("GET", f"{api}/api/machines?limit=50")[1]["items"]
        seen = [item["last_seen"] for item in items if item["machine_id"].startswith("pump")]  # by way of the edge
        newest = max(datetime.datetime.fromisoformat(each) for each in seen)
        return (datetime.datetime.now(datetime.UTC) - newest).total_seconds() < 5

    wait_for(fresh, 30, "a reading that is less than 5 s old")


@pytest.mark.proof("telemetry")
def test_platform_view_shows_every_pod_and_its_policies(release: Namespace, api: str) -> None:
    """The platform view reaches every pod and shows that its policies are applied."""
    services = ("api", "prediction", "ingestion", "edge")
    pods = {pod["metadata"]["name"] for service in services for pod in release.pods(service)}

    def seen() -> bool:
        found = http("GET", f"{api}/api/platform")[1]["instances"]
        there = {each["instance"]: each for each in found if each["reachable"]}
        return pods <= there.keys() and all(there[pod]["policy"]["applied"] for pod in pods)

    wait_for(seen, 60, f"each of {sorted(pods)}")
    assert http("GET", f"{api}/api/platform/traces")[0] == 501, "spans go to the collector, and are not kept here too"


@pytest.mark.proof("telemetry")
def test_prometheus_is_connected_to_alertmanager(release: Namespace, prometheus: str) -> None:
    """Prometheus evaluates its rules without error and has one active Alertmanager."""
    groups = http("GET", f"{prometheus}/api/v1/rules")[1]["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    assert all(rule["health"] in ("ok", "unknown") for rule in rules), rules
    active = http("GET", f"{prometheus}/api/v1/alertmanagers")[1]["data"]["activeAlertmanagers"]
    assert len(active) == 1
    with release.forwarded("service/observability-alertmanager", 9093) as alertmanager:
        assert http("GET", f"{alertmanager}/api/v2/status")[1]["cluster"]
