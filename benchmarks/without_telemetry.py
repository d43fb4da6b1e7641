"""Runs an `aurum` command without metrics and traces: what the others are compared with."""

import os

from prometheus_client import Counter, Gauge, Histogram, metrics

os.environ["AURUM_TRACING_ENABLED"] = "false"


def _nothing(*_: object, **__: object) -> None:
    """In the place of what records."""


class _Child:
    """In the place of a metric's child; finding it costs nothing either."""

    inc = dec = set = observe = set_function = _nothing


_CHILD = _Child()
for _kind, _names in ((Counter, ("inc",)), (Gauge, ("inc", "dec", "set")), (Histogram, ("observe",))):
    for _name in _names:
        setattr(_kind, _name, _nothing)
metrics.MetricWrapperBase.labels = lambda *_, **__: _CHILD  # type: ignore[method-assign,assignment,return-value]


def main() -> None:
    from aurum.cli import main as aurum

    aurum()


if __name__ == "__main__":
    main()
