"""Energy of partial periods, through the services: what an energy manager computes by hand from the raw readings."""

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.http import http as ask
from tests.support.platform import Platform

HOUR = 3600
MIDNIGHT = 1_760_054_400  # of some day in the past, UTC
EIGHT = MIDNIGHT + 8 * HOUR

PLAN = """
longest_gap_seconds: 1200
meters:
  full: {power: {sensor: kw}}
  half: {power: {sensor: kw}}
  quarter: {power: {sensor: kw}}
  ramp: {power: {sensor: kw}}
  counted: {power: {sensor: kwh, kind: counter}}
"""
FLEET = 12


def load(at: int) -> float:
    """Returns the power of a machine in kW: 12.5 on average, with a cycle of 14 minutes and one of a day."""
    return 12.5 + 6 * math.sin(2 * math.pi * at / 840) + 2 * math.sin(2 * math.pi * at / 86_400)


def trapezoids(times: list[int], start: float, end: float) -> float:
    """Returns the energy in kWh between two times by hand: trapezoid by trapezoid, cut at both ends."""
    total = 0.0
    for one, other in itertools.pairwise(times):
        low, high = max(one, start), min(other, end)
        if low < high:
            first, last = (load(one) + (load(other) - load(one)) * (at - one) / (other - one) for at in (low, high))
            total += (first + last) / 2 * (high - low) / 3600
    return total


FULL = [*range(MIDNIGHT - 600, MIDNIGHT + 24 * HOUR + 601, 10)]  # a day, and some minutes around it
HALF = [*range(EIGHT + 5 * 60, EIGHT + 5 * 60 + 1849, 4)]  # 30.8 minutes from 08:05 on
QUARTER = [*range(EIGHT + 5 * 60, EIGHT + 5 * 60 + 877, 2)]  # 14.6 minutes
RAMP = [*range(EIGHT - 3 * HOUR, EIGHT + 3 * HOUR + 1, 7)]


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("exact")
    (folder / "plan.yaml").write_text(PLAN)
    running = Platform(
        folder,
        extra={
            "AURUM_SUSTAINABILITY_PLAN": str(folder / "plan.yaml"),
            "AURUM_FEATURE_PREDICTIVE": "false",
            "AURUM_FAULTS_ENABLED": "true",
        },
    )
    running.start("ingestion")
    running.start("api")
    rows = ["machine_id,timestamp,sensor,value"]
    for kind, times, count in (
        ("full", FULL, 1),
        ("half", HALF, FLEET),
        ("quarter", QUARTER, FLEET),
        ("ramp", RAMP, 1),
    ):
        for number in range(count):
            register(running, f"{kind}-{number}", kind)
            rows += [f"{kind}-{number},{at},kw,{load(at)!r}" for at in times]
    register(running, "counted-0", "counted")
    rows += [f"counted-0,{at},kwh,{(at - EIGHT) / 300}" for at in range(EIGHT + 90, EIGHT + 5 * HOUR, 60)]
    answer = ask("POST", f"{running.api}/api/readings", "\n".join(rows).encode(), headers={"Content-Type": "text/csv"})
    assert answer.status == 200, answer.body
    yield running
    running.stop()


def register(platform: Platform, machine_id: str, machine_type: str) -> None:
    machine = {"machine_id": machine_id, "machine_type": machine_type, "site": "north"}
    assert ask("POST", f"{platform.api}/api/machines", machine).status == 201


def energy(platform: Platform, start: float, end: float, **query: object) -> Any:
    asked = {"start": start, "end": end, **query}
    answer = ask("GET", f"{platform.api}/api/energy?" + "&".join(f"{name}={value}" for name, value in asked.items()))
    assert answer.status == 200, answer.body
    return answer.json


def kwh(platform: Platform, start: float, end: float, **query: object) -> float:
    return float(energy(platform, start, end, **query)["total"]["energy_kwh"])


def test_complete_day_is_the_sum_of_its_trapezoids(metered: Platform) -> None:
    expected = trapezoids(FULL, MIDNIGHT, MIDNIGHT + 24 * HOUR)
    assert expected == pytest.approx(300, rel=0.01)
    assert kwh(metered, MIDNIGHT, MIDNIGHT + 24 * HOUR, machine_id="full-0") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("kind", "times"), [("half", HALF), ("quarter", QUARTER)])
