"""Costs by tariffs, and the monthly report, of known readings through the services; in a month with a changed clock."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.http import http as ask
from tests.support.platform import Platform

HOUR = 3600
START = 1_759_269_600  # 2025-10-01 in Berlin
END = 1_761_951_600  # 2025-11-01 in Berlin, 31 days and an hour later

PLAN = """
meters:
  press:
    power: {sensor: kw}
    water: {sensor: l_h}
  roof:
    power: {sensor: drawn_kwh, kind: counter}
    feed_in: {sensor: delivered_kw}
  "*": {power: {sensor: kw}}
lines: {front: ["press-*"]}
sites:
  north:
    zone: DE
    timezone: Europe/Berlin
    contracts: [{name: solar, kg_per_kwh: 0.0, kwh_per_hour: 5}]
    tariff:
      currency: EUR
      fixed_per_day: 2.0
      fixed_per_month: 62.0
      demand_per_kw: 10.0
      feed_in_per_kwh: 0.08
      prices:
        - {name: night, per_kwh: 0.1, hours: [22:00-06:00]}
        - {name: day, per_kwh: 0.3}
  south:
    zone: US
    timezone: America/New_York
    tariff: {currency: USD, prices: [{name: flat, per_kwh: 0.2}]}
"""
MACHINES = (
    ("press-1", "press", "north"),
    ("press-2", "press", "north"),
    ("roof-1", "roof", "north"),
    ("mill-1", "mill", "south"),
    ("fan-1", "fan", "yard"),
    ("mute-1", "turbofan", "yard"),
)


def rows() -> Iterator[str]:
    yield "machine_id,timestamp,sensor,value"
    for at in range(START, END + 1, 900):
        yield f"press-1,{at},kw,20"
        yield f"press-1,{at},l_h,100"
        # 40 kW in one hour of the month
        yield f"press-2,{at},kw,{40 if START + 240 * HOUR - 900 <= at <= START + 241 * HOUR + 900 else 10}"
        counted = (at - START) / HOUR * 2
        yield f"roof-1,{at},drawn_kwh,{counted if at < START + 300 * HOUR else counted - 600}"  # starts again
        yield f"roof-1,{at},delivered_kw,4"
        yield f"mill-1,{at},kw,5"
        if at < START + 24 * HOUR:
            yield f"fan-1,{at},kw,1"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("costs")
    (folder / "plan.yaml").write_text(PLAN)
    running = Platform(
        folder,
        extra={
            "AURUM_SUSTAINABILITY_PLAN": str(folder / "plan.yaml"),
            "AURUM_FEATURE_WATER": "true",
            "AURUM_FEATURE_PREDICTIVE": "false",
        },
    )
    running.start("ingestion")
    running.start("api")
    for machine_id, machine_type, site in MACHINES:
        machine = {"machine_id": machine_id, "machine_type": machine_type, "site": site}
        assert ask("POST", f"{running.api}/api/machines", machine).status == 201
    body = "\n".join(rows()).encode()
    answer = ask("POST", f"{running.api}/api/readings", body, headers={"Content-Type": "text/csv"})
    assert answer.status == 200, answer.body
    yield running
    running.stop()


def get(platform: Platform, path: str, expected: int = 200, **query: object) -> Any:
    answer = ask("GET", f"{platform.api}{path}?" + "&".join(f"{name}={value}" for name, value in query.items()))
    assert answer.status == expected, answer.body
    return answer


def cost(platform: Platform, expected: int = 200, **query: object) -> Any:
    return get(platform, "/api/cost", expected, **{"start": START, "end": END, **query})


def test_cost_of_month_is_by_local_hours_and_charges(plant: Platform) -> None:
    found = cost(plant, site="north").json
    (total,) = found["totals"]
    assert total["currency"] == "EUR"
    assert total["coverage"] == pytest.approx(1, abs=0.01)
    assert {each["name"]: each["energy_kwh"] for each in found["prices"]} == {
        "night": pytest.approx(249 * 32, rel=0.01),  # 31 nights of eight hours, one of them an hour longer
        "day": pytest.approx(496 * 32, rel=0.01),
    }
    assert total["fixed_cost"] == pytest.approx(31 * 2 + 62)
    assert total["feed_in_revenue"] == pytest.approx(total["fed_in_kwh"] * 0.08)
    assert total["fed_in_kwh"] == pytest.approx(745 * 4, rel=0.01)
    (demand,) = found["demand"]
    assert (demand["month"], demand["start"]) == ("2025-10", "2025-10-10T22:00:00Z")
    assert demand["kw"] == pytest.approx(62, rel=0.02)
    assert total["demand_cost"] == pytest.approx(demand["cost"])
    assert demand["cost"] == pytest.approx(demand["kw"] * 10)
    parts = total["energy_cost"] + total["fixed_cost"] + total["demand_cost"] - total["feed_in_revenue"]
    assert total["cost"] == pytest.approx(parts)


def test_costs_add_up_over_groups_hours_and_energy(plant: Platform) -> None:
    energy = get(plant, "/api/energy", start=START, end=END, site="north").json["total"]["energy_kwh"]
    for group_by in ("machine", "line", "site"):
        found = cost(plant, site="north", group_by=group_by).json
        (total,) = found["totals"]
        assert total["energy_kwh"] == pytest.approx(energy)
        for name in ("energy_cost", "fixed_cost", "demand_cost", "feed_in_revenue", "cost"):
            assert sum(group[name] for group in found["groups"]) == pytest.approx(total[name]), name
            assert sum(hour[name] for hour in found["hours"]) == pytest.approx(total[name]), name


def test_costs_of_sites_stay_in_their_currencies(plant: Platform) -> None:
    found = cost(plant, group_by="site").json
    assert [(each["name"], each["currency"]) for each in found["groups"]] == [("north", "EUR"), ("south", "USD")]
    assert [each["currency"] for each in found["totals"]] == ["EUR", "USD"]
    assert found["totals"][1]["cost"] == pytest.approx(found["totals"][1]["energy_kwh"] * 0.2)
    assert found["without_tariff"] == ["yard"]
    assert found["unpriced_kwh"] == pytest.approx(24, rel=0.05)
    refusal = cost(plant, 422, format="csv").json
    assert "EUR, USD" in refusal["detail"]


def test_cost_of_a_machine_is_that_of_its_energy(plant: Platform) -> None:
    found = cost(plant, machine_id="press-1").json
    (total,) = found["totals"]
    assert (total["fixed_cost"], total["demand_cost"], found["demand"]) == (0, 0, [])
    assert "fixed and demand charges are not contained" in found["notes"][0]
    assert total["cost"] == total["energy_cost"] > 0


def test_cost_is_exported_with_the_sums_of_the_answer(plant: Platform) -> None:
    (total,) = cost(plant, site="north").json["totals"]
    answer = cost(plant, site="north", format="csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="cost-EUR.csv"'
    lines = list(csv.DictReader(io.StringIO(answer.body.decode())))
    table = pq.read_table(io.BytesIO(cost(plant, site="north", format="parquet").body)).to_pydict()
    for name in ("energy_kwh", "energy_cost", "feed_in_revenue", "fixed_cost", "demand_cost", "cost"):
        assert sum(float(line[name]) for line in lines) == pytest.approx(total[name]), name
        assert sum(table[name]) == pytest.approx(total[name]), name
