"""The dashboards, each described in a module of its own."""

from charts.telemetry.dashboards import infrastructure, ingestion, overview, predictions, resilience
from charts.telemetry.dashboards.panels import Page

PAGES: tuple[Page, ...] = (
    overview.PAGE,
    predictions.PAGE,
    ingestion.PAGE,
    infrastructure.PAGE,
    resilience.PAGE,
)