def test_minutes_of_data_are_not_extended(metered: Platform, kind: str, times: list[int]) -> None:
    """A day in which a fleet has half an hour, or a quarter, of readings."""
    found = energy(metered, EIGHT - 23 * HOUR, EIGHT + HOUR, machine_type=kind)
    expected = FLEET * trapezoids(times, times[0], times[-1])
    assert found["total"]["energy_kwh"] == pytest.approx(expected, rel=1e-9)
    assert found["total"]["coverage"] == pytest.approx((times[-1] - times[0]) / (24 * HOUR))


def test_hours_before_the_first_reading_are_empty(metered: Platform) -> None:
    """Wherever the range begins."""
    for minute in range(0, 10, 2):
        found = energy(metered, EIGHT - 23 * HOUR + minute * 60, EIGHT + HOUR + minute * 60, machine_type="half")
        by_hour = {hour["start"][11:16]: hour["energy_kwh"] for hour in found["hours"]}
        assert [start for start, amount in by_hour.items() if amount] == ["08:00"]


def test_energy_does_not_depend_on_where_a_range_begins(metered: Platform) -> None:
    """From 08:00, 08:03 and 08:05 on, a machine that runs from 08:05 on used the same."""
    found = [kwh(metered, EIGHT + 60 * minute, EIGHT + 6 * HOUR, machine_id="half-0") for minute in (0, 3, 5)]
    assert found == pytest.approx([trapezoids(HALF, HALF[0], HALF[-1])] * 3, rel=1e-9)
    ramp = [kwh(metered, EIGHT + 60 * minute, EIGHT + 2 * HOUR, machine_id="ramp-0") for minute in (0, 3, 5)]
    assert ramp == [pytest.approx(trapezoids(RAMP, EIGHT + 60 * m, EIGHT + 2 * HOUR), rel=1e-9) for m in (0, 3, 5)]


def test_running_total_never_falls(metered: Platform) -> None:
    """Neither while readings arrive nor after the last of them."""
    for machine_id, times in (("full-0", FULL), ("half-0", HALF)):
        ends = [EIGHT + 97 * step for step in range(0, 60, 2)]
        totals = [kwh(metered, MIDNIGHT, end, machine_id=machine_id) for end in ends]
        assert totals == sorted(totals)
        assert totals[-1] == pytest.approx(trapezoids(times, MIDNIGHT, ends[-1]), rel=1e-9)


def test_partition_of_a_range_adds_up(metered: Platform) -> None:
    """However it is cut: into parts, hours, machines, lines and sites, for power and for counters."""
    start, end = EIGHT - 2 * HOUR + 0.25, EIGHT + 4 * HOUR + 0.125
    whole = energy(metered, start, end)
    cuts = [start, EIGHT - 3600.5, EIGHT + 7, EIGHT + 1800.75, EIGHT + 1801, EIGHT + 3 * HOUR, end]
    parts = [kwh(metered, one, other) for one, other in itertools.pairwise(cuts)]
    total = whole["total"]["energy_kwh"]
    assert math.fsum(parts) == pytest.approx(total, rel=1e-9)
    assert math.fsum(hour["energy_kwh"] for hour in whole["hours"]) == pytest.approx(total, rel=1e-9)
    for by in ("machine", "line", "site"):
        groups = energy(metered, start, end, group_by=by)["groups"]
        assert math.fsum(group["energy_kwh"] for group in groups) == pytest.approx(total, rel=1e-9)


def test_counter_hour_is_its_difference_by_hand(metered: Platform) -> None:
    """It counts 12 kWh in an hour from 08:01:30 on: 11.7 by 09:00, and 12 in each hour after it."""
    found = energy(metered, EIGHT, EIGHT + 2 * HOUR, machine_id="counted-0")
    assert [hour["energy_kwh"] for hour in found["hours"]] == pytest.approx([11.7, 12.0], rel=1e-9)
    assert found["hours"][0]["coverage"] == pytest.approx(3510 / 3600)


