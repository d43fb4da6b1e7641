"""Sizes of large plants by formulas, with constants from the results of the other benchmarks. Writes docs/scale.md.

`python -m benchmarks.scale` prints the tables, and replaces those in docs/scale.md.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
_BEGIN, _END = "<!-- sizes -->", "<!-- end of sizes -->"
_BATCH = 2000  # readings
_CORES = 2  # of a pod
_USED = 0.5  # share of its cores that a pod uses on average
_SENSORS = 10
_REPLICATION = 3
_NODE_CORES = 8  # of a Cassandra node
_NODE_BYTES = 4e12  # of its disk, half of which stays free for compaction
_RETENTION_DAYS = 30
_SCORE_SECONDS = 3.0
_NUMBERED_BYTES = 20  # of a reading on the wire: a number, a time and a value
_FOLLOW_BYTES = 20
_CHECK_BYTES = 200  # of a health check among scorers, in both directions
_BYTES_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Constants:
    """What the benchmarks have measured.

    Attributes:
        ingestion_us: CPU of ingestion over Cassandra a reading.
        node_us: CPU of Cassandra a reading and replica.
        stored_bytes: Disk of a merged reading.
        score_ms: CPU of all services to score a machine once.
        scorer_bytes: Memory of a scorer per machine with 10 sensors.
    """

    ingestion_us: float
    node_us: float
    stored_bytes: float
    score_ms: float
    scorer_bytes: float


def constants() -> Constants:
    """Reads the constants from the results of the benchmarks."""
    cassandra, ingest, fleet = (_read(name) for name in ("wide_cassandra", "ingest", "fleet"))
    machines = float(fleet["details"]["machines"])  # type: ignore[arg-type]
    return Constants(
        cassandra["details"]["paced"]["cpu_us"],
        cassandra["details"]["paced"]["node_cpu_us"],
        ingest["goals"]["bytes_per_reading"]["value"],
        fleet["goals"]["scoring_cpu_ms_per_machine"]["value"],
        fleet["goals"]["scorer_mb"]["value"] * 1e6 / machines,
    )


def _read(name: str) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    content: Mapping[str, Mapping[str, Mapping[str, float]]] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a plant needs. Rates are per second."""

    readings: float
    batches: float
    ingestion_pods: int
    network_in: float
    cassandra_nodes: int
    disk_bytes: float
    scorers: int
    follow_bytes: float
    checks: int


def sizes(machines: int, hertz: float, measured: Constants) -> Sizes:
    """Returns the sizes of a plant. hertz: how often each sensor has a value."""
    readings = machines * _SENSORS * hertz
    pod = _CORES * _USED  # seconds of CPU a second
    scorers = max(
        math.ceil(machines * measured.score_ms / 1000 / _SCORE_SECONDS / pod),
        math.ceil(machines * measured.scorer_bytes / 1e9),
    )
    disk = readings * _BYTES_PER_DAY * _RETENTION_DAYS * measured.stored_bytes * _REPLICATION
    nodes = max(
        _REPLICATION,
        math.ceil(readings * measured.node_us * 1e-6 * _REPLICATION / (_NODE_CORES * _USED)),
        math.ceil(disk / (_NODE_BYTES / 2)),
    )
    return Sizes(
        readings,
        readings / _BATCH,
        math.ceil(readings * measured.ingestion_us * 1e-6 / pod),
        readings * _NUMBERED_BYTES,
        nodes,
        disk,
        scorers,
        readings * _FOLLOW_BYTES,
        scorers * (scorers - 1),
    )


def table(measured: Constants) -> str:
    """Returns the table of docs/scale.md."""
    plants = [(10_000, 1.0), (100_000, 1.0), (1_000_000, 0.1), (1_000_000, 1.0)]
    found = [sizes(machines, hertz, measured) for machines, hertz in plants]
    rows = [
        (
            "machines, values of each of 10 sensors",
            [f"{machines:,}, {_every(hertz)}" for machines, hertz in plants],
        ),
        ("readings/s", [f"{each.readings:,.0f}" for each in found]),
        ("batches of 2,000 a second", [f"{each.batches:,.0f}" for each in found]),
        ("ingestion pods", [f"{each.ingestion_pods:,}" for each in found]),
        ("into ingestion", [f"{each.network_in / 1e6:,.0f} MB/s" for each in found]),
        ("Cassandra nodes", [f"{each.cassandra_nodes:,}" for each in found]),
        ("disk for 30 days, 3 copies", [f"{each.disk_bytes / 1e12:,.1f} TB" for each in found]),
        ("scorers", [f"{each.scorers:,}" for each in found]),
        ("from ingestion to scorers", [f"{each.follow_bytes / 1e6:,.0f} MB/s" for each in found]),
        ("health checks among scorers", [f"{each.checks:,}/s" for each in found]),
    ]
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join([lines[0], f"| --- |{' --- |' * len(plants)}", *lines[1:]])


def _every(hertz: float) -> str:
    return "1 Hz" if hertz == 1 else f"every {1 / hertz:.0f} s"


def constants_table(measured: Constants) -> str:
    """Returns the table of the constants."""
    rows = [
        ("CPU of ingestion over Cassandra", f"{measured.ingestion_us:.1f} µs a reading", "wide_cassandra"),
        ("CPU of Cassandra", f"{measured.node_us:.1f} µs a reading and copy", "wide_cassandra"),
        ("disk", f"{measured.stored_bytes:.1f} bytes a merged reading", "ingest"),
        ("CPU of continuous scoring, all services", f"{measured.score_ms:.2f} ms a machine", "fleet"),
        ("memory of a scorer", f"{measured.scorer_bytes / 1e3:.0f} kB a machine with 10 sensors", "fleet"),
    ]
    lines = [f"| {name} | {value} | `benchmarks/results/{source}.json` |" for name, value, source in rows]
    return "\n".join(["| constant | value | measured by |", "| --- | --- | --- |", *lines])


def page_with(content: str, measured: Constants) -> str:
    """Returns a page with the tables in place of those that it has."""
    head, rest = content.split(_BEGIN)
    _, tail = rest.split(_END)
    return f"{head}{_BEGIN}\n\n{constants_table(measured)}\n\n{table(measured)}\n\n{_END}{tail}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    measured = constants()
    print(constants_table(measured), table(measured), sep="\n\n")
    PAGE.write_text(page_with(PAGE.read_text(), measured))


if __name__ == "__main__":
    main()
