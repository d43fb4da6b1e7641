"""Providers of hourly emission factors: a file, or an HTTP service that is called under a resilience policy."""

import collections
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from aurum.runtime.errors import AurumError, InternalError
from aurum.sustainability.factors import Factor, FactorError, FactorProvider, checked, read_hours, stale

logger = logging.getLogger(__name__)

_REMEMBERED = 20_000  # hours of all zones
_HOURS_AT_ONCE = 240  # in one request
_GRAMS = 1000.0


class JsonSource(Protocol):
    """An HTTP client like runtime.http_client.HttpDependency. Raises AurumError."""

    async def get_json(self, path: str, params: Mapping[str, str] | None = None) -> Any: ...


class FileFactors:
    """Factors from a CSV file with the columns zone, hour, kg_per_kwh, source."""

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises FactorError or OSError."""
        with path.open(encoding="utf-8", newline="") as lines:
            self._hours = read_hours(lines, path.name)

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, Factor]:
        known = self._hours.get(zone, {})
        return {hour: known[hour] for hour in range(first, last) if hour in known}


class ElectricityMapsFactors:
    """A service with the interface of Electricity Maps: /v3/carbon-intensity/past-range, in gCO2e/kWh."""

    def __init__(self, source: JsonSource) -> None:
        self._source = source

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, Factor]:
        answer = await self._source.get_json(
            "/v3/carbon-intensity/past-range", {"zone": zone, "start": _iso(first), "end": _iso(last)}
        )
        found = {}
        for entry in _list(answer, "data", "Electricity Maps"):
            hour, grams = _entry(entry, "datetime", "carbonIntensity", "Electricity Maps")
            found[hour] = Factor(checked(grams / _GRAMS, "Electricity Maps"), "Electricity Maps", _year(hour))
        return found


class CarbonAwareFactors:
    """A service with the interface of the Green Software Foundation's Carbon Aware SDK: /emissions/bylocation."""

    def __init__(self, source: JsonSource) -> None:
        self._source = source

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, Factor]:
        answer = await self._source.get_json(
            "/emissions/bylocation", {"location": zone, "time": _iso(first), "toTime": _iso(last)}
        )
        ratings: dict[int, list[float]] = collections.defaultdict(list)
        for entry in _list(answer, None, "Carbon Aware SDK"):
            hour, grams = _entry(entry, "time", "rating", "Carbon Aware SDK")
            ratings[hour].append(grams / _GRAMS)  # there may be several in an hour
        return {
            hour: Factor(checked(sum(each) / len(each), "Carbon Aware SDK"), "Carbon Aware SDK", _year(hour))
            for hour, each in ratings.items()
        }


class LastGoodFactors:
    """Caches the factors of a provider.

    For hours without a factor it returns the latest factor of the zone, marked as stale.
    """

    def __init__(self, provider: FactorProvider) -> None:
        self._provider = provider
        self._known: collections.OrderedDict[tuple[str, int], Factor] = collections.OrderedDict()
        self._latest: dict[str, tuple[int, Factor]] = {}

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, Factor]:
        """Returns the factors of the hours, calling the provider only if some are not cached.

        Raises AurumError or FactorError only if the provider fails and no factor of the zone is cached.
        """
        problem: AurumError | FactorError | None = None
        for start in range(first, last, _HOURS_AT_ONCE):
            end = min(start + _HOURS_AT_ONCE, last)
            if all((zone, hour) in self._known for hour in range(start, end)):
                continue
            try:
                self._remember(zone, await self._provider.hourly(zone, start, end))
            except (AurumError, FactorError) as error:
                logger.warning("no emission factors for zone %s from the provider: %s", zone, error)
                problem = error
                break
        if problem is not None and zone not in self._latest:
            raise problem
        found = {}
        for hour in range(first, last):
            known = self._known.get((zone, hour))
            if known is not None:
                found[hour] = known
            elif zone in self._latest:
                found[hour] = stale(self._latest[zone][1])
        return found

    def _remember(self, zone: str, factors: Mapping[int, Factor]) -> None:
        for hour, factor in factors.items():
            self._known[zone, hour] = factor
            self._known.move_to_end((zone, hour))
            if zone not in self._latest or hour >= self._latest[zone][0]:
                self._latest[zone] = hour, factor
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _list(answer: Any, key: str | None, who: str) -> list[Any]:
    entries = answer.get(key) if key is not None and isinstance(answer, dict) else answer
    if not isinstance(entries, list):
        raise InternalError(f"{who} answered with something else than a list{f' of {key}' if key else ''}")
    return entries


def _entry(entry: Any, time_key: str, value_key: str, who: str) -> tuple[int, float]:
    try:
        moment = datetime.fromisoformat(str(entry[time_key]).replace("Z", "+00:00"))
        return int(moment.timestamp()) // 3600, float(entry[value_key])
    except (KeyError, TypeError, ValueError) as error:
        raise InternalError(
            f"{who} answered with an entry that has no {time_key} and {value_key}: {entry!r:.100}"
        ) from error


def _iso(hour: int) -> str:
    return datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _year(hour: int) -> int:
    return datetime.fromtimestamp(hour * 3600, UTC).year