def test_range_of_a_year_is_answered(metered: Platform) -> None:
    year = kwh(metered, MIDNIGHT - 200 * 24 * HOUR, MIDNIGHT + 200 * 24 * HOUR, machine_id="full-0")
    assert year == pytest.approx(trapezoids(FULL, FULL[0], FULL[-1]), rel=1e-9)
    longer = ask("GET", f"{metered.api}/api/energy?start={MIDNIGHT - 401 * 24 * HOUR}&end={MIDNIGHT}")
    assert longer.status == 422
    assert "400 days" in json.dumps(longer.json)


def test_account_may_take_longer_than_an_attempt(metered: Platform) -> None:
    """Four reads of 1.5 s take longer than an attempt, and than all attempts of a call, may."""
    faults = f"{metered.api}/api/platform/faults/ingestion"
    injected = ask("POST", faults, {"kind": "delay", "method": "store/read", "delay": "1500ms", "duration": "60s"})
    assert injected.status < 300, injected.body
    try:
        found = kwh(metered, MIDNIGHT - 12 * 24 * HOUR, MIDNIGHT + 4 * 24 * HOUR, machine_id="full-0")
    finally:
        assert ask("DELETE", f"{faults}").status < 300
    assert found == pytest.approx(trapezoids(FULL, FULL[0], FULL[-1]), rel=1e-9)


def test_quarters_of_an_hour_by_grpc(metered: Platform) -> None:
    """The contract's own messages, with intervals of 15 minutes; both ends are cut to the range."""
    request = ingestion_pb2.IntegrateRequest(
        machine_ids=["ramp-0", "full-0"],
        meters=[ingestion_pb2.Meter(sensor="none"), ingestion_pb2.Meter(sensor="kw")],
        start_us=(EIGHT + 100) * 1_000_000,
        end_us=(EIGHT + 2800) * 1_000_000,
        width_us=900_000_000,
        longest_gap_us=1_200_000_000,
    )
    with grpc.insecure_channel(f"127.0.0.1:{metered.port('ingestion')}") as channel:
        responses = list(ingestion_pb2_grpc.IngestionServiceStub(channel).Integrate(request))
    found = [meter for response in responses for meter in response.meters]
    assert [(each.machine_id, each.sensor, each.meter) for each in found] == [("full-0", "kw", 1), ("ramp-0", "kw", 1)]
    edges = [EIGHT + 100, EIGHT + 900, EIGHT + 1800, EIGHT + 2700, EIGHT + 2800]
    for each, times in zip(found, (FULL, RAMP), strict=True):
        expected = [trapezoids(times, *pair) for pair in itertools.pairwise(edges)]
        assert list(each.amounts) == pytest.approx(expected, rel=1e-9)
        assert list(each.covered_seconds) == pytest.approx([800, 900, 900, 100])
        assert not each.reverse_amounts


def test_late_readings_are_counted(metered: Platform) -> None:
    """Readings that arrive days after those around them close their gap."""
    register(metered, "late-0", "full")

    def send(times: list[int]) -> None:
        rows = ["machine_id,timestamp,sensor,value", *(f"late-0,{at},kw,{load(at)!r}" for at in times)]
        body = "\n".join(rows).encode()
        answer = ask("POST", f"{metered.api}/api/readings", body, headers={"Content-Type": "text/csv"})
        assert answer.status == 200, answer.body

    first, second, late = ([*range(EIGHT + at, EIGHT + at + 3600, 60)] for at in (0, 7200, 3600))
    send(first + second)
    gappy = energy(metered, EIGHT, EIGHT + 3 * HOUR, machine_id="late-0")["total"]
    assert gappy["energy_kwh"] == pytest.approx(
        trapezoids(first, EIGHT, EIGHT + 3 * HOUR) + trapezoids(second, EIGHT, EIGHT + 3 * HOUR), rel=1e-9
    )
    send(late)
    whole = energy(metered, EIGHT, EIGHT + 3 * HOUR, machine_id="late-0")["total"]
    assert whole["energy_kwh"] == pytest.approx(trapezoids(first + late + second, EIGHT, EIGHT + 3 * HOUR), rel=1e-9)
    assert whole["coverage"] > gappy["coverage"]
