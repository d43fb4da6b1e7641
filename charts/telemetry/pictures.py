"""Draws the dashboards with matplotlib for the documentation, from the queries of their panels.

The images only resemble Grafana's display.

    python -m charts.telemetry.pictures http://localhost:9090 docs/images
"""

import argparse
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from charts.telemetry.dashboards import PAGES
from charts.telemetry.dashboards.grafana import dashboard_json
from charts.telemetry.dashboards.panels import Page, Panel, Query
from charts.telemetry.dashboards.prometheus_queries import Series, chosen, expanded, now, over_time
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

_STEP = 15.0  # seconds
_LINES = 6  # in a legend; the others are drawn without a name
_ROW, _UNIT = 0.3, 0.28  # inches, of a row's title and of a row of the grid
_UNITS: dict[str, tuple[float, str]] = {"s": (1.0, " s"), "percentunit": (100.0, " %"), "bytes": (1 / 2**20, " MiB")}
_COLOURS = {"green": "#3a9d5d", "red": "#c4373b", "yellow": "#d9a514"}


def draw(page: Page, dashboard: dict[str, Any], prometheus: str, minutes: float) -> Figure:
    """A page as a figure. dashboard: its JSON, for the places of the panels and the variables."""
    values = chosen(prometheus, dashboard)
    placed = [each for each in dashboard["panels"] if each["type"] != "row"]
    rows = [each for each in dashboard["panels"] if each["type"] == "row"]
    height = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in dashboard["panels"])
    figure = plt.figure(figsize=(18, height * _UNIT + 0.8), dpi=70)
    figure.suptitle(page.title, x=0.01, ha="left", fontsize=15, y=1 - 0.15 / figure.get_figheight())
    figure.text(
        0.99, 0.004, "drawn with matplotlib from the dashboard's queries", ha="right", fontsize=8, color="#666666"
    )

    def area(at: dict[str, int]) -> tuple[float, float, float, float]:
        top = 1 - (at["y"] * _UNIT + 0.75) / figure.get_figheight()
        bottom = top - (at["h"] - 2.9) * _UNIT / figure.get_figheight()
        return at["x"] / 24 + 0.028, bottom, at["w"] / 24 - 0.036, top - bottom

    for row in rows:
        at = row["gridPos"]
        figure.text(0.01, 1 - (at["y"] * _UNIT + 0.55) / figure.get_figheight(), row["title"], weight="bold")
    end = time.time()
    for panel, where in zip(page.panels, placed, strict=True):
        axes = figure.add_axes(area(where["gridPos"]))
        axes.set_title(panel.title, fontsize=9, loc="left")
        axes.tick_params(labelsize=7)
        results = [
            (
                query,
                now(prometheus, expanded(query.expr, values))
                if query.latest or panel.kind == "stat"
                else over_time(prometheus, expanded(query.expr, values), end - minutes * 60, end, _STEP),
            )
            for query in panel.queries
        ]
        _KINDS[panel.kind](axes, panel, results)
    return figure


Found = list[tuple[Query, list[Series]]]


def _named(query: Query, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), query.legend).strip()


def _each(results: Found) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    for query, series in results:
        for labels, points in series:
            yield _named(query, labels), points


def _shown(panel: Panel, value: float) -> str:
    factor, unit = _UNITS.get(panel.unit, (1.0, ""))
    return f"{value * factor:,.3g}{unit}" if math.isfinite(value) else "-"


def _lines(axes: Axes, panel: Panel, results: Found) -> None:
    factor, unit = _UNITS.get(panel.unit, (1.0, ""))
    for number, (name, points) in enumerate(_each(results)):
        times = dates.date2num([datetime.fromtimestamp(at) for at, _ in points])
        values = [value * factor for _, value in points]
        axes.plot(times, values, linewidth=1, label=name if number < _LINES else None)
    if panel.limit is not None and (axes.get_ylim()[1] > 0.3 * panel.limit * factor or panel.low):
        axes.axhline(panel.limit * factor, color=_COLOURS["red"], linestyle="--", linewidth=0.8)
    if panel.least is not None:
        axes.set_ylim(bottom=panel.least * factor)
    axes.xaxis_date()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}{unit}")
    _time_axis(axes)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        more = sum(len(series) for _, series in results) - _LINES
        title = f"and {more} more" if more > 0 else None
        axes.legend(fontsize=6, ncols=2, loc="upper left", framealpha=0.6, title=title, title_fontsize=6)


