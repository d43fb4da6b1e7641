"""The largest requests of each route and RPC: what they cost the service that answers, and others in waiting.

The rows are generated: from the routes of the application and the descriptors of the contracts. A pause is the longest
turn of the service's event loop in CPU time of the loop's thread, see tests/support/loop_turns.py, so that neither
other processes of the machine nor other threads of the service count. For the same reason the time of a request is
measured as CPU time of the service.
"""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import contracts
from tests.support.costs.cases import Case
from tests.support.costs.meter import MB, Cost, Meter, is_measurable
from tests.support.costs.plant import CostPlant, Size, cost_plant
from tests.support.costs.routes import ROUTES
from tests.support.costs.rpcs import PLACES, RPCS

MEMORY = 100 * MB  # above idle
PAUSE = 0.25  # seconds
CPU = 20.0  # seconds of a request
TOGETHER = 2  # times the memory of one request that several at a time may take
SMALL = Size(machines=40, sensors=25, broadest=1000, readings=20_000, long=2, days=4, events=200, versions=3, at_once=1)
MACHINES = int(os.environ.get("AURUM_COSTS_MACHINES", "1000"))
LARGE = Size(
    machines=MACHINES,
    sensors=300,
    broadest=10_000,
    readings=125_000,
    long=10,
    days=60,
    events=1000,
    versions=100,
    at_once=4,
)
TABLE = Path(__file__).parents[2] / ".cache" / "costs.md"
BUSY = {"429", "RESOURCE_EXHAUSTED"}

pytestmark = pytest.mark.skipif(not is_measurable(), reason="needs Linux, and no measurement of coverage")


@dataclass(frozen=True)
class Row:
    """A case of a route or RPC, and the service that is asked."""

    service: str
    name: str
    case: Case

    def __str__(self) -> str:
        return f"{self.service} {self.name} {self.case.name}"


ROWS = [
    *(Row("api", f"{method} {template}", case) for (method, template), cases in ROUTES.items() for case in cases),
    *(Row(server, rpc, of(server, rpc)) for server, rpc in PLACES for of in RPCS[rpc]),
]
INGEST_ROWS = [
    row
    for row in ROWS
    if row.name.endswith("/Ingest") and row.case.name in {"longest batches", "single numbers", "beyond the limit"}
]


def with_versions(models: Path, folder: Path, count: int) -> Path:
    """A folder of models with so many versions of each."""
    shutil.copytree(models, folder)
    for champion in [path for path in folder.glob("*/*") if path.is_dir()]:
        for number in range(1, count):
            shutil.copytree(champion, champion.with_name(f"20200101-000000.{number:03}-aaaaaa"))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[CostPlant]:
    folder = tmp_path_factory.mktemp("costs")
    with cost_plant(folder, SMALL, with_versions(models, folder / "models", SMALL.versions)) as plant:
        yield plant


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[CostPlant]:
    """A thousand machines with three hundred sensors each, as many with meters, and ten million readings of others."""
    folder = tmp_path_factory.mktemp("large-costs")
    with cost_plant(folder, LARGE, with_versions(models, folder / "models", LARGE.versions)) as plant:
        yield plant


@pytest.fixture(scope="module")
def figures() -> Iterator[list[str]]:
    """The rows of the table of what was measured, which is written at the end."""
    rows = ["| service | route or RPC | request | MB | ms | CPU s | MB of 4 | ms of 4 | CPU s of 4 |"]
    rows.append("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    yield rows
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(rows) + "\n")


def test_each_route_and_rpc_has_its_largest_requests() -> None:
    """A new route of the application, or RPC of a contract, fails here until its largest requests are told."""
    assert ROUTES.keys() == contracts.routes()
    assert RPCS.keys() == contracts.rpcs().keys()
    assert {rpc for _, rpc in PLACES} == RPCS.keys()
    assert [name for name, cases in {**ROUTES, **RPCS}.items() if not cases] == []


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_largest_request_costs_little(small: CostPlant, row: Row) -> None:
    check(measured(small, row, 1), MEMORY, 1)


@pytest.mark.parametrize("row", INGEST_ROWS, ids=str)
def test_largest_batches_at_once_cost_little(small: CostPlant, row: Row) -> None:
    """Batches are of the same size in any plant, so streams of them are tested together in this one too."""
    check(measured(small, row, LARGE.at_once), TOGETHER * MEMORY, LARGE.at_once)


@pytest.mark.proof("costs")
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_largest_request_is_bounded(large: CostPlant, figures: list[str], row: Row) -> None:
    """The largest request takes 100 MB, or four at once 200, pauses nobody for 250 ms, and ends in bounded time."""
    alone, together = (measured(large, row, callers) for callers in (1, LARGE.at_once))
    cells = [f"{cost.memory / MB:.0f} | {cost.pause * 1e3:.0f} | {cost.cpu:.1f}" for cost in (alone, together)]
    figures.append(f"| {row.service} | {row.name} | {row.case.name} | {' | '.join(cells)} |")
    check(alone, MEMORY, 1)
    check(together, TOGETHER * MEMORY, LARGE.at_once)


def measured(plant: CostPlant, row: Row, callers: int) -> Cost:
    """Makes the request by so many callers at once. Fails if one gets an answer that is not expected, or none does."""
    meter = Meter(plant.platform, row.service)
    with ThreadPoolExecutor(callers) as threads:
        list(threads.map(lambda _: None, range(callers)))  # starts the threads
        meter.begin()
        outcomes = set(threads.map(lambda number: row.case.ask(plant, number), range(callers)))
        cost = meter.end()
    assert outcomes <= row.case.expected | BUSY
    assert outcomes & row.case.expected
    return cost


def check(cost: Cost, memory: int, callers: int) -> None:
    assert cost.memory <= memory, f"{cost}: the memory"
    assert cost.pause <= PAUSE, f"{cost}: the pause"
    assert cost.cpu <= CPU * callers, f"{cost}: the time"
