"""Providers of hourly emission factors: a file, or an HTTP service that is called under a resilience policy."""

import collections
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
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
    read_hourly_table_file,
)

logger = logging.getLogger(__name__)

_MAX_CACHED = 20_000  # hours of all zones
_LACKING_SECONDS = 900.0  # until an hour without a factor is asked for again
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
        self._hours = read_hourly_table_file(path)

    def has_zone(self, zone: str) -> bool:
        """Returns whether the file has factors for a zone."""
        return zone in self._hours

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        """Returns the factors that the file has for the hours."""
        by_hour = self._hours.get(zone, {})
        return {hour: by_hour[hour] for hour in range(first, last) if hour in by_hour}


class ElectricityMapsFactors:
    """A service with the interface of Electricity Maps: /v3/carbon-intensity/past-range, in gCO2e/kWh."""

    def __init__(self, source: JsonClient) -> None:
        self._source = source

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        """Requests the factors of the hours. Raises AurumError, or FactorError if there are only implausible ones."""
        answer = await self._source.get_json(
            "/v3/carbon-intensity/past-range", {"zone": zone, "start": _iso(first), "end": _iso(last)}
        )
        ratings = _parse_entries(
            _entries(answer, "data", "Electricity Maps"), "datetime", "carbonIntensity", "Electricity Maps"
        )
        return {hour: EmissionFactor(values[-1], "Electricity Maps", _year(hour)) for hour, values in ratings.items()}


class CarbonAwareFactors:
    """A service with the interface of the Green Software Foundation's Carbon Aware SDK: /emissions/bylocation."""

    def __init__(self, source: JsonClient) -> None:
        self._source = source

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        """Requests the factors of the hours. Raises AurumError, or FactorError if there are only implausible ones."""
        answer = await self._source.get_json(
            "/emissions/bylocation", {"location": zone, "time": _iso(first), "toTime": _iso(last)}
        )
        ratings = _parse_entries(_entries(answer, None, "Carbon Aware SDK"), "time", "rating", "Carbon Aware SDK")
        return {
            hour: EmissionFactor(sum(values) / len(values), "Carbon Aware SDK", _year(hour))  # several in an hour
            for hour, values in ratings.items()
        }


class LastGoodFactors:
    """Caches the factors of a provider by hour, so that an answer does not depend on what was asked before.

    An hour for which the provider has no factor lacks one, and is asked for again after a quarter of an hour. Only if
    the provider fails is the latest known factor of the zone used, marked as stale.

    Args:
        provider: The provider.
        clock: Returns the time in seconds.
    """

    def __init__(self, provider: FactorProvider, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        self._cached: collections.OrderedDict[tuple[str, int], EmissionFactor] = collections.OrderedDict()
        self._lacking: collections.OrderedDict[tuple[str, int], float] = collections.OrderedDict()  # until when
        self._latest: dict[str, tuple[int, EmissionFactor]] = {}

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        """Returns the factors of the hours, asking the provider for those that are not known.

        Raises:
            AurumError: The provider does not answer, and no factor of the zone is cached.
            FactorError: The provider's answer is invalid, and no factor of the zone is cached.
        """
        factors: dict[int, EmissionFactor] = {}
        failed: AurumError | FactorError | None = None
        for start in range(first, last, _HOURS_PER_REQUEST):
            hours = range(start, min(start + _HOURS_PER_REQUEST, last))
            try:
                if failed is None and not all(self._is_known(zone, hour) for hour in hours):
                    self._remember(zone, hours, await self._provider.hourly(zone, hours.start, hours.stop))
            except (AurumError, FactorError) as error:
                logger.warning(
                    "the provider gave no emission factors for zone %s; using cached ones if there are any: %s",
                    zone,
                    error,
                )
                failed = error
            # Taken at once, before the answers for later hours displace them from the cache
            factors |= {hour: self._cached[zone, hour] for hour in hours if (zone, hour) in self._cached}
        if failed is None:
            return factors
        if zone not in self._latest:
            raise failed
        stale = mark_stale(self._latest[zone][1])
        return {hour: stale for hour in range(first, last) if (zone, hour) not in self._lacking} | factors

    def _is_known(self, zone: str, hour: int) -> bool:
        return (zone, hour) in self._cached or self._lacking.get((zone, hour), -math.inf) > self._clock()

    def _remember(self, zone: str, hours: range, factors: Mapping[int, EmissionFactor]) -> None:
        until = self._clock() + _LACKING_SECONDS
        for hour in hours:
            if hour in factors:
                self._lacking.pop((zone, hour), None)
            elif (zone, hour) not in self._cached:
                self._lacking[zone, hour] = until
                self._lacking.move_to_end((zone, hour))
        for hour, factor in factors.items():
            self._cached[zone, hour] = factor
            self._cached.move_to_end((zone, hour))
            if zone not in self._latest or hour >= self._latest[zone][0]:
                self._latest[zone] = hour, factor
        for remembered in (self._cached, self._lacking):
            while len(remembered) > _MAX_CACHED:
                remembered.popitem(last=False)


def _entries(answer: Any, key: str | None, service: str) -> list[Any]:
    entries = answer.get(key) if key is not None and isinstance(answer, dict) else answer
    if not isinstance(entries, list):
        raise InternalError(f"{service} answered without a list{f' of {key}' if key else ''}")
    return entries


def _parse_entries(entries: Iterable[Any], time_key: str, value_key: str, service: str) -> dict[int, list[float]]:
    """Returns the factors in kgCO2e/kWh by hour.

    An entry with null lacks a factor. Entries that cannot be used are left out with a warning, so that only their
    hours lack a factor, unless there are no others.
    """
    by_hour: dict[int, list[float]] = collections.defaultdict(list)
    problems: list[AurumError | FactorError] = []
    for entry in entries:
        try:
            hour, grams = _parse_entry(entry, time_key, value_key, service)
            if grams is not None:
                factor = check_factor(grams / _GRAMS, service)
                by_hour[hour].append(factor)
        except (AurumError, FactorError) as error:
            problems.append(error)
    if problems and not by_hour:
        raise problems[0]
    if problems:
        logger.warning("%d entries of emission factors cannot be used: %s", len(problems), problems[0])
    return by_hour


def _parse_entry(entry: Any, time_key: str, value_key: str, service: str) -> tuple[int, float | None]:
    try:
        moment, value = datetime.fromisoformat(str(entry[time_key]).replace("Z", "+00:00")), entry[value_key]
        return int(moment.timestamp()) // 3600, None if value is None else float(value)
    except (KeyError, TypeError, ValueError) as error:
        raise InternalError(
            f"{service} answered with an entry without {time_key} and {value_key}: {entry!r:.100}"
        ) from error


def _iso(hour: int) -> str:
    return datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _year(hour: int) -> int:
    return datetime.fromtimestamp(hour * 3600, UTC).year
