"""Providers of hourly emission factors: a file, or an HTTP service that is called under a resilience policy."""

import collections
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from aurum.runtime.errors import AurumError, InternalError
from aurum.sustainability.factors import (
    EmissionFactor,
    FactorError,
    FactorProvider,
    check_factor,
    mark_stale,
    read_hourly_table,
)

logger = logging.getLogger(__name__)

_MAX_CACHED = 20_000  # hours of all zones
_HOURS_PER_REQUEST = 240
_GRAMS = 1000.0


class JsonClient(Protocol):
    """An HTTP client with the interface of runtime.http.client.HttpDependency."""

    async def get_json(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Returns the decoded JSON answer to a GET request. Raises AurumError if there is none."""
        ...


class FileFactors:
    """Factors from a CSV file with the columns zone, hour, kg_per_kwh, source."""

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises FactorError or OSError."""
        with path.open(encoding="utf-8", newline="") as lines:
            self._hours = read_hourly_table(lines, path.name)

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        """Returns the factors that the file has for the hours."""
        by_hour = self._hours.get(zone, {})
        return {hour: by_hour[hour] for hour in range(first, last) if hour in by_hour}


class ElectricityMapsFactors:
    """A service with the interface of Electricity Maps: /v3/carbon-intensity/past-range, in gCO2e/kWh."""

    def __init__(self, source: JsonClient) -> None:
        self._source = source

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        """Requests the factors of the hours. Raises AurumError, or FactorError for an implausible factor."""
        answer = await self._source.get_json(
            "/v3/carbon-intensity/past-range", {"zone": zone, "start": _iso(first), "end": _iso(last)}
        )
        factors = {}
        for entry in _entries(answer, "data", "Electricity Maps"):
            hour, grams = _parse_entry(entry, "datetime", "carbonIntensity", "Electricity Maps")
            factors[hour] = EmissionFactor(
                check_factor(grams / _GRAMS, "Electricity Maps"), "Electricity Maps", _year(hour)
            )
        return factors


class CarbonAwareFactors:
    """A service with the interface of the Green Software Foundation's Carbon Aware SDK: /emissions/bylocation."""

    def __init__(self, source: JsonClient) -> None:
        self._source = source

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        """Requests the factors of the hours. Raises AurumError, or FactorError for an implausible factor."""
        answer = await self._source.get_json(
            "/emissions/bylocation", {"location": zone, "time": _iso(first), "toTime": _iso(last)}
        )
        ratings: dict[int, list[float]] = collections.defaultdict(list)
        for entry in _entries(answer, None, "Carbon Aware SDK"):
            hour, grams = _parse_entry(entry, "time", "rating", "Carbon Aware SDK")
            ratings[hour].append(grams / _GRAMS)  # there may be several in an hour
        return {
            hour: EmissionFactor(
                check_factor(sum(values) / len(values), "Carbon Aware SDK"), "Carbon Aware SDK", _year(hour)
            )
            for hour, values in ratings.items()
        }


class LastGoodFactors:
    """Caches the factors of a provider.

    For hours without a factor it returns the latest factor of the zone, marked as stale.
    """

    def __init__(self, provider: FactorProvider) -> None:
        self._provider = provider
        self._cached: collections.OrderedDict[tuple[str, int], EmissionFactor] = collections.OrderedDict()
        self._latest: dict[str, tuple[int, EmissionFactor]] = {}

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        """Returns the factors of the hours, calling the provider only if some are not cached.

        Raises:
            AurumError: The provider does not answer, and no factor of the zone is cached.
            FactorError: The provider's answer is invalid, and no factor of the zone is cached.
        """
        failure: AurumError | FactorError | None = None
        for start in range(first, last, _HOURS_PER_REQUEST):
            end = min(start + _HOURS_PER_REQUEST, last)
            if all((zone, hour) in self._cached for hour in range(start, end)):
                continue
            try:
                self._remember(zone, await self._provider.hourly(zone, start, end))
            except (AurumError, FactorError) as error:
                logger.warning(
                    "the provider gave no emission factors for zone %s; using cached ones if there are any: %s",
                    zone,
                    error,
                )
                failure = error
                break
        if failure is not None and zone not in self._latest:
            raise failure
        factors = {}
        for hour in range(first, last):
            cached = self._cached.get((zone, hour))
            if cached is not None:
                factors[hour] = cached
            elif zone in self._latest:
                factors[hour] = mark_stale(self._latest[zone][1])
        return factors

    def _remember(self, zone: str, factors: Mapping[int, EmissionFactor]) -> None:
        for hour, factor in factors.items():
            self._cached[zone, hour] = factor
            self._cached.move_to_end((zone, hour))
            if zone not in self._latest or hour >= self._latest[zone][0]:
                self._latest[zone] = hour, factor
        while len(self._cached) > _MAX_CACHED:
            self._cached.popitem(last=False)


def _entries(answer: Any, key: str | None, service: str) -> list[Any]:
    entries = answer.get(key) if key is not None and isinstance(answer, dict) else answer
    if not isinstance(entries, list):
        raise InternalError(f"{service} answered without a list{f' of {key}' if key else ''}")
    return entries


def _parse_entry(entry: Any, time_key: str, value_key: str, service: str) -> tuple[int, float]:
    try:
        moment = datetime.fromisoformat(str(entry[time_key]).replace("Z", "+00:00"))
        return int(moment.timestamp()) // 3600, float(entry[value_key])
    except (KeyError, TypeError, ValueError) as error:
        raise InternalError(
            f"{service} answered with an entry without {time_key} and {value_key}: {entry!r:.100}"
        ) from error


def _iso(hour: int) -> str:
    return datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _year(hour: int) -> int:
    return datetime.fromtimestamp(hour * 3600, UTC).year
