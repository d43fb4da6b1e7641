"""Tariffs: which price applies when, what a tariff must state, and how its errors name the field."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aurum.sustainability.plan import AccountingPlanError, SitePlan, load_plan
from aurum.sustainability.tariff import TariffSpec, parse_hours, parse_season

TARIFF: dict[str, Any] = {
    "currency": "EUR",
    "seasons": {"winter": "11-01/03-31"},
    "holidays": ["2026-12-25"],
    "prices": [
        {
            "name": "peak",
            "per_kwh": 0.4,
            "days": ["mon", "tue", "wed", "thu", "fri"],
            "hours": ["08:00-12:00", "17:30-20:00"],
            "season": "winter",
        },
        {"name": "night", "per_kwh": 0.1, "hours": ["22:00-06:00"]},
        {"name": "rest", "per_kwh": 0.2, "days": ["sat", "sun", "holiday"]},
        {"name": "base", "per_kwh": 0.3},
    ],
}


@pytest.mark.parametrize(
    ("local", "name"),
    [
        ("2026-12-01T08:00", "peak"),
        ("2026-12-01T11:59", "peak"),
        ("2026-12-01T12:00", "base"),
        ("2026-12-01T17:15", "base"),
        ("2026-12-01T17:30", "peak"),
        ("2026-03-31T08:00", "peak"),
        ("2026-04-01T08:00", "base"),
        ("2026-10-30T08:00", "base"),
        ("2026-12-05T08:00", "rest"),
        ("2026-12-25T08:00", "rest"),
        ("2026-12-25T23:00", "night"),
        ("2026-12-01T05:59", "night"),
        ("2026-12-01T06:00", "base"),
        ("2026-12-01T22:00", "night"),
    ],
)
def test_first_price_that_includes_the_time_applies(local: str, name: str) -> None:
    tariff = TariffSpec.model_validate(TARIFF)
    found = tariff.rules.price_at(datetime.fromisoformat(local))
    assert tariff.prices[found].name == name


def test_hours_and_seasons_are_parsed() -> None:
    assert parse_hours("00:00-24:00") == (0, 1440)
    assert parse_hours("22:15-06:45") == (1335, 405)
    assert parse_season("02-29/02-29") == ((2, 29), (2, 29))


@pytest.mark.parametrize("text", ["8-12", "08:10-12:00", "08:00-08:00", "24:00-08:00", "08:00-24:15", "08:75-09:00"])
def test_invalid_hours_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^'{text}' is not a range of hours such as 08:00-12:00"):
        parse_hours(text)


@pytest.mark.parametrize("text", ["winter", "13-01/03-31", "02-30/03-31", "11-01"])
def test_invalid_seasons_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a season such as 11-01/03-31"):
        parse_season(text)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"currency": "euro"}, "currency"),
        ({"prices": []}, "prices"),
        ({"prices": TARIFF["prices"][:-1]}, "the last one, rest, must have neither days, hours nor season"),
        ({"prices": [TARIFF["prices"][3], *TARIFF["prices"]]}, "base applies always, so that those after it never do"),
        ({"prices": [TARIFF["prices"][1], *TARIFF["prices"][1:]]}, "two have the name 'night'"),
        ({"seasons": {}}, "peak has the season 'winter', which seasons does not define"),
        ({"fixed_per_day": -1}, "fixed_per_day"),
        ({"demand_per_kw": float("inf")}, "demand_per_kw"),
        ({"price": 1}, "price"),
    ],
)
def test_tariff_without_a_clear_price_is_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TariffSpec.model_validate({**TARIFF, **change})
    assert problem in str(caught.value)


def test_plan_file_with_tariff_is_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    text = """
meters: {}
sites:
  hall:
    timezone: Europe/Berlin
    tariffs:
    - currency: EUR
      holidays: [2026-12-25]
      seasons: {winter: 11-01/03-31}
      prices:
        - {name: peak, per_kwh: 0.4, hours: [08:00-12:00, 17:30-20:00], season: winter}
        - {name: base, per_kwh: 0.3}
"""
    path.write_text(text)
    supply = load_plan(path).site_of("hall")
    (tariff,) = supply.tariffs
    assert tariff.prices[0].hours == ("08:00-12:00", "17:30-20:00")
    assert [day.isoformat() for day in tariff.holidays] == ["2026-12-25"]
    path.write_text(text.replace("Europe/Berlin", "Europe/Berlim"))
    with pytest.raises(AccountingPlanError, match=r"sites\.hall\.timezone: .*'Europe/Berlim' is not a time zone"):
        load_plan(path)
    path.write_text(text.replace("17:30-20:00", "17:30-26:00"))
    with pytest.raises(AccountingPlanError, match=r"prices\.0\.hours\.1: .*'17:30-26:00' is not a range of hours"):
        load_plan(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([{"begins": "2026-01-01"}], "the first tariff must not have begins"),
        ([{}, {}], "tariff 1 must begin, on a day after that of the one before it"),
        ([{}, {"begins": "2026-02-01"}, {"begins": "2026-02-01"}], "tariff 2 must begin, on a day after"),
        ([{}, {"begins": "2026-02-01", "currency": "USD"}], "tariff 1 is in USD, and the one before it in EUR"),
    ],
)
def test_tariffs_that_do_not_follow_each_other_are_refused(changes: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        SitePlan.model_validate({"tariffs": [{**TARIFF, **change} for change in changes]})
