"""Meters of each kind and unit, with the faults of real ones, through the services."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.http import http as ask
from tests.support.platform import Platform

HOUR = 3600
START = 1_760_000_400 - 1_760_000_400 % HOUR  # some whole hour in the past
END = START + 6 * HOUR

PLAN = """
longest_gap_seconds: 1200
meters:
  counter: {power: {sensor: energy_wh, kind: counter, unit: Wh}, feed_in: {sensor: solar_mwh, kind: counter, unit: MWh}}
  register: {power: {sensor: pulses, kind: counter, to: 0.1, wraps_at: 16bit}}
  watts: {power: {sensor: watts, unit: W, bidirectional: true}}
  joules: {power: {sensor: joules, kind: counter, unit: J, bidirectional: true}}
  milliamps: {power: {sensor: ma, kind: current, unit: mA, volts: 230, phases: 1, power_factor: 1}}
  washer:
    power: {sensor: kw}
    water: {sensor: meter_m3, kind: counter, to: 1000}
    production: {sensor: pieces, kind: counter, recovery_seconds: 0}
    production_unit: pieces
sites: {"*": {zone: WORLD}}
"""


def iso(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def rows() -> Iterator[tuple[str, int, str, float]]:
    """Each machine uses 6 kW for six hours, except where its meter cannot tell."""
    for at in range(START - HOUR, END + HOUR + 1, 600):
        kwh = (at - START) / HOUR * 6 + 100
        lost = at == START + 2 * HOUR or START + 3 * HOUR < at < START + 4 * HOUR + HOUR // 2
        if not lost or at == START + 2 * HOUR:
            yield "counter-1", at, "energy_wh", 0.0 if lost else kwh * 1000
        yield "counter-1", at, "solar_mwh", 50 + (at - START) / HOUR / 1000
        yield "register-1", at, "pulses", (64_450 + kwh * 10) % 65_536
        yield "watts-1", at, "watts", -2000 if at >= START + 3 * HOUR else 6000
        yield "joules-1", at, "joules", (1000 + abs((at - START) / HOUR - 3)) * 3.6e6
        yield "milliamps-1", at, "ma", 6000 / 230 * 1000
        yield "washer-1", at, "kw", 6
        yield "washer-1", at, "meter_m3", 7 + (at - START) / HOUR - (0.2 if at == START + HOUR else 0)
        yield "washer-1", at, "pieces", 10 + (at - START) // 600 % 2 * 10


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("meters")
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
    readings = list(rows())
    for machine_id in sorted({machine_id for machine_id, *_ in readings}):
        machine = {"machine_id": machine_id, "machine_type": machine_id[:-2], "site": "north"}
        assert ask("POST", f"{running.api}/api/machines", machine).status == 201
    table = "\n".join(["machine_id,timestamp,sensor,value", *(",".join(map(str, row)) for row in readings)])
    answer = ask("POST", f"{running.api}/api/readings", table.encode(), headers={"Content-Type": "text/csv"})
    assert answer.status == 200, answer.body
    yield running
    running.stop()


def get(platform: Platform, path: str, start: int = START, end: int = END, **query: object) -> Any:
    asked = {"start": iso(start), "end": iso(end), **query}
    answer = ask("GET", f"{platform.api}{path}?" + "&".join(f"{name}={value}" for name, value in asked.items()))
    assert answer.status == 200, answer.body
    return answer


@pytest.mark.parametrize(
    ("machine_id", "energy", "fed_in"),
    [
        ("counter-1", 36, 6),
        ("register-1", 36, None),
        # It falls evenly from 6 to -2 kW within ten minutes, so it draws for 7.5 of them
        ("watts-1", 6 * (3 - 1 / 6) + 6 * 7.5 / 60 / 2, 2 * 3 + 2 * 2.5 / 60 / 2),
        ("joules-1", 3, 3),
        ("milliamps-1", 36, None),
        ("washer-1", 36, None),
    ],
)
def test_meter_of_each_unit_measures_the_energy(
    plant: Platform, machine_id: str, energy: float, fed_in: float | None
) -> None:
    total = get(plant, "/api/energy", machine_id=machine_id).json["total"]
    expected = None if fed_in is None else pytest.approx(fed_in, rel=1e-9)
    assert (total["energy_kwh"], total["fed_in_kwh"]) == (pytest.approx(energy, rel=1e-9), expected)


def test_corrections_of_a_counter_are_told_and_counted(plant: Platform) -> None:
    found = get(plant, "/api/energy", machine_id="counter-1").json
    false_reading, gap = found["corrections"]
    assert false_reading == {
        "kind": "false_reading",
        "machine_id": "counter-1",
        "sensor": "energy_wh",
        "start": iso(START + 2 * HOUR),
        "end": iso(START + 2 * HOUR),
        "amount": pytest.approx(111),
        "unit": "kWh",
    }
    assert (gap["kind"], gap["amount"], gap["start"]) == ("gap", pytest.approx(9), iso(START + 3 * HOUR))
    assert (found["corrections_count"], found["corrections_by_kind"]) == (2, {"false_reading": 1, "gap": 1})
    assert found["total"]["coverage"] == pytest.approx(0.75)
    assert found["total"]["estimated_kwh"] == pytest.approx(36)
    (wrap,) = get(plant, "/api/energy", machine_id="register-1").json["corrections"]
    assert (wrap["kind"], wrap["amount"]) == ("wrap", pytest.approx(1))
    water = get(plant, "/api/water", machine_id="washer-1").json
    assert water["total"]["litres"] == pytest.approx(6000)
    assert [(each["kind"], each["amount"], each["unit"]) for each in water["corrections"]] == [
        ("jitter", pytest.approx(200 - 1000 / 6), "l")
    ]


def test_corrections_listed_in_an_answer_are_limited(plant: Platform) -> None:
    """A counter that restarts twice an hour over days would fill any answer."""
    table = ["machine_id,timestamp,sensor,value"]
    table += [f"washer-2,{START + each * 60},pieces,{each % 2 * 5 + 5}" for each in range(301)]
    machine = {"machine_id": "washer-2", "machine_type": "washer", "site": "north"}
    assert ask("POST", f"{plant.api}/api/machines", machine).status == 201
    body = "\n".join(table).encode()
    assert ask("POST", f"{plant.api}/api/readings", body, headers={"Content-Type": "text/csv"}).status == 200
    found = get(plant, "/api/energy", machine_id="washer-2").json
    assert (len(found["corrections"]), found["corrections_count"]) == (50, 150)
    assert found["total"]["produced"] == 300 * 5


def test_energy_and_carbon_of_a_counter_agree(plant: Platform) -> None:
    energy = get(plant, "/api/energy", machine_id="counter-1").json
    carbon = get(plant, "/api/carbon", machine_id="counter-1").json
    assert [hour["energy_kwh"] for hour in carbon["hours"]] == [hour["energy_kwh"] for hour in energy["hours"]]
    assert carbon["total"]["energy_kwh"] == pytest.approx(energy["total"]["energy_kwh"])
    assert carbon["corrections"] == [each for each in energy["corrections"] if each["sensor"] == "energy_wh"]
    rows = list(csv.DictReader(io.StringIO(get(plant, "/api/energy", format="csv").body.decode())))
    assert {row["fed_in_kwh"] != "" for row in rows if row["machine"] == "counter-1"} == {True}
    assert {row["fed_in_kwh"] for row in rows if row["machine"] == "register-1"} == {""}


@pytest.mark.parametrize("minute", [60, 120, 125, 200, 240])
def test_adjacent_ranges_of_a_counter_add_up(plant: Platform, minute: int) -> None:
    """Also at the false reading, and within the gap."""
    middle = START + minute * 60
    parts = [
        get(plant, "/api/energy", start, end, machine_id="counter-1").json["total"]["energy_kwh"]
        for start, end in ((START, middle), (middle, END))
    ]
    assert parts == [pytest.approx(minute / 10), pytest.approx(36 - minute / 10)]


def test_production_counter_restarts_at_each_drop_if_declared(plant: Platform) -> None:
    total = get(plant, "/api/energy", machine_id="washer-1").json["total"]
    assert (total["produced"], total["production_unit"]) == (36 * 10, "pieces")
