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
_LARGEST = 3.0  # kgCO2e/kWh; even lignite has less than half of it, so a larger number is in another unit


class FactorError(ValueError):
    """A factor is missing or invalid. The message says which one and what is needed."""


@dataclass(frozen=True, slots=True)
class Factor:
    """An emission factor.

    Attributes:
        kg_per_kwh: The factor in kgCO2e/kWh.
        source: Where it was published.
        year: The year for which it was published.
        method: Whether it is that of the local grid or of the residual mix.
        stale: Whether it is an earlier factor, because the provider had none for the hour.
    """

    kg_per_kwh: float
    source: str
    year: int
    method: Method = "location"
    stale: bool = False


class FactorProvider(Protocol):
    """A provider of hourly factors. Raises FactorError, or AurumError if the provider does not answer."""

    async def hourly(self, zone: str, first: int, last: int) -> dict[int, Factor]:
        """Returns factors by hour for [first, last), in hours since 1970. Hours may be missing."""
        ...


@dataclass(frozen=True, slots=True)
class FactorTable:
    """Factors by zone, method and year."""

    factors: Mapping[tuple[str, Method], Mapping[int, Factor]]

    @property
    def zones(self) -> list[str]:
        return sorted({zone for zone, _ in self.factors})

    def of(self, zone: str, method: Method, hour: int) -> Factor:
        """Returns the factor for an hour: of its year, else of the latest earlier year, else of the first year.

        If a zone has no residual mix, the grid's factor is returned.

        Raises:
            FactorError: There is no factor for the zone.
        """
        by_year = self.factors.get((zone, method))
        if by_year is None:
            if method == "residual":
                return self.of(zone, "location", hour)
            raise FactorError(
                f"there is no emission factor for zone {zone!r}; there are factors for {', '.join(self.zones)}, and "
                f"more can be given in a file"
            )
        year = datetime.fromtimestamp(hour * 3600, UTC).year
        earlier = [each for each in by_year if each <= year]
        return by_year[max(earlier) if earlier else min(by_year)]

    def with_rows(self, other: "FactorTable") -> "FactorTable":
        """Returns a table with the zones and methods of another one added to, or replacing, those of this one."""
        return FactorTable({**self.factors, **other.factors})


@cache
def built_in() -> FactorTable:
    """Returns the built-in table, which has some national means with their sources."""
    with _TABLE.open(encoding="utf-8", newline="") as lines:
        return read_table(lines, _TABLE.name)


def read_table(lines: Iterable[str], name: str) -> FactorTable:
    """Reads a CSV table with zone, method (location or residual), year, kg_per_kwh and source. Raises FactorError."""
    factors: dict[tuple[str, Method], dict[int, Factor]] = {}
    for row, cells in _rows(lines, name, _COLUMNS):
        method = next((each for each in METHODS if each == cells["method"]), None)
        if method is None:
            raise FactorError(f"{name}, row {row}, method: {cells['method']!r} is not one of {', '.join(METHODS)}")
        if not cells["year"].isdigit():
            raise FactorError(f"{name}, row {row}, year: {cells['year']!r} is no year")
        factor = Factor(_kg(cells["kg_per_kwh"], name, row), cells["source"], int(cells["year"]), method)
        factors.setdefault((cells["zone"], method), {})[factor.year] = factor
    return FactorTable(factors)


def read_hours(lines: Iterable[str], name: str) -> dict[str, dict[int, Factor]]:
    """Reads a CSV table with zone, hour (ISO 8601), kg_per_kwh and source.

    Returns:
        For each zone, the factors by hour since 1970.

    Raises:
        FactorError: The table is invalid.
    """
    found: dict[str, dict[int, Factor]] = {}
    for row, cells in _rows(lines, name, _HOURLY_COLUMNS):
        try:
            moment = datetime.fromisoformat(cells["hour"])
        except ValueError:
            raise FactorError(f"{name}, row {row}, hour: {cells['hour']!r} is no time as ISO 8601 has it") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        factor = Factor(_kg(cells["kg_per_kwh"], name, row), cells["source"], moment.year)
        found.setdefault(cells["zone"], {})[int(moment.timestamp()) // 3600] = factor
    return found


def stale(factor: Factor) -> Factor:
    return replace(factor, stale=True)


def checked(kg_per_kwh: float, where: str) -> float:
    """Returns the factor. Raises FactorError if it is out of range."""
    if not 0 <= kg_per_kwh <= _LARGEST:
        raise FactorError(f"{where}: {kg_per_kwh:g} is no factor in kg/kWh; it has to be from 0 to {_LARGEST:g}")
    return kg_per_kwh


def _rows(lines: Iterable[str], name: str, columns: tuple[str, ...]) -> Iterable[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(lines)
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise FactorError(f"{name}, row 1: lacks the column {missing[0]}; it has to have {', '.join(columns)}")
    for cells in reader:
        if any(cells[column] is None for column in columns):
            raise FactorError(f"{name}, row {reader.line_num}: has too few cells")
        yield reader.line_num, {column: str(cells[column]).strip() for column in columns}


def _kg(text: str, name: str, row: int) -> float:
    try:
        number = float(text)
    except ValueError:
        raise FactorError(f"{name}, row {row}, kg_per_kwh: {text!r} is no number") from None
    return checked(number, f"{name}, row {row}, kg_per_kwh")
