"""The dashboards as Grafana gets them, by the rules of grafana/dashboard-linter that apply to Prometheus panels.

Some are kept in another form, since our metrics come by OTLP: what it wants of the labels job and instance is wanted of
k8s_namespace_name and service_name here, which say the same (template-job-rule, template-instance-rule,
target-job-rule, target-instance-rule). Its rules for LogQL find nothing to look at. That queries are valid PromQL
(target-promql-rule, template-label-promql-rule) and find something is seen on a cluster.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from charts.telemetry.__main__ import pages
from charts.telemetry.alerts import ALERTS
from charts.telemetry.dashboards import PAGES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "charts" / "observability" / "dashboards"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
# https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts
UNITS = {"none", "short", "percentunit", "s", "bytes", "cps", "reqps", "ops"}
# Series that no namespace or service owns
OF_NOBODY = {"ALERTS"}
COUNTED = re.compile(r"\w+_(?:total|bucket|sum|count)$")


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Title of the panel, and the query."""
    for dashboard in DASHBOARDS.values():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{dashboard['title']}: {panel['title']}", target["expr"]


def selectors(expr: str) -> list[tuple[str, str, str]]:
    """What stands before a selector, the metric's name, and its matchers."""
    return re.findall(
        r"(\w*\(?)\b([a-zA-Z_:][\w:]*)\{([^}]*)\}", expr.replace("/api/machines/{machine_id}/predict", "")
    )


ALL = list(queries())
EACH = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS.keys())
EACH_QUERY = pytest.mark.parametrize(("title", "expr"), ALL, ids=[f"{n}" for n in range(len(ALL))])


def test_five_dashboards_match_their_generator() -> None:
    assert set(DASHBOARDS) == {"overview", "predictions", "ingestion", "infrastructure", "resilience"}
    for path, page in pages().items():
        assert path.read_text(encoding="utf-8") == page, f"{path.name} is not current"
        assert pages()[path] == page, "made again it is another"


def test_dashboards_are_linked_and_exist_for_every_alert() -> None:
    assert {page.uid for page in PAGES} == {dashboard["uid"] for dashboard in DASHBOARDS.values()}
    assert {f"aurumai-{alert.dashboard}" for alert in ALERTS} <= {page.uid for page in PAGES}
    for dashboard in DASHBOARDS.values():
        assert dashboard["tags"] == ["aurumai"]
        assert any(link["type"] == "dashboards" and link["tags"] == ["aurumai"] for link in dashboard["links"])


@EACH
def test_template_datasource_rule(dashboard: dict[str, Any]) -> None:
    (source,) = [each for each in dashboard["templating"]["list"] if each["type"] == "datasource"]
    assert (source["name"], source["label"], source["query"]) == ("datasource", "Data source", "prometheus")


@EACH
def test_template_namespace_and_service_rule(dashboard: dict[str, Any]) -> None:
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    for name in ("namespace", "service"):
        assert variables[name]["type"] == "query"
        assert variables[name]["multi"]
        assert variables[name]["includeAll"]
        assert variables[name]["datasource"]["uid"] == "${datasource}"


@EACH
def test_template_on_time_change_reload_rule(dashboard: dict[str, Any]) -> None:
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["refresh"] == 2, variable["name"]
            assert re.fullmatch(r"label_values\(.+, \w+\)", variable["query"]["query"])


@EACH
def test_uneditable_dashboard_rule(dashboard: dict[str, Any]) -> None:
    assert dashboard["editable"] is False


@EACH
def test_panel_rules(dashboard: dict[str, Any]) -> None:
    """panel-datasource-rule, panel-title-description-rule, panel-units-rule, panel-no-targets-rule; ids, and links."""
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels(dashboard):
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["targets"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        (link,) = panel["links"]
        page = link["url"].removeprefix("${docs}")
        assert (ROOT / page).exists(), f"{panel['title']} leads to {page}, which is not there"


@EACH
def test_panels_fit_the_grid_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@EACH_QUERY
def test_target_rate_interval_rule(title: str, expr: str) -> None:
    for window in re.findall(r"(?:rate|irate)\([^[]*\[([^\]]+)\]", expr):
        assert window == "$__rate_interval", title


@EACH_QUERY
def test_target_namespace_and_service_rule(title: str, expr: str) -> None:
    found = selectors(expr)
    assert found, title
    for _, metric, matchers in found:
        if metric in OF_NOBODY:
            continue
        assert 'k8s_namespace_name=~"$namespace"' in matchers, title
        if not metric.startswith(("otelcol_", "aurumai:")):  # collectors are no service; objectives name theirs
            assert 'service_name=~"$service"' in matchers, title


@EACH_QUERY
def test_target_counter_agg_rule(title: str, expr: str) -> None:
    for before, metric, _ in selectors(expr):
        if COUNTED.match(metric):
            assert before in ("rate(", "increase("), f"{title}: {metric}"


def test_exemplars_are_enabled_on_histogram_queries() -> None:
    with_exemplars = {
        target["expr"]
        for dashboard in DASHBOARDS.values()
        for panel in panels(dashboard)
        for target in panel["targets"]
        if target.get("exemplar")
    }
    assert len(with_exemplars) >= 12
    for expr in with_exemplars:
        assert "_bucket{" in expr
