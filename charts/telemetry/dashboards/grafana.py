"""The JSON that Grafana loads, made of a page with grafana-foundation-sdk."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from charts.telemetry.dashboards.panels import Page, Panel, Query, Row
from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    nodegraph,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DOCS = "${docs}"  # Where the documentation is, as a hidden variable that the chart sets
_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_TAG = "aurumai"
_BAD, _GOOD = "red", "green"


def dashboard_json(page: Page) -> str:
    """Returns the dashboard as JSON, with one key per line in a stable order."""
    builder: dict[str, Any] = json.loads(JSONEncoder().encode(_dashboard(page)))
    for mark in builder["annotations"]["list"]:
        # The Prometheus data source reads these, which the schema does not know.
        mark |= {"titleFormat": _marks(page)[mark["name"]][2], "step": "60s"}
    return json.dumps(builder, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _dashboard(page: Page) -> models.Dashboard:
    builder = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.description)
        .tags([_TAG])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone(common_models.TimeZoneBrowser)
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("AurumAI")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .link(dashboard.DashboardLink("Documentation").type(models.DashboardLinkType.LINK).url(DOCS + page.more))
    )
    for name, (colour, expr, _) in _marks(page).items():
        builder = builder.annotation(
            dashboard.AnnotationQuery().name(name).datasource(_SOURCE).enable(True).icon_color(colour).expr(expr)
        )
    for variable in _variables(page):
        builder = builder.with_variable(variable)
    numbers = itertools.count(1)
    for row in page.rows:
        builder = _with_row(builder, row, numbers)
    return builder.build()


def _with_row(builder: dashboard.Dashboard, row: Row, numbers: Iterator[int]) -> dashboard.Dashboard:
    builder = builder.with_row(dashboard.Row(row.title).id(next(numbers)))
    for panel in row.panels:
        builder = builder.with_panel(_panel(panel).id(next(numbers)))
    return builder


def _variables(page: Page) -> list[Any]:
    services = f"/^({page.services})$/" if page.services else ""
    choices = [
        ("namespace", "Namespace", "Namespaces of Kubernetes.", "label_values(up, k8s_namespace_name)", ""),
        (
            "service",
            "Service",
            "Services of AurumAI.",
            'label_values(policy_generation{k8s_namespace_name=~"$namespace"}, service_name)',
            services,
        ),
        *((each.name, each.label, each.description, each.query, each.regex) for each in page.variables),
    ]
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").description("A Prometheus.").type("prometheus"),
        *(
            dashboard.QueryVariable(name)
            .label(label)
            .description(description)
            .datasource(_SOURCE)
            .query({"qryType": 1, "query": query, "refId": name})
            .regex(regex)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .current(models.VariableOption(selected=True, text="All", value="$__all"))
            for name, label, description, query, regex in choices
        ),
        dashboard.ConstantVariable("docs").label("Documentation").value("https://docs.invalid/"),
    ]


def _marks(page: Page) -> dict[str, tuple[str, str, str]]:
    """Returns the annotations on the time axis: name → colour, query and text."""
    services = f', service_name=~"{page.services}"' if page.services else ""
    where = f'k8s_namespace_name=~"$namespace"{services}'
    return {
        "Deployments": (
            "blue",
            f"max by (service_name, service_version) (time() - process_start_time_seconds{{{where}}}) < 60",
            "{{service_name}} {{service_version}} started",
        ),
        "Policies": (
            "purple",
            f"max by (service_name) (changes(policy_generation{{{where}}}[1m])) > 0",
            "{{service_name}} has loaded another policy document",
        ),
    }


def _panel(panel: Panel) -> Any:
    builder = _KINDS[panel.kind](panel)
    builder = (
        builder.title(panel.title)
        .description(panel.description)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(panel.height)
        .links([dashboard.DashboardLink("What to do").type(models.DashboardLinkType.LINK).url(DOCS + panel.more)])
        .thresholds(_thresholds(panel))
    )
    if panel.least is not None:
        builder = builder.min(panel.least)
    if panel.most is not None:
        builder = builder.max(panel.most)
    for number, query in enumerate(panel.queries):
        builder = builder.with_target(_target(query, chr(ord("A") + number), panel))
    return builder


def _target(query: Query, ref: str, panel: Panel) -> prometheus.Dataquery:
    builder = prometheus.Dataquery().expr(query.expr).ref_id(ref).datasource(_SOURCE).legend_format(query.legend)
    if query.latest:
        return builder.instant().format(PromQueryFormat.TABLE)
    if panel.kind == "heatmap":
        builder = builder.format(PromQueryFormat.HEATMAP)
    return builder.range().exemplar(query.exemplars)


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=None, color=_BAD if panel.low else _GOOD)]
    if panel.limit is not None:
        steps.append(models.Threshold(value=panel.limit, color=_GOOD if panel.low else _BAD))
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _lines(panel: Panel) -> timeseries.Panel:
    builder = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(20 if panel.stacked else 8)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if panel.stacked:
        builder = builder.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if panel.limit is not None:
        builder = builder.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED)
        )
    return builder


def _stat(panel: Panel) -> stat.Panel:
    return (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(common_models.BigValueColorMode.VALUE)
        .graph_mode(common_models.BigValueGraphMode.AREA)
    )


def _table(panel: Panel) -> table.Panel:
    hidden = dict.fromkeys(panel.hidden, True)
    return table.Panel().with_transformation(
        models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden})
    )


def _heatmap(panel: Panel) -> heatmap.Panel:
    return heatmap.Panel().calculate(False)


def _states(panel: Panel) -> statetimeline.Panel:
    return statetimeline.Panel().mappings(
        [
            models.ValueMap(
                options={
                    f"{value:g}": models.ValueMappingResult(text=name, color=colour, index=index)
                    for index, (value, name, colour) in enumerate(panel.states)
                }
            )
        ]
    )


def _map(panel: Panel) -> nodegraph.Panel:
    """Returns a node graph. The first query provides the nodes, the second one the edges."""
    renamed = {"Value #A": "mainstat", "Value #B": "mainstat"}
    hidden = dict.fromkeys(("Time", "service_name", "peer_service"), True)
    return nodegraph.Panel().with_transformation(
        models.DataTransformerConfig(id_val="organize", options={"renameByName": renamed, "excludeByName": hidden})
    )


_KINDS: dict[str, Callable[[Panel], Any]] = {
    "lines": _lines,
    "stat": _stat,
    "table": _table,
    "heatmap": _heatmap,
    "states": _states,
    "map": _map,
}