def _time_axis(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=6))


def _stat(axes: Axes, panel: Panel, results: Found) -> None:
    axes.set_axis_off()
    shown = [(name, points[-1][1]) for name, points in _each(results)]
    for number, (name, value) in enumerate(shown):
        bad = panel.limit is not None and (value < panel.limit) == panel.low
        at = (number + 0.5) / len(shown)
        colour = _COLOURS["red" if bad else "green"]
        axes.text(at, 0.62, _shown(panel, value), ha="center", va="center", fontsize=12, color=colour)
        axes.text(at, 0.1, name, ha="center", va="center", fontsize=6, wrap=True)


def _table(axes: Axes, panel: Panel, results: Found) -> None:
    axes.set_axis_off()
    rows = [[*labels.values(), _shown(panel, points[-1][1])] for _, series in results for labels, points in series]
    names = [*results[0][1][0][0], "value"]
    drawn_table = axes.table(cellText=rows[:14], colLabels=names, loc="upper center", edges="horizontal")
    drawn_table.auto_set_font_size(False)
    drawn_table.set_fontsize(7)


def _heatmap(axes: Axes, panel: Panel, results: Found) -> None:
    series = sorted(((float(labels["le"]), points) for labels, points in results[0][1]), key=lambda each: each[0])
    finite = [(bound, points) for bound, points in series if math.isfinite(bound)]
    length = min(len(points) for _, points in finite)
    counts = np.diff(np.array([[value for _, value in points[-length:]] for _, points in finite]), axis=0, prepend=0)
    times = [dates.date2num(datetime.fromtimestamp(at)) for at, _ in finite[0][1][-length:]]
    edges = [0.0, *(bound for bound, _ in finite)]
    axes.pcolormesh([*times, times[-1] + _STEP / 86400], edges, np.maximum(counts, 0), cmap="YlOrRd")
    axes.xaxis_date()
    _time_axis(axes)


def _states(axes: Axes, panel: Panel, results: Found) -> None:
    colours = {value: _COLOURS[colour] for value, _, colour in panel.states}
    names = []
    for number, (name, points) in enumerate(_each(results)):
        names.append(name)
        for at, value in points:
            axes.broken_barh(
                [(dates.date2num(datetime.fromtimestamp(at)), _STEP / 86400)],
                (number - 0.4, 0.8),
                color=colours.get(value, "grey"),
            )
    axes.set_yticks(range(len(names)), names, fontsize=5)
    axes.tick_params(axis="y", direction="in", pad=-4)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")
    axes.xaxis_date()
    _time_axis(axes)


def _map(axes: Axes, panel: Panel, results: Found) -> None:
    nodes = sorted(labels["id"] for labels, _ in results[0][1])
    angles = {node: 2 * math.pi * number / len(nodes) for number, node in enumerate(nodes)}
    places = {node: (math.cos(angle), math.sin(angle)) for node, angle in angles.items()}
    axes.set_axis_off()
    axes.set_xlim(-1.6, 1.6)
    axes.set_ylim(-1.3, 1.3)
    for labels, points in results[1][1]:
        if labels["source"] in places and labels["target"] in places:
            start, end = places[labels["source"]], places[labels["target"]]
            arrow = FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=12, shrinkA=24, shrinkB=24, color="#888888",
                connectionstyle="arc3,rad=0.12",
            )  # fmt: skip
            axes.add_patch(arrow)
            axes.text(
                0.6 * start[0] + 0.4 * end[0], 0.6 * start[1] + 0.4 * end[1], f"{points[-1][1]:.2g}/s", fontsize=7
            )
    for node, (x, y) in places.items():
        style = {"boxstyle": "round", "facecolor": "#e8f1fb", "edgecolor": "#4a7fb5"}
        axes.text(x, y, node, ha="center", va="center", fontsize=9, bbox=style)


_KINDS: dict[str, Callable[[Axes, Panel, Found], None]] = {
    "lines": _lines,
    "stat": _stat,
    "table": _table,
    "heatmap": _heatmap,
    "states": _states,
    "map": _map,
}


def main() -> None:
    """Draws each dashboard to a PNG file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prometheus", help="its address, such as http://localhost:9090")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--minutes", type=float, default=20.0, help="how far back they look")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        figure = draw(page, json.loads(dashboard_json(page)), arguments.prometheus, arguments.minutes)
        file = arguments.folder / f"dashboard-{page.name}.png"
        figure.savefig(file)
        plt.close(figure)
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
