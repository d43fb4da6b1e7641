"""Emission factors by hour: from a provider if it has them, else from the table by year."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from aurum.api.settings import ApiSettings
from aurum.runtime.errors import AurumError, InvalidArgumentError
from aurum.runtime.service import Service
from aurum.runtime.settings import SettingsError
from aurum.sustainability.factors import (
    EmissionFactor,
    FactorError,
    FactorProvider,
    FactorTable,
    Method,
    built_in_table,
    mark_missing,
    read_table_file,
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

    async def factors_for(
        self, zone: str, method: Method, first: int, count: int
    ) -> tuple[list[EmissionFactor], str | None]:
        """Returns a factor for each hour, and a note if a provider failed and the others lack an hour.

        An hour that the providers lack has the factor of its year, marked as missing. If the table does not have the
        zone, its factor is NaN.

        Args:
            zone: The grid zone.
            method: location, or residual for the residual mix. Only location uses the providers.
            first: The first hour, in hours since 1970.
            count: The number of hours.

        Raises:
            InvalidArgumentError: There is no factor for any hour.
        """
        by_hour: dict[int, EmissionFactor] = {}
        problem = None
        providers = self._providers_for(zone) if method == "location" else []
        for provider in providers:
            try:
                provided = await provider.hourly(zone, first, first + count)
            except (AurumError, FactorError) as error:
                problem = f"hourly factors of zone {zone} are unavailable: {error}"
                continue
            by_hour = {**provided, **by_hour}
        hours = range(first, first + count)
        if by_hour.keys() >= set(hours):
            problem = None
        try:
            return [
                by_hour.get(hour) or self._yearly(zone, method, hour, missing=bool(providers), required=not by_hour)
                for hour in hours
            ], problem
        except FactorError as error:
            raise InvalidArgumentError.for_field("site", str(error)) from error

    def _providers_for(self, zone: str) -> list[FactorProvider]:
        """Returns the providers of a zone's factors; a file of other zones is none of them."""
        return [each for each in self.providers if not isinstance(each, FileFactors) or each.has_zone(zone)]

    def _yearly(self, zone: str, method: Method, hour: int, *, missing: bool, required: bool) -> EmissionFactor:
        try:
            factor = self.table.factor_for(zone, method, hour)
        except FactorError:
            if required:
                raise
            return EmissionFactor(math.nan, "unknown", datetime.fromtimestamp(hour * 3600, UTC).year, missing=True)
        return mark_missing(factor) if missing else factor


def factor_values(factors: Sequence[EmissionFactor]) -> Floats:
    """Returns the factors as numbers in kgCO2e/kWh; NaN if one is not known."""
    return np.array([factor.kg_per_kwh for factor in factors])


def load_emission_factors(service: Service[ApiSettings]) -> EmissionFactors:
    """Returns the emission factors that the settings name. Raises SettingsError if a setting or file is invalid."""
    settings = service.settings
    table = built_in_table()
    try:
        if settings.sustainability_factors is not None:
            table = table.with_rows(read_table_file(settings.sustainability_factors))
        providers: list[FactorProvider] = []
        if settings.sustainability_hourly_factors is not None:
            providers.append(FileFactors(settings.sustainability_hourly_factors))
    except (OSError, FactorError) as error:
        raise SettingsError(f"emission factors cannot be read: {error}") from error
    if settings.sustainability_provider != "none":
        providers.append(LastGoodFactors(_remote_provider(service, settings)))
    return EmissionFactors(table, providers)


def _remote_provider(service: Service[ApiSettings], settings: ApiSettings) -> FactorProvider:
    url = settings.sustainability_provider_url
    if not url or not url.startswith(("http://", "https://")):
        raise SettingsError(
            "AURUM_SUSTAINABILITY_PROVIDER_URL must be the base URL of the service, since "
            "AURUM_SUSTAINABILITY_PROVIDER is set"
        )
    key = settings.sustainability_provider_key
    headers = {"auth-token": key.get_secret_value()} if key else {}
    client = service.http_dependency(_PROVIDER, url.rstrip("/"), headers=headers)
    if settings.sustainability_provider == "carbon_aware":
        return CarbonAwareFactors(client)
    return ElectricityMapsFactors(client)
