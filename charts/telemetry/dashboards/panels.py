"""What a dashboard consists of, whatever draws it, and the parts of PromQL that panels share.

Every query selects by the variables $namespace and $service; those of a metric that only one service means anything by
select that service as well, since each process exposes every metric.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["lines", "stat", "table", "heatmap", "states", "map"]

NAMESPACE = 'k8s_namespace_name=~"$namespace"'
ANY = f'{NAMESPACE}, service_name=~"$service"'


@dataclass(frozen=True, slots=True)
class Query:
    """legend: of its series, with {{label}}. latest: only the values of now."""

    expr: str
    legend: str = ""
    latest: bool = False
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """description: what is seen and what is to be thought of it. more: the page of docs/ that says what to do.

    unit: of Grafana. width: of 24. limit: from where on it is bad, drawn as a line; `low` if it is bad below. states:
    value → name and colour. hidden: columns of a table.
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
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice among the values of a label. regex: of the values that are offered."""

    name: str
    label: str
    description: str
    query: str
    regex: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """name: of its file, and in its uid. services: those that it is about, as a regular
    expression; all if empty."""

    name: str
    title: str
    description: str
    more: str
    rows: tuple[Row, ...]
    services: str = ""
    variables: tuple[Variable, ...] = ()

    @property
    def uid(self) -> str:
        return f"aurumai-{self.name}"

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)


def of(service: str) -> str:
    """Matchers for the metrics of one service, or of several as a regular expression."""
    return f'{ANY}, service_name=~"{service}"'


def rate(metric: str, matchers: str = ANY, by: str = "service_name") -> str:
    """Events a second."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def total(metric: str, matchers: str = ANY, by: str = "service_name") -> str:
    """The sum of a gauge."""
    return f"sum by ({by}) ({metric}{{{matchers}}})"


def latest(metric: str, matchers: str = ANY, how: str = "sum", by: str = "service_name") -> str:
    """Of a gauge, what was scraped in the last minute: the last value of a pod that is gone is known for five."""
    return f"{how} by ({by}) (last_over_time({metric}{{{matchers}}}[1m]))"


def largest(metric: str, matchers: str = ANY, by: str = "service_name") -> str:
    """The largest value of a gauge."""
    return f"max by ({by}) ({metric}{{{matchers}}})"


def smallest(metric: str, matchers: str = ANY, by: str = "service_name") -> str:
    """The smallest value of a gauge."""
    return f"min by ({by}) ({metric}{{{matchers}}})"


def quantile(share: float, metric: str, matchers: str = ANY, by: str = "service_name") -> str:
    """A quantile of a histogram."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{matchers}}}[$__rate_interval])))"


def or_zero(expr: str, label: str = "", value: str = "none") -> str:
    """The expression; where it has no series, or none that is a number, one that is 0."""
    zero = f'label_replace(vector(0), "{label}", "{value}", "", "")' if label else "vector(0)"
    return f"({expr} >= 0) or on () {zero}"


def share(part: str, whole: str) -> str:
    """Which share of a whole a part of it is; 0 while there is nothing."""
    return f"(({part}) / ({whole}) >= 0) or 0 * ({whole})"
