"""docs/scale.md states what the benchmarks have measured."""

import pytest

scale = pytest.importorskip("benchmarks.scale")


def test_tables_of_scale_page_follow_from_results() -> None:
    content = scale.PAGE.read_text()
    assert scale.page_with(content, scale.constants()) == content


def test_sizes_grow_with_the_plant() -> None:
    measured = scale.Constants(4.0, 4.0, 6.0, 0.2, 15_000.0)
    small, large = (scale.sizes(machines, 1.0, measured) for machines in (10_000, 1_000_000))
    assert large.readings == 100 * small.readings == 10_000_000
    assert large.ingestion_pods == 40  # 10 million readings of 4 µs, one core each
    assert large.cassandra_nodes >= 30
    assert small.scorers == 1
