"""A release with quick alert rules, for the tests of alerts."""

import json
from collections.abc import Iterator

import pytest
from charts.telemetry.rules import rules

from tests.support.cluster import kube
from tests.support.cluster.alerts import DOCS, FASTER, GRAFANA, METER, Watch
from tests.support.cluster.kube import CHARTS, Namespace, http, wait_for


@pytest.fixture(scope="session")
def watch(release: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """The release with quick rules, a webhook, faults that can be injected, and somebody who asks for predictions."""
    file = tmp_path_factory.mktemp("rules") / "fast.rules.yaml"
    file.write_text(rules(FASTER))
    revisions = {
        chart: json.loads(release.helm("history", chart, "--output=json").stdout)[-1]["revision"]
        for chart in ("observability", "aurumai")
    }
    release.start_script("webhook", "webhook.py")
    wait_for(lambda: release.get("pod", "webhook")["status"].get("podIP"), 60, "the webhook has an address")
    address = release.get("pod", "webhook")["status"]["podIP"]
    release.start_script("meter", "meter.py", image="edge")
    ports = {"selector": {"script": "meter"}, "ports": [{"port": 5020}]}
    release.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "meter"}, "spec": ports})
    upgrade = ("--reuse-values", "--wait", "--timeout=5m")
    release.helm(
        *("upgrade", "observability", str(CHARTS / "observability"), *upgrade, "--set-file", f"rules.file={file}"),
        *("--set", f"alertmanager.webhookUrl=http://{address}:8080/,links.docs={DOCS},links.grafana={GRAFANA}"),
        *("--set", "collector.retrySeconds=10"),
        timeout=330,
    )
    release.helm(
        *(
            "upgrade",
            "aurumai",
            str(CHARTS / "aurumai"),
            *upgrade,
            "--set-string",
            "settings.AURUM_FAULTS_ENABLED=true,settings.AURUM_INGESTION_FLUSH_SECONDS=10",
            "--set-json",
            f"edge.inputs={json.dumps([METER])}",
        ),
        timeout=330,
    )
    load = {"URL": "http://aurumai-api:8000", "RATE": 10, "SECONDS": 1200, "RETRY": 0}
    with release.forwarded("service/aurumai-api", 8000) as api:
        wait_for(lambda: http("GET", f"{api}/health")[1]["status"] == "healthy", 60, "the platform is healthy")
    release.start_script("load", "load.py", **load)
    with release.forwarded("pod/webhook", 8080) as webhook:
        yield Watch(release, webhook)
    release.kubectl("delete", "service", "meter")
    for pod in ("load", "webhook", "device", "small-store", "meter"):
        release.kubectl("delete", "pod", pod, "--ignore-not-found", "--grace-period=0", "--force")
    if kube.KEEP:
        for chart, revision in revisions.items():
            release.helm("rollback", chart, str(revision), "--wait", "--timeout=5m", timeout=330)
