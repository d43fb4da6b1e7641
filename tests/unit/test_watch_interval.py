"""How often a watcher of machines gets updates."""

import pytest

from aurum.ingestion.servicer import watch_interval


@pytest.mark.parametrize(
    ("requested_ms", "machines", "seconds"),
    [
        (250, 50, 0.25),
        (0, 50, 0.5),
        (1, 0, 0.1),
        (250, 5_000, 0.5),
        (250, 10_000, 1),
        (250, 10**6, 1),
        (5000, 10**6, 5),
    ],
)
def test_many_machines_are_watched_less_often(requested_ms: int, machines: int, seconds: float) -> None:
    assert watch_interval(requested_ms, machines) == pytest.approx(seconds)
