"""Energy, carbon and water of known readings, through the services; with a plan, contracts and factors from files."""

import csv
import http.server
import io
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support import processes
from tests.support.http import http as ask
from tests.support.platform import Platform

HOUR = 3600
START = 1_760_000_400 - 1_760_000_400 % HOUR  # some whole hour in the past
END = START + 6 * HOUR

PLAN = """
longest_gap_seconds: 1200
meters:
  press:
    power: {sensor: kw}
    water: {sensor: meter_l, kind: counter}
    production: {sensor: pieces_per_h}
    production_unit: pieces
  mill: {power: {sensor: kw}, production: {sensor: pieces_per_h}}
  fan: {power: {sensor: amps, kind: current, volts: 400, power_factor: 0.8}}
lines: {front: ["press-*"], back: ["mill-*"]}
sites:
  north: {zone: NOWHERE, contracts: [{name: solar, kg_per_kwh: 0.0, kwh_per_hour: 30}]}
"""
FACTORS = (
    "zone,method,year,kg_per_kwh,source\nNOWHERE,location,2024,0.4,test table\nNOWHERE,residual,2024,0.6,test table\n"
)


class Provider:
    """What Electricity Maps would answer: 0.1 kg/kWh in each hour, until it is told to fail."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failing = False
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.headers.get("auth-token", ""))
                body = json.dumps({"data": [{"datetime": iso(START), "carbonIntensity": 100}]}).encode()
                self.send_response(500 if provider.failing else 200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Not on the tests' output."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


def iso(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    running = Provider()
    yield running
    running.server.shutdown()


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("accounts")
    (folder / "plan.yaml").write_text(PLAN)
    (folder / "factors.csv").write_text(FACTORS)
    running = Platform(
        folder,
        extra={
            "AURUM_SUSTAINABILITY_PLAN": str(folder / "plan.yaml"),
            "AURUM_SUSTAINABILITY_FACTORS": str(folder / "factors.csv"),
            "AURUM_SUSTAINABILITY_PROVIDER": "electricity_maps",
            "AURUM_SUSTAINABILITY_PROVIDER_URL": provider.url,
            "AURUM_SUSTAINABILITY_PROVIDER_KEY": "a-key-that-no-log-shows",
            "AURUM_FEATURE_WATER": "true",
            "AURUM_FEATURE_PREDICTIVE": "false",
        },
    )
    running.start("ingestion")
    running.start("api")
    for machine_id, machine_type in (
        ("press-1", "press"),
        ("press-2", "press"),
        ("fan-1", "fan"),
        ("mute-1", "statue"),
        ("mill-1", "mill"),
    ):
        machine = {"machine_id": machine_id, "machine_type": machine_type, "site": "north"}
        assert ask("POST", f"{running.api}/api/machines", machine).status == 201
    rows = ["machine_id,timestamp,sensor,value"]
    for at in range(START, END + 1, 600):
        rows.append(f"press-1,{at},kw,60")
        rows.append(f"press-1,{at},meter_l,{(at - START) // 6 % 2000}")  # 600 l/h; the meter turns over at 2000
        rows.append(f"press-1,{at},pieces_per_h,120")
        if at < START + 3 * HOUR:
            rows.append(f"press-2,{at},kw,{(at - START) // HOUR * 10}")
        rows.append(f"fan-1,{at},amps,100")
    for at in range(START - 48 * HOUR, END + 1, 600):  # uses 20 kW, and 0.5 kWh for each piece; 10 % less from START on
        pieces = 60 + 20 * (at // HOUR % 5)
        rows.append(f"mill-1,{at},pieces_per_h,{pieces}")
        rows.append(f"mill-1,{at},kw,{(20 + 0.5 * pieces) * (0.9 if at >= START else 1)}")
    answer = ask("POST", f"{running.api}/api/readings", "\n".join(rows).encode(), headers={"Content-Type": "text/csv"})
    assert answer.status == 200, answer.body
    yield running
    running.stop()


def get(platform: Platform, path: str, **query: object) -> Any:
    asked = {"start": iso(START), "end": iso(END), **query}
    answer = ask("GET", f"{platform.api}{path}?" + "&".join(f"{name}={value}" for name, value in asked.items()))
    assert answer.status == 200, answer.body
    return answer


def test_energy_is_grouped_by_machine_line_and_site(plant: Platform) -> None:
    found = get(plant, "/api/energy").json
    by_name = {group["name"]: group for group in found["groups"]}
    assert by_name["press-1"]["energy_kwh"] == pytest.approx(360)
    assert by_name["press-1"]["coverage"] == pytest.approx(1)
    assert by_name["press-1"]["produced"] == pytest.approx(720)
    assert by_name["press-1"]["specific_kwh"] == pytest.approx(0.5)
    assert by_name["fan-1"]["energy_kwh"] == pytest.approx(6 * 3**0.5 * 400 * 100 * 0.8 / 1000)
    assert 0.45 < by_name["press-2"]["coverage"] < 0.5
    assert by_name["press-2"]["estimated_kwh"] is None
    assert found["not_metered"] == ["mute-1"]
    assert len(found["hours"]) == 6
    assert sum(hour["energy_kwh"] for hour in found["hours"]) == pytest.approx(found["total"]["energy_kwh"])
    lines = {group["name"]: group for group in get(plant, "/api/energy", group_by="line").json["groups"]}
    assert set(lines) == {"front", "back", ""}
    assert lines[""]["energy_kwh"] == pytest.approx(by_name["fan-1"]["energy_kwh"])
    (site,) = get(plant, "/api/energy", group_by="site").json["groups"]
    assert site["name"] == "north"
    assert site["energy_kwh"] == pytest.approx(found["total"]["energy_kwh"])
    half = get(plant, "/api/energy", machine_id="press-1", end=iso(START + HOUR + HOUR // 2)).json
    assert [hour["energy_kwh"] for hour in half["hours"]] == [pytest.approx(60), pytest.approx(30)]


def test_water_total_handles_counter_rollover(plant: Platform) -> None:
    found = get(plant, "/api/water", machine_id="press-1").json
    # At a turn of the meter what it counted before it is not known:
    assert found["total"]["litres"] == pytest.approx(3600 - 100, rel=0.02)
    assert found["total"]["litres_per_kwh"] == pytest.approx(found["total"]["litres"] / 360)


def test_carbon_uses_provider_factors_and_contracts(plant: Platform, provider: Provider) -> None:
    found = get(plant, "/api/carbon", machine_id="press-1").json
    # Of the first hour the provider has a factor, for the others that of the year stands in.
    assert found["total"]["location_kgco2e"] == pytest.approx(60 * 0.1 + 300 * 0.4)
    assert found["total"]["market_kgco2e"] == pytest.approx(6 * 30 * 0.6)
    assert found["matched_share"] == pytest.approx(0.5)
    assert [hour["coverage"] for hour in found["hours"]] == pytest.approx([1] * 6)
    assert found["contracts"] == [
        {"site": "north", "name": "solar", "kg_per_kwh": 0.0, "matched_kwh": pytest.approx(180)}
    ]
    grid = next(each for each in found["factors"] if each["method"] == "location")
    assert (grid["hours"], grid["stale_hours"], grid["source"]) == (6, 0, "Electricity Maps; test table")
    assert (grid["missing_hours"], grid["missing"]) == (5, [iso(START + hour * HOUR) for hour in range(1, 6)])
    assert found["missing_factor_share"] == pytest.approx(5 / 6)
    assert found["total"]["unaccounted_kwh"] == 0
    assert found["notes"] == [
        "the provider has no factor of zone NOWHERE for 5 of 6 hours; that of the year is used instead"
    ]
    assert set(provider.asked) == {"a-key-that-no-log-shows"}
    by_machine = get(plant, "/api/carbon").json
    total = sum(group["market_kgco2e"] for group in by_machine["groups"])
    assert total == pytest.approx(by_machine["total"]["market_kgco2e"])
    assert "a-key-that-no-log-shows" not in (plant.folder / "api.log").read_text()


def test_provider_outage_uses_last_good_factor(plant: Platform, provider: Provider) -> None:
    get(plant, "/api/carbon", machine_id="mill-1", end=iso(START + HOUR))
    earlier = {"machine_id": "mill-1", "start": iso(START - 15 * HOUR), "end": iso(START - 10 * HOUR)}
    provider.failing = True
    try:
        found = get(plant, "/api/carbon", **earlier).json
    finally:
        provider.failing = False
    assert (found["factors"][0]["stale_hours"], found["factors"][0]["missing_hours"]) == (5, 0)
    assert found["total"]["location_kgco2e"] == pytest.approx(found["total"]["energy_kwh"] * 0.1)


def test_carbon_hint_notes_missing_factor(plant: Platform) -> None:
    hint = ask("GET", f"{plant.api}/api/carbon/hint?kw=50&duration_hours=2&site=north").json
    assert hint["zone"] == "NOWHERE"
    assert hint["now_kgco2e"] == pytest.approx(40)
    assert hint["best_start"] is None
    assert "the provider has no factor for some hours" in hint["note"]
    wrong = ask("GET", f"{plant.api}/api/carbon/hint?kw=50&duration_hours=5&within_hours=2")
    assert wrong.status == 422
    assert "duration_hours" in json.dumps(wrong.json)


def test_energy_baseline_reports_savings(plant: Platform) -> None:
    baseline = f"&baseline_start={iso(START)}&baseline_end={iso(END)}"
    url = f"{plant.api}/api/energy?start={iso(START)}&end={iso(END)}{baseline}"
    saved = get(
        plant, "/api/energy", machine_id="mill-1", baseline_start=iso(START - 48 * HOUR), baseline_end=iso(START)
    ).json["baseline"]
    assert saved["coefficients"]["production"] == pytest.approx(0.5, abs=0.02)
    assert saved["intercept_kwh"] == pytest.approx(20, abs=2)
    assert saved["r_squared"] > 0.98
    assert saved["savings_share"] == pytest.approx(0.1, abs=0.01)
    assert saved["cusum_kwh"][-1] == pytest.approx(saved["savings_kwh"])
    flat = ask("GET", f"{url}&machine_id=press-1")
    assert flat.status == 422
    assert "does not vary" in json.dumps(flat.json)
    short = ask("GET", f"{url}&machine_id=press-2")
    assert short.status == 422
    assert "has 2 intervals" in json.dumps(short.json)


def test_baseline_is_that_of_the_same_machines(plant: Platform) -> None:
    """The presses have no readings in the baseline period, so that only the mill is compared."""
    compared = get(plant, "/api/energy", baseline_start=iso(START - 48 * HOUR), baseline_end=iso(START)).json
    saved = compared["baseline"]
    assert (saved["machines"], saved["left_out"]) == (1, ["fan-1", "press-1", "press-2"])
    assert saved["savings_share"] == pytest.approx(0.1, abs=0.01)
    assert saved["actual_kwh"] < compared["total"]["energy_kwh"]
    strangers = f"start={iso(START - 60 * HOUR)}&end={iso(START - 50 * HOUR)}"
    baseline = f"baseline_start={iso(START - 48 * HOUR)}&baseline_end={iso(START)}"
    refused = ask("GET", f"{plant.api}/api/energy?{strangers}&{baseline}")
    assert refused.status == 422
    assert "no machine has readings in both periods" in json.dumps(refused.json)


def test_accounts_are_exported_as_csv_and_parquet(plant: Platform) -> None:
    for path, column in (("energy", "energy_kwh"), ("carbon", "market_kgco2e"), ("water", "litres")):
        answer = get(plant, f"/api/{path}", format="csv")
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
        groups = {row["machine"] for row in rows}
        assert len(rows) == 6 * len(groups)
        assert rows[0]["start"] == iso(START)
        parquet = pq.read_table(io.BytesIO(get(plant, f"/api/{path}", format="parquet").body)).to_pylist()
        assert [row[column] for row in parquet] == [pytest.approx(float(row[column])) for row in rows]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("start=2025-01-02&end=2025-01-01", "start"),
        ("start=2023-01-01&end=2025-01-01", "start"),
        ("start=yesterday", "start"),
        ("machine_id=a&site=b", "machine_id"),
        ("group_by=colour", "group_by"),
        ("format=xlsx", "format"),
        ("baseline_start=2025-01-01", "baseline_end"),
    ],
)
def test_invalid_energy_query_names_its_field(plant: Platform, query: str, field: str) -> None:
    answer = ask("GET", f"{plant.api}/api/energy?{query}")
    assert answer.status == 422
    assert field in json.dumps(answer.json)


def test_unknown_machine_is_404_and_empty_site_uses_nothing(plant: Platform) -> None:
    assert ask("GET", f"{plant.api}/api/energy?machine_id=nobody").status == 404
    empty = get(plant, "/api/carbon", site="south").json
    assert empty["total"]["energy_kwh"] == 0
    assert empty["groups"] == []


def test_disabled_feature_is_501_and_names_its_setting(serving: Platform) -> None:
    answer = ask("GET", f"{serving.api}/api/water")
    assert answer.status == 501
    assert "AURUM_FEATURE_WATER" in answer.json["detail"]


@pytest.mark.parametrize(
    ("setting", "content", "words"),
    [
        ("AURUM_SUSTAINABILITY_PLAN", "meters: {press: {power: {}}}", "meters.press.power.sensor"),
        ("AURUM_SUSTAINABILITY_FACTORS", "zone,method\n", "lacks the column year"),
        ("AURUM_COSTS_FILE", "types: []", "types"),
        (
            "AURUM_SUSTAINABILITY_PLAN",
            "meters: {}\nsites: {x: {tariffs: [{currency: EUR, prices: [{name: day, per_kwh: 1, days: [mon]}]}]}}",
            "the last one, day, must have neither days, hours nor season",
        ),
    ],
)
def test_invalid_configuration_file_prevents_startup(
    platform: Platform, tmp_path: Path, setting: str, content: str, words: str
) -> None:
    path = tmp_path / "wrong"
    path.write_text(content)
    environment = {**platform.environment("api"), setting: str(path)}
    started = processes.run("api", environment=environment)
    assert started.returncode == 2
    assert words in started.stderr
    assert "wrong" in started.stderr
