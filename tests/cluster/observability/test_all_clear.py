"""Each alert ends when its fault does, and what the webhook was told of it leads on. After test_alerts.py."""

from pathlib import Path

import pytest
from charts.telemetry.dashboards import PAGES

from tests.support.cluster.alerts import DOCS, GRAFANA, Watch, known_machines, predict
from tests.support.cluster.kube import ROOT


@pytest.mark.proof("alerts")
def test_alerts_resolve_after_faults_end(watch: Watch) -> None:
    """Every alert that fired resolves after its fault ends."""
    assert watch.ended, "no fault was there"
    with watch.release.forwarded("service/aurumai-api", 8000) as api:
        machines = known_machines(api)
        pumps = [each["machine_id"] for each in machines if each["machine_type"] == "pump"]
        well = [pump for pump in pumps if not pump.startswith("shifted-")]
        predict(api, [well[number % len(well)] for number in range(1000)])  # most of the latest are of these again
    watch.clears()


@pytest.mark.proof("alerts")
def test_webhook_alerts_link_to_runbook_and_dashboard(watch: Watch) -> None:
    """Each alert sent to the webhook links to an existing runbook and an existing dashboard."""
    told = [each for name in watch.ended for each in watch.told(name, "firing")]
    assert {each["labels"]["alertname"] for each in told} == set(watch.ended)
    uids = {page.uid for page in PAGES}
    for each in told:
        labels, annotations = each["labels"], each["annotations"]
        assert labels["severity"] in ("warning", "critical")
        assert labels["service"]
        assert annotations["summary"]
        assert annotations["description"]
        assert Path(ROOT, annotations["runbook_url"].removeprefix(DOCS)).is_file()
        assert annotations["runbook_url"].startswith(f"{DOCS}docs/runbooks/")
        assert annotations["dashboard_url"].removeprefix(f"{GRAFANA}/d/") in uids
