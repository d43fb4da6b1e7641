"""What the chart `observability` warns of, described once: objectives, alerts, and the series that prove them.

`python -m charts.telemetry` writes the rules and their tests; with --check it fails if a file is not current.
"""
