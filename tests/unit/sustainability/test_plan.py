"""The accounting plan: lookup of meters, sites and lines, defaults, and limits of each field."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from aurum.sustainability.contracts import Contract
from aurum.sustainability.counters import CounterRules
from aurum.sustainability.plan import (
    AccountingPlan,
    AccountingPlanError,
    ContractSpec,
    FlowMeter,
    Meters,
    PowerMeter,
    SitePlan,
    load_plan,
)

SUN = tuple(float(hour) for hour in range(24))


def test_meters_fall_back_from_type_to_wildcard_to_none() -> None:
    pump, other = Meters(temperature="t"), Meters(production_unit="kg")
    plan = AccountingPlan(meters={"pump": pump, "*": other})
    assert plan.meters_of("pump") == pump
    assert plan.meters_of("press") == other
    assert AccountingPlan(meters={"pump": pump}).meters_of("press") == Meters()


def test_site_falls_back_to_wildcard_then_world() -> None:
    one, other = SitePlan(zone="DE"), SitePlan(zone="FR")
    plan = AccountingPlan(meters={}, sites={"one": one, "*": other})
    assert plan.site_of("one") == one
    assert plan.site_of("two") == other
    assert (
        AccountingPlan(meters={}, sites={"one": one}).site_of("two")
        == SitePlan()
        == SitePlan(zone="WORLD", contracts=())
    )


def test_machine_belongs_to_first_matching_line() -> None:
    plan = AccountingPlan(meters={}, lines={"none": (), "a": ("x-1", "press-*"), "b": ("press-2", "Pump-?")})
    assert plan.line_of("press-2") == "a"
    assert plan.line_of("x-1") == "a"
    assert plan.line_of("Pump-7") == "b"
    assert plan.line_of("Pump-77") == plan.line_of("pump-7") == plan.line_of("") == ""


def test_plan_contract_preserves_every_field() -> None:
    begins = datetime(2024, 1, 1, 0, 59, tzinfo=UTC)
    ends = datetime(2024, 1, 1, 3, tzinfo=timezone(timedelta(hours=2)))
    part = ContractSpec(
        name="sun", kg_per_kwh=0.04, share=0.5, kwh_per_hour=7, profile_kwh=SUN, begins=begins, ends=ends
    )
    assert part.contract() == Contract("sun", 0.04, 0.5, 7.0, SUN, 473_352, 473_353)


@pytest.mark.parametrize(
    ("limit", "contract"),
    [
        ({"share": 0.0}, Contract("a", 0.0, share=0.0)),
        ({"share": 1.0}, Contract("a", 0.0, share=1.0)),
        ({"kwh_per_hour": 0.0}, Contract("a", 0.0, kwh=0.0)),
        ({"profile_kwh": SUN}, Contract("a", 0.0, profile=SUN)),
    ],
)
def test_plan_contract_requires_only_one_limit(limit: dict[str, Any], contract: Contract) -> None:
    assert ContractSpec(name="a", kg_per_kwh=0, **limit).contract() == contract


@pytest.mark.parametrize(
    ("kind", "per", "per_hour"),
    [("rate", "second", 9000), ("rate", "minute", 150), ("rate", "hour", 2.5), ("counter", "second", 2.5)],
)
def test_flow_meter_rate_is_converted_to_hourly(kind: Any, per: Any, per_hour: float) -> None:
    assert FlowMeter(sensor="f", kind=kind, per=per, to=2.5).per_hour == pytest.approx(per_hour)


def test_meters_list_counters_and_rates_separately() -> None:
    water, count = FlowMeter(sensor="w", kind="counter"), FlowMeter(sensor="n", kind="counter")
    meters = Meters(power=PowerMeter(sensor="p"), water=water, production=count, temperature="t")
    assert (meters.counters, meters.rates) == (["w", "n"], ["p", "t"])
    shared = Meters(power=PowerMeter(sensor="p"), water=FlowMeter(sensor="p"), production=count, temperature="n")
    assert (shared.counters, shared.rates) == (["n"], ["p"])
    assert Meters().counters == Meters().rates == []


@pytest.mark.parametrize(
    ("kind", "unit", "factor"),
    [
        ("power", "", 1),
        ("power", "W", 0.001),
        ("power", "kW", 1),
        ("power", "MW", 1000),
        ("counter", "", 1),
        ("counter", "Wh", 0.001),
        ("counter", "kWh", 1),
        ("counter", "MWh", 1000),
        ("counter", "J", 1 / 3_600_000),
        ("counter", "kJ", 1 / 3600),
        ("counter", "MJ", 1 / 3.6),
        ("counter", "GJ", 1000 / 3.6),
        ("current", "", 1),
        ("current", "mA", 0.001),
    ],
)
def test_power_meter_converts_its_unit(kind: Any, unit: str, factor: float) -> None:
    assert PowerMeter(sensor="p", kind=kind, unit=unit).factor == pytest.approx(factor)
    assert PowerMeter(sensor="p", kind=kind, unit=unit, to=40).factor == pytest.approx(40 * factor)


@pytest.mark.parametrize(
    ("declared", "rules"),
    [
        ({}, CounterRules(None, True, 43_200)),
        ({"wraps_at": "never"}, CounterRules(None, False, 43_200)),
        ({"wraps_at": "16bit", "recovery_seconds": 60}, CounterRules(65_536, False, 60)),
        ({"wraps_at": "32bit"}, CounterRules(4_294_967_296, False, 43_200)),
        ({"wraps_at": 10_000, "bidirectional": True}, CounterRules(10_000, False, 43_200, True)),
    ],
)
def test_counter_rules_are_those_of_its_meter(declared: dict[str, Any], rules: CounterRules) -> None:
    assert PowerMeter(sensor="p", kind="counter", **declared).rules == rules
    if "bidirectional" not in declared:
        assert FlowMeter(sensor="p", kind="counter", **declared).rules == rules


def test_meter_of_feed_in_is_separate_or_bidirectional() -> None:
    power, feed_in = PowerMeter(sensor="p", kind="counter"), PowerMeter(sensor="f", kind="counter")
    both = PowerMeter(sensor="p", bidirectional=True)
    assert [Meters(power=power).measures_feed_in, Meters().measures_feed_in] == [False, False]
    assert Meters(power=power, feed_in=feed_in).measures_feed_in
    assert Meters(power=both).measures_feed_in
    assert Meters(power=power, feed_in=feed_in).counters == ["p", "f"]
    assert Meters(power=both, feed_in=None).rates == ["p"]
    for wrong in ({"power": both, "feed_in": feed_in}, {"feed_in": both}):
        with pytest.raises(ValueError, match="feed_in must not be given together with a bidirectional meter"):
            Meters.model_validate(wrong)


def test_plan_has_the_documented_defaults(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("meters: {a: {power: {sensor: p}, water: {sensor: w}}}")
    plan = load_plan(path)
    assert (plan.longest_gap_seconds, plan.lines, plan.sites) == (1200, {}, {})
    meters = plan.meters_of("a")
    assert meters.power == PowerMeter(sensor="p", kind="power", volts=400, power_factor=0.85, phases=3)
    assert meters.water == FlowMeter(sensor="w", kind="rate", per="hour", to=1)
    assert (meters.production, meters.production_unit, meters.temperature) == (None, "units", None)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("longest_gap_seconds: 0", "longest_gap_seconds"),
        ("meters: {a: {power: {sensor: p, volts: 0}}}", "meters.a.power.volts"),
        ("meters: {a: {power: {sensor: p, power_factor: 1.01}}}", "meters.a.power.power_factor"),
        ("meters: {a: {power: {sensor: p, phases: 2}}}", "meters.a.power.phases"),
        ("meters: {a: {water: {sensor: w, to: 0}}}", "meters.a.water.to"),
        ("meters: {a: {power: {sensor: p, unit: kWh}}}", "meters.a.power"),
        ("meters: {a: {power: {sensor: p, kind: counter, unit: kW}}}", "meters.a.power"),
        ("meters: {a: {power: {sensor: p, kind: current, bidirectional: true}}}", "meters.a.power"),
        ("meters: {a: {power: {sensor: p, wraps_at: 100}}}", "meters.a.power"),
        ("meters: {a: {water: {sensor: p, recovery_seconds: 100}}}", "meters.a.water"),
        ("meters: {a: {water: {sensor: w, kind: counter, wraps_at: 0}}}", "meters.a.water.wraps_at"),
        ("meters: {a: {water: {sensor: w, kind: counter, wraps_at: 8bit}}}", "meters.a.water.wraps_at"),
        ("meters: {a: {water: {sensor: w, kind: counter, recovery_seconds: 3e5}}}", "meters.a.water.recovery_seconds"),
        ("sites: {a: {contracts: [{name: x, kg_per_kwh: 0, share: 1.01}]}}", "sites.a.contracts.0.share"),
        ("sites: {a: {contracts: [{name: x, kg_per_kwh: 0, kwh_per_hour: -1}]}}", "sites.a.contracts.0.kwh_per_hour"),
        ("sites: {a: {contracts: [{name: x, kg_per_kwh: 0, profile_kwh: [1]}]}}", "sites.a.contracts.0.profile_kwh"),
        ("sites: {a: {contracts: [{kg_per_kwh: 0, share: 1}]}}", "sites.a.contracts.0.name"),
        ("unknown: 1", "unknown"),
    ],
)
def test_plan_field_outside_limits_reports_file_and_field(tmp_path: Path, text: str, field: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text if text.startswith("meters") else f"{text}\nmeters: {{}}")
    with pytest.raises(AccountingPlanError) as caught:
        load_plan(path)
    assert str(caught.value).startswith(f"{path}, {field}: ")


def test_missing_plan_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(AccountingPlanError, match=r"none\.yaml cannot be read: No such file"):
        load_plan(tmp_path / "none.yaml")


@pytest.mark.usefixtures("far_east")
def test_contract_times_without_offset_are_utc() -> None:
    part = ContractSpec(name="a", kg_per_kwh=0.0, share=1.0, begins=datetime(2024, 1, 1), ends=datetime(2024, 1, 2))
    contract = part.contract()
    first = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) // 3600
    assert (contract.begins, contract.ends) == (first, first + 24)
