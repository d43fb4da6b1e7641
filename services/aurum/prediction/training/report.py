"""A report about a model: its card with plots, as one self-contained HTML file."""

import html
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from aurum.prediction.model.card import Evaluation, ModelCard, SearchPart
from aurum.prediction.model.skill import describe_skill, lacking_skill

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REPORT = "report.html"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } .pictures svg { width: 28rem; height: auto; max-width: 100%; }
code { font-size: .9em; overflow-wrap: anywhere; }
"""
_NAMES = {
    "rul_rmse": "RUL, root mean square error",
    "rul_mae": "RUL, mean absolute error",
    "interval_coverage": "coverage of 90 % intervals",
    "risk_brier": "risk, Brier score",
    "risk_ece": "risk, expected calibration error",
    "risk_average_precision": "risk, area under precision and recall",
    "risk_base_rate": "share of rows close to a failure",
    "lead_time": "median warning before a failure",
    "warned_share": "share of failures with a warning",
}


def report(card: ModelCard) -> str:
    """Returns the report as HTML. Needs matplotlib, which the extra `training` installs."""
    title = f"{card.machine_type} {card.version}"
    data = {
        "source": card.data.source,
        "SHA-256 of the readings": card.data.sha256,
        "licence": card.data.licence,
        "machines, runs, failures": f"{card.data.machines}, {card.data.runs}, {card.data.failures}",
        "training rows": str(card.data.rows),
        "life axis": f"{card.axis}, in {card.unit}, in steps of {card.step:g}",
        "horizon of the risk": f"{card.horizon:g} {card.unit}" if card.horizon else "none",
        "cap of the RUL": f"{card.rul_cap:g} {card.unit}" if card.rul_cap else "none",
        "operating regimes": f"{len(card.regimes.centers)} by {', '.join(card.regimes.columns)}"
        if card.regimes
        else "1",
        "features that are monotone in wear": ", ".join(card.monotone) or "none",
        "seed, software": f"{card.seed}; " + ", ".join(f"{name} {version}" for name, version in card.software.items()),
    }
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _table(data),
        "<h2>Columns that are not used</h2>",
        _table(card.data.dropped_columns) if card.data.dropped_columns else "<p>None.</p>",
    ]
    parts.insert(1, _verdict(card))
    if card.search is not None:
        parts += ["<h2>How it was trained</h2>", _search(card.search)]
    for heading, evaluation in (("On unseen machines", card.evaluation), ("On later lives", card.later_lives)):
        if evaluation is not None:
            parts += [f"<h2>{heading}</h2>", _evaluation(evaluation, card)]
    if card.evaluation is None:
        parts.append("<p>The data has no failures: the model provides anomaly scores, but no risk and no RUL.</p>")
    parts += ["<h2>Importance of the features</h2>", f'<div class="pictures">{_importance(card)}</div>']
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _search(search: SearchPart) -> str:
    """Returns what was tried to find out how to train, and what was chosen."""
    rows = {"protocol": search.protocol, "errors": search.measure}
    rows |= {each.name: f"{each.error:.4g}{', kept' * each.chosen}" for each in search.trials}
    rows["chosen"] = ", ".join(f"{name} {value:g}" for name, value in search.chosen.items())
    if search.not_tried:
        rows[f"not tried within {search.seconds_allowed:g} s"] = ", ".join(search.not_tried)
    return _table(rows)


def _verdict(card: ModelCard) -> str:
    """Returns what is known about the skill of the model."""
    lines = list(map(str, lacking_skill(card).values())) or describe_skill(card)
    return "".join(f"<p><strong>{html.escape(line)}</strong></p>" for line in lines)


def _evaluation(evaluation: Evaluation, card: ModelCard) -> str:
    figures = {}
    for name, value in evaluation.metrics.model_dump().items():
        if value is None:
            continue
        low, high = evaluation.confidence.get(name, (None, None))
        unit = f" {card.unit}" if name in ("rul_rmse", "rul_mae", "lead_time") else ""
        spread = "" if low is None or high is None else f" (95 %: {low:.4g} to {high:.4g})"
        figures[_NAMES[name]] = f"{value:.4g}{unit}{spread}"
    pictures = [_calibration(evaluation)]
    if evaluation.points:
        pictures.append(_predicted_and_true(evaluation, card))
    for skill in evaluation.skill or ():
        figures[f"skill of the {skill.quantity} against {skill.baseline}"] = (
            f"{skill.skill:.3g} (95 %: {skill.low:.3g} to {skill.high:.3g}, {skill.groups} machines or lives); "
            f"{skill.measure} {skill.error:.4g}, of the baseline {skill.baseline_error:.4g}"
        )
    return f'<p>{html.escape(evaluation.protocol)}</p>{_table(figures)}<div class="pictures">{"".join(pictures)}</div>'


def _table(rows: Mapping[str, str]) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def _predicted_and_true(evaluation: Evaluation, card: ModelCard) -> str:
    figure, axes = _figure()
    truths = np.array([point.truth for point in evaluation.points])
    axes.plot([0, card.rul_cap], [0, card.rul_cap], color="#888", linewidth=1)
    axes.scatter(truths, [point.predicted for point in evaluation.points], s=8, alpha=0.6)
    axes.set_xlabel(f"true RUL [{card.unit}]")
    axes.set_ylabel(f"predicted RUL [{card.unit}]")
    axes.set_title("Predicted and true RUL")
    return _svg(figure)


def _calibration(evaluation: Evaluation) -> str:
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color="#888", linewidth=1)
    axes.plot(
        [point.told for point in evaluation.calibration],
        [point.true for point in evaluation.calibration],
        marker="o",
        markersize=4,
    )
    axes.set_xlabel("predicted risk")
    axes.set_ylabel("share of failures within the horizon")
    axes.set_title("Calibration of the risk")
    return _svg(figure)


def _importance(card: ModelCard) -> str:
    figure, axes = _figure()
    strongest = list(card.importance.items())[:12][::-1]
    axes.barh([name for name, _ in strongest], [share for _, share in strongest])
    axes.set_xlabel("share of the gain")
    axes.set_title("Importance")
    return _svg(figure)


def _figure() -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure  # noqa: PLC0415 - only a report needs it

    figure = Figure(figsize=(6, 4), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: "Figure") -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    text = written.getvalue()
    return text[text.index("<svg") :]
