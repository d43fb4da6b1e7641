"""The parts of a dashboard, independent of the program that draws it, and the PromQL that panels share.

Every query selects by the variables $namespace and $service. Each process exposes every metric, so queries of a metric
that is meaningful for one service only select that service as well.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["lines", "stat", "table", "heatmap", "states", "map"]

NAMESPACE = 'k8s_namespace_name=~"$namespace"'
ANY = f'{NAMESPACE}, service_name=~"$service"'


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL query of a panel.

    Attributes:
        expr: The PromQL expression.
        legend: Template of the series' names, with {{label}}.
        latest: Whether only the present values are shown.
        exemplars: Whether exemplars are shown.
    """

    expr: str
    legend: str = ""
    latest: bool = False
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel of a dashboard.

    Attributes:
        title: Title of the panel.
        description: What it shows and how to judge it.
        more: Page of docs/ that says what to do.
        unit: Unit in Grafana's notation.
        queries: The queries of the panel.
        kind: How the panel is drawn.
        width: Width in 24ths of the dashboard.
        height: Height in Grafana's grid units.
        limit: Value that is drawn as a line, beyond which the state is bad.
        low: Whether the state is bad below the limit instead of above.
        least: Lower end of the axis, or None for automatic.
        most: Upper end of the axis, or None for automatic.
        stacked: Whether the series are stacked.
        states: Name and colour of each value.
        hidden: Columns of a table that are not shown.
    """

    title: str
    description: str
    more: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "lines"
    width: int = 8
    height: int = 8
    limit: float | None = None
    low: bool = False
    least: float | None = 0.0
    most: float | None = None
    stacked: bool = False
    states: tuple[tuple[float, str, str], ...] = ()
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A titled row of panels."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a dashboard: a choice among the values of a label. regex: Selects the values that are offered."""

    name: str
    label: str
    description: str
    query: str
    regex: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A dashboard.

    Attributes:
        name: Name of its file, and part of its uid.
        title: Title of the dashboard.
        description: What it shows.
        more: Page of docs/ that explains it.
        rows: Its panels.
        services: The services that it shows, as a regular expression. Empty means all.
        variables: Its variables beside namespace and service.
    """

    name: str
    title: str
    description: str
    more: str
    rows: tuple[Row, ...]
    services: str = ""
    variables: tuple[Variable, ...] = ()

    @property
    def uid(self) -> str:
        """The stable identifier of the dashboard in Grafana."""
        return f"aurumai-{self.name}"

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The panels of all rows."""
        return tuple(panel for row in self.rows for panel in row.panels)


def matchers_for(service: str) -> str:
    """Returns the matchers for the metrics of a service, or of several as a regular expression."""
    return f'{ANY}, service_name=~"{service}"'


def rate(metric: str, matchers: str = ANY, by: str = "service_name") -> str:
    """Returns the sum of a counter's rates, in events per second."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def total(metric: str, matchers: str = ANY, by: str = "service_name") -> str:
    """Returns the sum of a gauge."""
    return f"sum by ({by}) ({metric}{{{matchers}}})"


def latest(metric: str, matchers: str = ANY, how: str = "sum", by: str = "service_name") -> str:
    """Returns a gauge's values of the last minute, without those of pods that ended before."""
    return f"{how} by ({by}) (last_over_time({metric}{{{matchers}}}[1m]))"


def largest(metric: str, matchers: str = ANY, by: str = "service_name") -> str:
    """Returns the largest value of a gauge."""
    return f"max by ({by}) ({metric}{{{matchers}}})"


def smallest(metric: str, matchers: str = ANY, by: str = "service_name") -> str:
    """Returns the smallest value of a gauge."""
    return f"min by ({by}) ({metric}{{{matchers}}})"


def quantile(share: float, metric: str, matchers: str = ANY, by: str = "service_name") -> str:
    """Returns a quantile of a histogram."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{matchers}}}[$__rate_interval])))"


def or_zero(expr: str, label: str = "", value: str = "none") -> str:
    """Returns the expression, or 0 where it has no series or is not a number."""
    zero = f'label_replace(vector(0), "{label}", "{value}", "", "")' if label else "vector(0)"
    return f"({expr} >= 0) or on () {zero}"


def share(part: str, whole: str) -> str:
    """Returns the share of a part in a whole, or 0 if the whole is 0."""
    return f"(({part}) / ({whole}) >= 0) or 0 * ({whole})"
