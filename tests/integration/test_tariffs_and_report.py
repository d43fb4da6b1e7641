"""Costs by tariffs, and the monthly report, of known readings through the services; in a month with a changed clock."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow.parquet as pq
import pypdf
import pytest

from tests.support.commands import command as run_command
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
  turbofan: {}
  "*": {power: {sensor: kw}}
lines: {front: ["press-*"]}
sites:
  north:
    zone: DE
    timezone: Europe/Berlin
    contracts: [{name: solar, kg_per_kwh: 0.0, kwh_per_hour: 5}]
    tariffs:
    - currency: EUR
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
    tariffs: [{currency: USD, prices: [{name: flat, per_kwh: 0.2}]}]
"""
# As a spreadsheet with decimal commas exports it
FACTORS = "zone;method;year;g_per_kwh;source\r\nUS;residual;2025;412,5;Suministros Eléctricos SA\r\n;;;;\r\n"
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
    (folder / "supplier.csv").write_text(FACTORS, encoding="utf-8-sig", newline="")
    running = Platform(
        folder,
        extra={
            "AURUM_SUSTAINABILITY_PLAN": str(folder / "plan.yaml"),
            "AURUM_SUSTAINABILITY_FACTORS": str(folder / "supplier.csv"),
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
    assert "at a site with a tariff" in cost(plant, 422, format="csv", site="yard").json["detail"]


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


def test_supplier_factor_of_a_spreadsheet_is_accounted(plant: Platform) -> None:
    found = get(plant, "/api/carbon", start=START, end=END, site="south").json
    assert found["total"]["market_kgco2e"] == pytest.approx(found["total"]["energy_kwh"] * 0.4125)
    (factor,) = [each for each in found["factors"] if each["method"] == "residual"]
    assert (factor["zone"], factor["year"], factor["source"]) == ("US", 2025, "Suministros Eléctricos SA")


def report(platform: Platform, expected: int = 200, **query: object) -> Any:
    return get(platform, "/api/reports/energy", expected, **{"month": "2025-10", **query})


def test_report_has_the_numbers_of_the_accounts(plant: Platform) -> None:
    """Energy, cost, carbon and water of the report are those of the API over the same time."""
    found = report(plant, site="north").json
    asked: dict[str, object] = {"start": START, "end": END, "site": "north"}
    energy, carbon, water = (get(plant, f"/api/{name}", **asked).json for name in ("energy", "carbon", "water"))
    (cost_of_site,) = cost(plant, site="north").json["totals"]
    total = found["total"]
    assert (found["start"], found["end"]) == (energy["start"], energy["end"])
    assert (found["timezone"], found["complete"], found["month"]) == ("Europe/Berlin", True, "2025-10")
    for name in ("energy_kwh", "estimated_kwh", "coverage", "fed_in_kwh"):
        assert total[name] == pytest.approx(energy["total"][name]), name
    for name in ("location_kgco2e", "market_kgco2e"):
        assert total[name] == pytest.approx(carbon["total"][name]), name
    assert total["water_litres"] == pytest.approx(water["total"]["litres"])
    assert total["costs"] == [{"currency": "EUR", "cost": pytest.approx(cost_of_site["cost"])}]
    assert found["costs"][0] == pytest.approx(cost_of_site)
    assert found["factors"] == carbon["factors"]
    assert found["contracts"] == carbon["contracts"]
    assert found["corrections"] == energy["corrections"]
    assert found["corrections_by_kind"] == {"restart": 1}
    by_machine = {line["name"]: line["energy_kwh"] for line in found["machines"]}
    assert by_machine == pytest.approx({group["name"]: group["energy_kwh"] for group in energy["groups"]})
    assert [line["name"] for line in found["machines"]][:2] == ["press-1", "press-2"]


def test_report_adds_up_by_site_type_machine_and_day(plant: Platform) -> None:
    for query in ({"site": "north"}, {}):
        found = report(plant, **query).json
        for part in ("sites", "types", "machines", "days"):
            for name in ("energy_kwh", "fed_in_kwh", "location_kgco2e", "market_kgco2e", "water_litres"):
                summed = sum(line[name] or 0 for line in found[part])
                assert summed == pytest.approx(found["total"][name]), (part, name)
            for money in found["total"]["costs"]:
                costs = [
                    each["cost"]
                    for line in found[part]
                    for each in line["costs"]
                    if each["currency"] == money["currency"]
                ]
                assert sum(costs) == pytest.approx(money["cost"]), part
    assert [day["day"] for day in report(plant, site="north").json["days"]] == [
        f"2025-10-{day:02}" for day in range(1, 32)
    ]


def test_report_notes_what_limits_its_numbers(plant: Platform) -> None:
    notes = {note["code"]: note for note in report(plant).json["notes"]}
    assert notes["without_tariff"]["parameters"]["sites"] == "yard"
    assert "demand_by_hour" in notes
    assert (
        notes["not_metered"]["text"] == "Machines without a meter in the accounting plan, which are not contained: 1."
    )
    assert "no_residual_mix" in notes
    spanish = {note["code"]: note["text"] for note in report(plant, language="es").json["notes"]}
    assert spanish.keys() == notes.keys()
    assert spanish["demand_by_hour"].startswith("La potencia es la media de cada hora.")


def shown(value: float, decimals: int, language: str) -> str:
    text = f"{value:,.{decimals}f}"
    return text if language == "en" else text.translate(str.maketrans(",.", ".,"))


@pytest.mark.parametrize(("language", "heading"), [("en", "Day by day"), ("es", "Día a día")])
def test_pdf_report_has_the_numbers_of_the_api(plant: Platform, language: str, heading: str) -> None:
    found = report(plant, site="north", language=language).json
    answer = report(plant, site="north", language=language, format="pdf")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"] == 'attachment; filename="energy-north-2025-10.pdf"'
    reader = pypdf.PdfReader(io.BytesIO(answer.body))
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert heading in text
    (money,) = found["costs"]
    for name in ("energy_cost", "fixed_cost", "demand_cost", "feed_in_revenue", "cost"):
        assert shown(money[name], 2, language) in text, name
    for line in (*found["sites"], *found["types"], *found["machines"], *found["days"]):
        for name in ("energy_kwh", "fed_in_kwh", "location_kgco2e", "market_kgco2e", "water_litres"):
            assert line[name] is None or shown(line[name], 1, language) in text, (line, name)
        assert all(shown(each["cost"], 2, language) in text for each in line["costs"]), line
    flat = " ".join(text.split())
    for words in (*(note["text"] for note in found["notes"]), *found["method"], "Umweltbundesamt"):
        assert " ".join(words.split()) in flat, words


def test_xlsx_report_has_the_numbers_of_the_api(plant: Platform) -> None:
    found = report(plant).json
    answer = report(plant, format="xlsx")
    assert answer.headers["content-disposition"] == 'attachment; filename="energy-2025-10.xlsx"'
    book = openpyxl.load_workbook(io.BytesIO(answer.body))
    for sheet, lines in (("By site", "sites"), ("By machine type", "types"), ("Machines with most energy", "machines")):
        header, *cells = list(book[sheet].iter_rows(values_only=True))
        assert header == (
            "Name",
            "Energy kWh",
            "Coverage %",
            "Fed in kWh",
            "Location-based kgCO2e",
            "Market-based kgCO2e",
            "Water l",
            "Cost EUR",
            "Cost USD",
        )
        assert len(cells) == len(found[lines])
        for row, line in zip(cells, found[lines], strict=True):
            costs = {each["currency"]: each["cost"] for each in line["costs"]}
            numbers = [line[name] for name in ("fed_in_kwh", "location_kgco2e", "market_kgco2e", "water_litres")]
            expected = [line["energy_kwh"], line["coverage"] * 100, *numbers, costs.get("EUR"), costs.get("USD")]
            assert row[0] == line["name"]
            assert list(row[1:]) == [None if each is None else pytest.approx(each) for each in expected]
    _, *days = list(book["Day by day"].iter_rows(values_only=True))
    assert [str(row[0])[:10] for row in days] == [day["day"] for day in found["days"]]
    assert [row[1] for row in days] == pytest.approx([day["energy_kwh"] for day in found["days"]])
    sources = [row[-1] for row in book["Emission factors"].iter_rows(min_row=2, values_only=True)]
    assert sources == [factor["source"] for factor in found["factors"]]
    kinds = [row[2] for row in book["Corrections of counters"].iter_rows(min_row=2, max_row=2, values_only=True)]
    assert kinds == ["counter restarted"]


def test_report_command_writes_what_the_api_answers(plant: Platform, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return run_command("report", "energy", "--api", plant.api, *arguments)

    file = tmp_path / "october.json"
    done = run("--month", "2025-10", "--site", "north", "--language", "es", "--out", str(file))
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text()) == report(plant, site="north", language="es").json
    assert list(tmp_path.iterdir()) == [file]
    refused = run("--month", "2025-13", "--out", str(file))
    assert refused.returncode == 1
    assert "'2025-13' is not a month such as 2026-10" in refused.stderr
    assert run("--month", "2025-10", "--out", "report.doc").returncode == 2


@pytest.mark.parametrize(
    ("month", "problem"),
    [("2025-00", "is not a month"), ("october", "is not a month"), ("2199-01", "2199-01 has not begun yet in UTC")],
)
def test_report_of_no_past_month_is_refused(plant: Platform, month: str, problem: str) -> None:
    refusal = report(plant, 422, month=month).json
    assert problem in refusal["detail"]
    assert refusal["errors"][0]["field"] == "month"
