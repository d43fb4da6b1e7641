"""Emission factors of electricity by zone and by year or hour, with their source."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

Method = Literal["location", "residual"]
METHODS: tuple[Method, ...] = ("location", "residual")

_TABLE = Path(__file__).with_name("emission_factors.csv")
_COLUMNS = ("zone", "method", "year", "kg_per_kwh", "source")
_HOURLY_COLUMNS = ("zone", "hour", "kg_per_kwh", "source")
_MAX_FACTOR = 3.0  # kgCO2e/kWh; lignite has less than half of it, so a larger number is in another unit


class FactorError(ValueError):
    """An emission factor is missing or invalid. The message names it and says what is required."""


@dataclass(frozen=True, slots=True)
class EmissionFactor:
    """An emission factor of electricity.

    Attributes:
        kg_per_kwh: The factor in kgCO2e/kWh.
        source: The publication that it is from.
        year: The year for which it was published.
        method: Whether it is that of the local grid or of the residual mix.
        stale: Whether it belongs to another hour, because the provider did not answer.
        missing: Whether it is that of the year, because the provider has none for this hour.
    """

    kg_per_kwh: float
    source: str
    year: int
    method: Method = "location"
    stale: bool = False
    missing: bool = False


class FactorProvider(Protocol):
    """A provider of hourly emission factors."""

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, EmissionFactor]:
        """Returns the factors of a zone by hour for [first, last), in hours since 1970. Hours may be missing.

        Raises:
            FactorError: The answer is invalid.
            AurumError: The provider does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class FactorTable:
    """Factors by zone, method and year."""

    factors: Mapping[tuple[str, Method], Mapping[int, EmissionFactor]]

    @property
    def zones(self) -> list[str]:
        """The zones for which the table has factors, sorted."""
        return sorted({zone for zone, _ in self.factors})

    def factor_for(self, zone: str, method: Method, hour: int) -> EmissionFactor:
        """Returns the factor for an hour: of its year, else of the latest earlier year, else of the first year.

        If a zone has no residual mix, the grid's factor is returned.

        Raises:
            FactorError: There is no factor for the zone.
        """
        by_year = self.factors.get((zone, method))
        if by_year is None:
            if method == "residual":
                return self.factor_for(zone, "location", hour)
            raise FactorError(
                f"there is no emission factor for zone {zone!r}; the zones are {', '.join(self.zones)}, and others "
                f"can be added with AURUM_SUSTAINABILITY_FACTORS"
            )
        year = datetime.fromtimestamp(hour * 3600, UTC).year
        earlier = [published for published in by_year if published <= year]
        return by_year[max(earlier) if earlier else min(by_year)]

    def with_rows(self, other: "FactorTable") -> "FactorTable":
        """Returns a table with the zones and methods of another one added to, or replacing, those of this one."""
        return FactorTable({**self.factors, **other.factors})


@cache
def built_in_table() -> FactorTable:
    """Returns the built-in table of national means with their sources."""
    with _TABLE.open(encoding="utf-8", newline="") as lines:
        return read_table(lines, _TABLE.name)


def read_table(lines: Iterable[str], name: str) -> FactorTable:
    """Reads a CSV table with the columns zone, method (location or residual), year, kg_per_kwh and source.

    Args:
        lines: The lines of the table, the header first.
        name: The name of the table in errors.

    Raises:
        FactorError: The table is invalid. The message names the row and the column.
    """
    factors: dict[tuple[str, Method], dict[int, EmissionFactor]] = {}
    for row, cells in _rows(lines, name, _COLUMNS):
        method = next((name for name in METHODS if name == cells["method"]), None)
        if method is None:
            raise FactorError(f"{name}, row {row}, method: {cells['method']!r} is not one of {', '.join(METHODS)}")
        if not cells["year"].isdigit():
            raise FactorError(f"{name}, row {row}, year: {cells['year']!r} is not a year")
        factor = EmissionFactor(
            _parse_factor(cells["kg_per_kwh"], name, row), cells["source"], int(cells["year"]), method
        )
        factors.setdefault((cells["zone"], method), {})[factor.year] = factor
    return FactorTable(factors)


def read_hourly_table(lines: Iterable[str], name: str) -> dict[str, dict[int, EmissionFactor]]:
    """Reads a CSV table with the columns zone, hour (ISO 8601), kg_per_kwh and source.

    Args:
        lines: The lines of the table, the header first.
        name: The name of the table in errors.

    Returns:
        For each zone, the factors by hour since 1970.

    Raises:
        FactorError: The table is invalid. The message names the row and the column.
    """
    by_zone: dict[str, dict[int, EmissionFactor]] = {}
    for row, cells in _rows(lines, name, _HOURLY_COLUMNS):
        try:
            moment = datetime.fromisoformat(cells["hour"])
        except ValueError:
            raise FactorError(f"{name}, row {row}, hour: {cells['hour']!r} is not a time in ISO 8601") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        factor = EmissionFactor(_parse_factor(cells["kg_per_kwh"], name, row), cells["source"], moment.year)
        by_zone.setdefault(cells["zone"], {})[int(moment.timestamp()) // 3600] = factor
    return by_zone


def mark_stale(factor: EmissionFactor) -> EmissionFactor:
    """Returns a factor that is marked as stale."""
    return replace(factor, stale=True)


def mark_missing(factor: EmissionFactor) -> EmissionFactor:
    """Returns a yearly factor that is marked as standing in for one that the provider does not have."""
    return replace(factor, missing=True)


def check_factor(kg_per_kwh: float, where: str) -> float:
    """Returns a factor in kgCO2e/kWh. Raises FactorError, which names `where`, if it is not plausible."""
    if not 0 <= kg_per_kwh <= _MAX_FACTOR:
        raise FactorError(f"{where}: {kg_per_kwh:g} is not plausible; a factor is from 0 to {_MAX_FACTOR:g} kg/kWh")
    return kg_per_kwh


def _rows(lines: Iterable[str], name: str, columns: tuple[str, ...]) -> Iterable[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(lines)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise FactorError(f"{name}, row 1: lacks the column {missing[0]}; the columns must be {', '.join(columns)}")
    for cells in reader:
        if any(cells[column] is None for column in columns):
            raise FactorError(f"{name}, row {reader.line_num}: has too few cells")
        yield reader.line_num, {column: str(cells[column]).strip() for column in columns}


def _parse_factor(text: str, name: str, row: int) -> float:
    try:
        number = float(text)
    except ValueError:
        raise FactorError(f"{name}, row {row}, kg_per_kwh: {text!r} is not a number") from None
    return check_factor(number, f"{name}, row {row}, kg_per_kwh")
