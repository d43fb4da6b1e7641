"""Providers of hourly emission factors: requests, parsing of responses, and caching of the last good factors."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aurum.api.emission_factors import EmissionFactors
from aurum.runtime.errors import AurumError, InternalError, InvalidArgumentError, UnavailableError
from aurum.sustainability.factors import EmissionFactor, FactorError, FactorProvider, FactorTable, built_in_table
from aurum.sustainability.providers import CarbonAwareFactors, ElectricityMapsFactors, FileFactors, LastGoodFactors

HOUR = 470_000  # 2023-08-14T08:00Z
NEW_YEAR = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) // 3600
MAPS, AWARE = "Electricity Maps", "Carbon Aware SDK"


class Answering:
    """Gives one answer, and keeps what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Mapping[str, str] | None]] = []

    async def get_json(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        self.asked.append((path, params))
        return self.answer


class Telling:
    """Tells the factors that it has, or fails with a problem; keeps the ranges that it was asked for."""

    def __init__(self, factors: Mapping[int, float]) -> None:
        self.factors = dict(factors)
        self.problem: Exception | None = None
        self.asked: list[tuple[str, int, int]] = []

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        self.asked.append((zone, first, last))
        if self.problem is not None:
            raise self.problem
        told = (hour for hour in range(first, last) if hour in self.factors)
        return {hour: EmissionFactor(self.factors[hour], "told", 2023) for hour in told}


def kilograms(factors: Mapping[int, EmissionFactor]) -> dict[int, tuple[float, bool]]:
    return {hour: (factor.kg_per_kwh, factor.stale) for hour, factor in factors.items()}


@pytest.mark.usefixtures("far_east")
async def test_electricity_maps_request_uses_utc_range() -> None:
    source = Answering({"data": []})
    assert await ElectricityMapsFactors(source).hourly("DE", NEW_YEAR - 1, NEW_YEAR + 2) == {}
    range_asked = {"zone": "DE", "start": "2023-12-31T23:00:00Z", "end": "2024-01-01T02:00:00Z"}
    assert source.asked == [("/v3/carbon-intensity/past-range", range_asked)]


@pytest.mark.usefixtures("far_east")
async def test_carbon_aware_request_uses_utc_range() -> None:
    source = Answering([])
    assert await CarbonAwareFactors(source).hourly("eastus", NEW_YEAR - 1, NEW_YEAR + 2) == {}
    range_asked = {"location": "eastus", "time": "2023-12-31T23:00:00Z", "toTime": "2024-01-01T02:00:00Z"}
    assert source.asked == [("/emissions/bylocation", range_asked)]


@pytest.mark.usefixtures("far_east")
async def test_electricity_maps_factors_have_every_field() -> None:
    entries = [
        {"datetime": "2023-12-31T23:00:00.000Z", "carbonIntensity": 302},
        {"datetime": "2024-01-01T02:59:00+02:00", "carbonIntensity": "450.5"},
        {"datetime": "2024-01-01T01:00:00Z", "carbonIntensity": 0},
    ]
    expected = {
        NEW_YEAR - 1: EmissionFactor(0.302, MAPS, 2023),
        NEW_YEAR: EmissionFactor(0.4505, MAPS, 2024),
        NEW_YEAR + 1: EmissionFactor(0.0, MAPS, 2024),
    }
    for answer in ({"data": entries}, entries):
        assert await ElectricityMapsFactors(Answering(answer)).hourly("DE", NEW_YEAR - 1, NEW_YEAR + 2) == expected


@pytest.mark.usefixtures("far_east")
async def test_carbon_aware_factors_are_hourly_means() -> None:
    entries = [
        {"time": "2023-12-31T23:00:00Z", "rating": 100},
        {"time": "2023-12-31T23:30:00Z", "rating": 200},
        {"time": "2024-01-01T00:15:00+00:00", "rating": 500},
        {"time": "2023-12-31T23:59:59Z", "rating": 600},
    ]
    assert await CarbonAwareFactors(Answering(entries)).hourly("eastus", NEW_YEAR - 1, NEW_YEAR + 1) == {
        NEW_YEAR - 1: EmissionFactor(0.3, AWARE, 2023),
        NEW_YEAR: EmissionFactor(0.5, AWARE, 2024),
    }


@pytest.mark.parametrize("answer", [{"data": None}, {"other": []}, {}, "data", None, {"data": {"a": 1}}])
async def test_electricity_maps_response_must_be_a_list(answer: Any) -> None:
    with pytest.raises(InternalError) as caught:
        await ElectricityMapsFactors(Answering(answer)).hourly("DE", HOUR, HOUR + 1)
    assert caught.value.message == "Electricity Maps answered without a list of data"


@pytest.mark.parametrize("answer", [{"data": []}, None, "x"])
async def test_carbon_aware_response_must_be_a_list(answer: Any) -> None:
    with pytest.raises(InternalError) as caught:
        await CarbonAwareFactors(Answering(answer)).hourly("eastus", HOUR, HOUR + 1)
    assert caught.value.message == "Carbon Aware SDK answered without a list"


@pytest.mark.parametrize(
    "entry",
    [{}, {"datetime": "2023-08-14T08:00Z"}, {"datetime": "x", "carbonIntensity": 1}, {"carbonIntensity": 1}, 7, None],
)
async def test_invalid_electricity_maps_entry_is_quoted_in_error(entry: Any) -> None:
    with pytest.raises(InternalError) as caught:
        await ElectricityMapsFactors(Answering([entry])).hourly("DE", HOUR, HOUR + 1)
    assert caught.value.message == (
        f"Electricity Maps answered with an entry without datetime and carbonIntensity: {entry!r}"
    )


async def test_invalid_carbon_aware_entry_is_truncated_in_error() -> None:
    entry = {"time": "2023-08-14T08:00Z", "rating": "x" * 200}
    with pytest.raises(InternalError) as caught:
        await CarbonAwareFactors(Answering([entry])).hourly("eastus", HOUR, HOUR + 1)
    told = "Carbon Aware SDK answered with an entry without time and rating: "
    assert caught.value.message == told + repr(entry)[:100]


async def test_factor_outside_limits_is_reported_with_provider() -> None:
    moment = "2023-08-14T08:00Z"
    with pytest.raises(FactorError, match=r"^Electricity Maps: 3\.5 is not plausible"):
        await ElectricityMapsFactors(Answering([{"datetime": moment, "carbonIntensity": 3500}])).hourly("D", HOUR, HOUR)
    with pytest.raises(FactorError, match=r"^Carbon Aware SDK: -0\.1 is not plausible"):
        await CarbonAwareFactors(Answering([{"time": moment, "rating": -100}])).hourly("D", HOUR, HOUR)


async def test_known_hours_are_returned_without_request() -> None:
    provider = Telling(dict.fromkeys(range(HOUR, HOUR + 4), 0.2))
    factors = LastGoodFactors(provider)
    first = await factors.hourly("X", HOUR, HOUR + 4)
    assert kilograms(first) == dict.fromkeys(range(HOUR, HOUR + 4), (0.2, False))
    assert await factors.hourly("X", HOUR + 1, HOUR + 3) == {hour: first[hour] for hour in (HOUR + 1, HOUR + 2)}
    assert provider.asked == [("X", HOUR, HOUR + 4)]
    await factors.hourly("Y", HOUR, HOUR + 4)
    await factors.hourly("X", HOUR + 3, HOUR + 5)
    assert provider.asked[1:] == [("Y", HOUR, HOUR + 4), ("X", HOUR + 3, HOUR + 5)]


async def test_long_range_is_requested_in_240_hour_chunks() -> None:
    provider = Telling(dict.fromkeys(range(HOUR, HOUR + 600), 0.2))
    factors = LastGoodFactors(provider)
    await factors.hourly("X", HOUR + 240, HOUR + 480)
    assert len(await factors.hourly("X", HOUR, HOUR + 500)) == 500
    parts = [(HOUR + 240, HOUR + 480), (HOUR, HOUR + 240), (HOUR + 480, HOUR + 500)]  # the second is known by then
    assert provider.asked == [("X", *part) for part in parts]


async def test_empty_range_sends_no_request() -> None:
    provider = Telling({HOUR: 0.2})
    assert await LastGoodFactors(provider).hourly("X", HOUR, HOUR) == {}
    assert provider.asked == []


async def test_hour_without_factor_lacks_it_whatever_was_asked() -> None:
    """Ranges that contain it and were asked before, in any order, do not change the answer."""
    known = {HOUR + hour: 0.1 + hour / 100 for hour in range(6) if hour != 3}
    expected = {hour: (value, False) for hour, value in known.items()}
    for before in ([], [(0, 3)], [(4, 6), (0, 1)], [(3, 4)], [(0, 6), (2, 5)]):
        factors = LastGoodFactors(Telling(known))
        for first, last in before:
            await factors.hourly("X", HOUR + first, HOUR + last)
        assert kilograms(await factors.hourly("X", HOUR, HOUR + 6)) == expected


async def test_hour_without_factor_is_asked_again_after_a_while() -> None:
    now = 0.0
    provider = Telling({HOUR: 0.2})
    factors = LastGoodFactors(provider, lambda: now)
    assert kilograms(await factors.hourly("X", HOUR, HOUR + 2)) == {HOUR: (0.2, False)}
    provider.factors[HOUR + 1] = 0.3
    now = 899.0
    assert kilograms(await factors.hourly("X", HOUR, HOUR + 2)) == {HOUR: (0.2, False)}
    assert len(provider.asked) == 1
    now = 900.0
    assert kilograms(await factors.hourly("X", HOUR, HOUR + 2)) == {HOUR: (0.2, False), HOUR + 1: (0.3, False)}
    provider.problem = UnavailableError("is away")
    assert kilograms(await factors.hourly("X", HOUR, HOUR + 2)) == {HOUR: (0.2, False), HOUR + 1: (0.3, False)}


async def test_hour_known_to_lack_a_factor_is_not_stale_in_outage() -> None:
    provider = Telling({HOUR: 0.2})
    factors = LastGoodFactors(provider)
    await factors.hourly("X", HOUR, HOUR + 2)
    provider.problem = UnavailableError("is away")
    assert kilograms(await factors.hourly("X", HOUR, HOUR + 3)) == {HOUR: (0.2, False), HOUR + 2: (0.2, True)}


@pytest.mark.parametrize(
    ("key", "source"), [("carbonIntensity", ElectricityMapsFactors), ("rating", CarbonAwareFactors)]
)
async def test_unusable_entry_costs_only_its_own_hour(
    key: str, source: Callable[[Any], FactorProvider], caplog: pytest.LogCaptureFixture
) -> None:
    values: list[Any] = [200, None, 9e6, "many", 300]
    moment = "datetime" if key == "carbonIntensity" else "time"
    entries: list[Any] = [{moment: f"2023-08-14T{8 + index:02}:00Z", key: value} for index, value in enumerate(values)]
    entries.append({moment: "2023-08-14T13:00Z"})
    answer = {"data": entries} if key == "carbonIntensity" else entries
    found = await source(Answering(answer)).hourly("DE", HOUR, HOUR + 6)
    assert kilograms(found) == {HOUR: (0.2, False), HOUR + 4: (0.3, False)}
    (message,) = caplog.messages
    assert message.startswith("3 entries of emission factors cannot be used: ")


async def test_answer_of_nulls_only_has_no_factors() -> None:
    entries = [{"datetime": "2023-08-14T08:00Z", "carbonIntensity": None}]
    assert await ElectricityMapsFactors(Answering({"data": entries})).hourly("DE", HOUR, HOUR + 1) == {}


async def test_updated_hour_replaces_cached_factor() -> None:
    provider = Telling({HOUR: 0.2})
    factors = LastGoodFactors(provider)
    await factors.hourly("X", HOUR, HOUR + 1)
    provider.factors[HOUR] = 0.3
    assert kilograms(await factors.hourly("X", HOUR, HOUR + 2)) == {HOUR: (0.3, False)}


async def test_zone_without_data_has_no_factors() -> None:
    factors = LastGoodFactors(Telling({}))
    assert await factors.hourly("X", HOUR, HOUR + 2) == {}


@pytest.mark.parametrize("problem", [UnavailableError("is away"), FactorError("wrong unit")])
async def test_provider_failure_is_masked_by_last_good_factor(problem: Exception) -> None:
    provider = Telling({HOUR: 0.2})
    factors = LastGoodFactors(provider)
    provider.problem = problem
    with pytest.raises((AurumError, FactorError)) as caught:
        await factors.hourly("X", HOUR, HOUR + 1)
    assert caught.value is problem
    provider.problem = None
    await factors.hourly("X", HOUR, HOUR + 1)
    provider.problem = problem
    assert kilograms(await factors.hourly("X", HOUR - 1, HOUR + 1)) == {HOUR - 1: (0.2, True), HOUR: (0.2, False)}
    with pytest.raises((AurumError, FactorError)):
        await factors.hourly("Y", HOUR, HOUR + 1)


async def test_unexpected_provider_error_is_propagated() -> None:
    provider = Telling({HOUR: 0.2})
    factors = LastGoodFactors(provider)
    await factors.hourly("X", HOUR, HOUR + 1)
    provider.problem = KeyError("a fault in the provider")
    with pytest.raises(KeyError):
        await factors.hourly("X", HOUR, HOUR + 2)


async def test_failed_provider_receives_no_further_requests() -> None:
    provider = Telling({HOUR: 0.2})
    factors = LastGoodFactors(provider)
    await factors.hourly("X", HOUR, HOUR + 1)
    provider.problem = UnavailableError("is away")
    found = await factors.hourly("X", HOUR, HOUR + 700)
    assert provider.asked[1:] == [("X", HOUR, HOUR + 240)]
    assert len(found) == 700
    assert sum(factor.stale for factor in found.values()) == 699


async def test_provider_failure_logs_zone_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    provider = Telling({})
    provider.problem = FactorError("wrong unit")
    with pytest.raises(FactorError):
        await LastGoodFactors(provider).hourly("X", HOUR, HOUR + 1)
    assert caplog.messages == [
        "the provider gave no emission factors for zone X; using cached ones if there are any: wrong unit"
    ]


async def test_factor_cache_evicts_oldest_of_20000_hours() -> None:
    """Oldest by when it was told last, not by its hour."""
    provider = Telling(dict.fromkeys(range(HOUR, HOUR + 20_000), 0.2))
    factors = LastGoodFactors(provider)
    await factors.hourly("X", HOUR, HOUR + 20_000)
    provider.factors = {HOUR: 0.2, HOUR - 1: 0.2}
    asked = len(provider.asked)
    await factors.hourly("X", HOUR, HOUR + 2)
    assert len(provider.asked) == asked  # all are known yet
    await factors.hourly("X", HOUR - 1, HOUR + 1)  # tells HOUR again, and one more than there is room for
    await factors.hourly("X", HOUR - 1, HOUR + 1)
    await factors.hourly("X", HOUR + 2, HOUR + 4)
    await factors.hourly("X", HOUR + 19_998, HOUR + 20_000)
    assert provider.asked[asked:] == [("X", HOUR - 1, HOUR + 1)]
    await factors.hourly("X", HOUR + 1, HOUR + 2)
    assert provider.asked[-1] == ("X", HOUR + 1, HOUR + 2)


async def test_failing_provider_is_noted_only_if_hours_are_missing() -> None:
    """A provider's failure is noted if the table is used for an hour, not if another provider has all hours."""
    failing, answering = Telling({}), Telling({HOUR: 0.1, HOUR + 1: 0.2})
    failing.problem = UnavailableError("it is down")
    for providers in ((failing, answering), (answering, failing)):
        factors = EmissionFactors(built_in_table(), providers)
        hourly, note = await factors.factors_for("WORLD", "location", HOUR, 2)
        assert ([factor.kg_per_kwh for factor in hourly], note) == ([0.1, 0.2], None)
        hourly, note = await factors.factors_for("WORLD", "location", HOUR, 3)
        assert [factor.kg_per_kwh for factor in hourly[:2]] == [0.1, 0.2]
        assert note == "hourly factors of zone WORLD are unavailable: it is down"


async def test_hour_without_provider_factor_is_marked_missing() -> None:
    """It has the factor of its year; without one it has none, and is never zero."""
    factors = EmissionFactors(built_in_table(), [Telling({HOUR: 0.1, HOUR + 2: 0.3})])
    hourly, note = await factors.factors_for("WORLD", "location", HOUR, 3)
    assert note is None
    assert [factor.missing for factor in hourly] == [False, True, False]
    assert hourly[1].kg_per_kwh == built_in_table().factor_for("WORLD", "location", HOUR).kg_per_kwh
    hourly, _ = await EmissionFactors(FactorTable({}), factors.providers).factors_for("X", "location", HOUR, 3)
    assert [factor.missing for factor in hourly] == [False, True, False]
    assert [factor.kg_per_kwh for factor in hourly] == [0.1, pytest.approx(float("nan"), nan_ok=True), 0.3]
    with pytest.raises(InvalidArgumentError):
        await EmissionFactors(FactorTable({}), factors.providers).factors_for("X", "location", HOUR + 1, 1)


async def test_file_of_other_zones_makes_no_hour_missing(tmp_path: Path) -> None:
    path = tmp_path / "hours.csv"
    path.write_text("zone,hour,kg_per_kwh,source\nDE,2023-08-14T08:00:00Z,0.25,grid operator\n")
    factors = EmissionFactors(built_in_table(), [FileFactors(path)])
    for zone, missing in (("WORLD", [False, False]), ("DE", [False, True])):
        hourly, _ = await factors.factors_for(zone, "location", HOUR, 2)
        assert [factor.missing for factor in hourly] == missing
