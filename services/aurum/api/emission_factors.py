"""Emission factors by hour: from a provider if it has them, else from the table by year."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aurum.runtime.errors import AurumError, InvalidArgumentError
from aurum.runtime.service import Service
from aurum.runtime.settings import Settings, SettingsError
from aurum.sustainability.factors import (
    Factor,
    FactorError,
    FactorProvider,
    FactorTable,
    Method,
    built_in,
    read_table,
)
from aurum.sustainability.hourly import Floats
from aurum.sustainability.providers import CarbonAwareFactors, ElectricityMapsFactors, FileFactors, LastGoodFactors

_PROVIDER = "emission-factors"  # target name in the resilience policies


@dataclass(frozen=True, slots=True)
class EmissionFactors:
    """Emission factors from several providers and a table.

    Attributes:
        table: The factors by year, used for hours that no provider has.
        providers: The providers of hourly factors, by descending precedence.
    """

    table: FactorTable
    providers: Sequence[FactorProvider]

    async def of(self, zone: str, method: Method, first: int, count: int) -> tuple[list[Factor], str | None]:
        """Returns a factor for each hour, and a note if a provider failed and no other one has all hours.

        Args:
            zone: The grid zone.
            method: location, or residual for the residual mix. Only location uses the providers.
            first: The first hour, in hours since 1970.
            count: The number of hours.

        Raises:
            InvalidArgumentError: There is no factor for an hour.
        """
        found: dict[int, Factor] = {}
        problem = None
        if method == "location":
            for provider in self.providers:
                try:
                    given = await provider.hourly(zone, first, first + count)
                except (AurumError, FactorError) as error:
                    problem = f"hourly factors of zone {zone} are not at hand: {error}"
                    continue
                found = {**given, **found}
        hours = range(first, first + count)
        if found.keys() >= set(hours):
            problem = None
        try:
            return [found.get(hour) or self.table.of(zone, method, hour) for hour in hours], problem
        except FactorError as error:
            raise InvalidArgumentError.of("site", str(error)) from error


def numbers(factors: Sequence[Factor]) -> Floats:
    return np.array([factor.kg_per_kwh for factor in factors])


def emission_factors(service: Service) -> EmissionFactors:
    """Makes the providers and the table by the settings. Raises SettingsError if a setting or file is invalid."""
    settings = service.settings
    table = built_in()
    try:
        if settings.sustainability_factors is not None:
            with settings.sustainability_factors.open(encoding="utf-8", newline="") as lines:
                table = table.with_rows(read_table(lines, settings.sustainability_factors.name))
        providers: list[FactorProvider] = []
        if settings.sustainability_hourly_factors is not None:
            providers.append(FileFactors(settings.sustainability_hourly_factors))
    except (OSError, FactorError) as error:
        raise SettingsError(f"emission factors cannot be read: {error}") from error
    if settings.sustainability_provider != "none":
        providers.append(LastGoodFactors(_remote(service, settings)))
    return EmissionFactors(table, providers)


def _remote(service: Service, settings: Settings) -> FactorProvider:
    url = settings.sustainability_provider_url
    if not url or not url.startswith(("http://", "https://")):
        raise SettingsError(
            "AURUM_SUSTAINABILITY_PROVIDER_URL must be the start of a URL where AURUM_SUSTAINABILITY_PROVIDER is set"
        )
    key = settings.sustainability_provider_key
    headers = {"auth-token": key.get_secret_value()} if key else {}
    source = service.http_dependency(_PROVIDER, url.rstrip("/"), headers=headers)
    if settings.sustainability_provider == "carbon_aware":
        return CarbonAwareFactors(source)
    return ElectricityMapsFactors(source)
