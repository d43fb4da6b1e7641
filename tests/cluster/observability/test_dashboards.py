"""Every query of every dashboard on a release with simulators, 90 s after its start: it has something to show."""

import math
import re
import time
from typing import Any

import pytest
from charts.telemetry.dashboards.prometheus_queries import chosen, expanded

from tests.support.cluster.alerts import DASHBOARDS, age
from tests.support.cluster.kube import ROOT, Namespace, http, query

BEGUN = 90.0  # seconds


@pytest.fixture
def begun(release: Namespace) -> None:
    time.sleep(max(0.0, BEGUN - age(release)))


@pytest.mark.proof("telemetry")
@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each["uid"])
def test_every_panel_query_returns_data(begun: None, prometheus: str, dashboard: dict[str, Any]) -> None:
    """Every query of every dashboard panel returns data, and every variable has values."""
    values = chosen(prometheus, dashboard)
    assert all(values.values()), "a variable has nothing to choose from"
    empty = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            found = query(prometheus, expanded(target["expr"], values))
            if not any(not math.isnan(value) for _, value in found):
                empty.append(f"{panel['title']}: {target['expr']}")
    assert not empty, "\n".join(empty)


@pytest.mark.proof("telemetry")
@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each["uid"])
def test_annotation_queries_are_valid(begun: None, prometheus: str, dashboard: dict[str, Any]) -> None:
    """Prometheus accepts every annotation query of every dashboard."""
    values = chosen(prometheus, dashboard)
    for mark in dashboard["annotations"]["list"]:
        query(prometheus, expanded(mark["expr"], values))


@pytest.mark.proof("telemetry")
def test_service_map_shows_services_and_calls(begun: None, prometheus: str) -> None:
    """The service map shows all seven services and the calls between them."""
    (overview,) = [each for each in DASHBOARDS if each["uid"] == "aurumai-overview"]
    (panel,) = [each for each in overview["panels"] if each["type"] == "nodeGraph"]
    values = chosen(prometheus, overview)
    nodes, edges = (query(prometheus, expanded(target["expr"], values)) for target in panel["targets"])
    ids = {labels["id"] for labels, _ in nodes}
    assert ids == {"api", "ingestion", "prediction", "edge", "iot-sim", "edge-sim", "operator"}
    found = {(labels["source"], labels["target"]) for labels, _ in edges}
    assert found >= {
        ("api", "prediction"),
        ("prediction", "ingestion"),
        ("edge", "ingestion"),
        ("edge-sim", "ingestion"),
        ("iot-sim", "edge"),
    }


@pytest.mark.proof("telemetry")
def test_queries_of_slo_page_return_data(begun: None, api: str, prometheus: str) -> None:
    """All eight queries of docs/slo.md return data on a release that answers predictions."""
    machines = [each["machine_id"] for each in http("GET", f"{api}/api/machines")[1]["items"]]
    for _ in range(30):  # Objectives are about requests, which simulators do not make
        assert http("POST", f"{api}/api/predict", {"machine_id": machines[0]})[0] == 200
        time.sleep(1)
    queries = re.findall(r"```promql\n(.*?)\n```", (ROOT / "docs" / "slo.md").read_text(), re.DOTALL)
    assert len(queries) == 8
    for expr in queries:
        found = query(prometheus, expr)
        assert any(not math.isnan(value) for _, value in found), expr
