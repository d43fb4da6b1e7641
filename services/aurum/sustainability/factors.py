"""Emission factors of electricity by zone and by year or hour, with their source."""

import csv
import difflib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

from aurum.readings.table_text import TextError, open_table

Method = Literal["location", "residual"]
METHODS: tuple[Method, ...] = ("location", "residual")

_TABLE = Path(__file__).with_name("emission_factors.csv")
_COUNTRIES = Path(__file__).with_name("country_factors.csv")
_FACTOR = "kg_per_kwh"
_COLUMNS = ("zone", "method", "year", _FACTOR, "source")
_HOURLY_COLUMNS = ("zone", "hour", _FACTOR, "source")
_MAX_FACTOR = 3.0  # kgCO2e/kWh; lignite has less than half of it, so a larger number is in another unit
_KG_PER_KWH = {  # for each column in which a table may state factors
    _FACTOR: 1.0,
    "g_per_kwh": 1e-3,
    "kg_per_mwh": 1e-3,
    "t_per_mwh": 1.0,
    "lb_per_mwh": 0.45359237e-3,  # international avoirdupois pound, 1959
}
_MAX_NAMED = 20  # zones in an error
_EXAMPLES = ("DE", "ES", "US")
_DELIMITERS = ",;\t"


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
                f"there is no emission factor for zone {zone!r}; {self._zone_hint(zone)}, and others "
                f"can be added with AURUM_SUSTAINABILITY_FACTORS"
            )
        year = datetime.fromtimestamp(hour * 3600, UTC).year
        earlier = [published for published in by_year if published <= year]
        return by_year[max(earlier) if earlier else min(by_year)]

    def _zone_hint(self, zone: str) -> str:
        zones = self.zones
        if len(zones) <= _MAX_NAMED:
            return f"the zones are {', '.join(zones)}"
        similar = difflib.get_close_matches(zone.upper(), zones, 3)
        meant = f" (similar: {', '.join(similar)})" if similar else ""
        return f"the {len(zones)} zones are countries by ISO 3166 such as {', '.join(_EXAMPLES)}, EU and WORLD{meant}"

    def with_rows(self, other: "FactorTable") -> "FactorTable":
        """Returns a table with the zones and methods of another one added to, or replacing, those of this one."""
        return FactorTable({**self.factors, **other.factors})


@cache
def built_in_table() -> FactorTable:
    """Returns the built-in table of national means with their sources.

    A zone with factors of a national authority has these alone, so that its years are comparable.
    """
    return read_table_file(_COUNTRIES).with_rows(read_table_file(_TABLE))


def read_table_file(path: Path) -> FactorTable:
    """Reads a file of yearly factors, as `read_table` does, in the encoding in which spreadsheets write it.

    Raises:
        FactorError: The table is invalid, or is not text.
        OSError: The file cannot be read.
    """
    try:
        with open_table(path) as lines:
            return read_table(lines, path.name)
    except (TextError, csv.Error) as error:
        raise FactorError(f"{path.name} {error}") from error


def read_hourly_table_file(path: Path) -> dict[str, dict[int, EmissionFactor]]:
    """Reads a file of hourly factors, as `read_hourly_table` does. The errors are those of `read_table_file`."""
    try:
        with open_table(path) as lines:
            return read_hourly_table(lines, path.name)
    except (TextError, csv.Error) as error:
        raise FactorError(f"{path.name} {error}") from error


def read_table(lines: Iterable[str], name: str) -> FactorTable:
    """Reads a CSV table with the columns zone, method (location or residual), year, kg_per_kwh and source.

    The factor may be in a column g_per_kwh, kg_per_mwh, t_per_mwh or lb_per_mwh instead. The cells are separated by
    commas, or by semicolons or tabs if the header is; numbers may then have a decimal comma.

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
        if not (cells["year"].isascii() and cells["year"].isdigit()):
            raise FactorError(f"{name}, row {row}, year: {cells['year']!r} is not a year")
        factor = EmissionFactor(_parse_factor(cells, name, row), cells["source"], int(cells["year"]), method)
        by_year = factors.setdefault((cells["zone"], method), {})
        if factor.year in by_year:
            raise FactorError(
                f"{name}, row {row}, year: zone {cells['zone']} has a {method} factor for {factor.year} in an earlier "
                f"row; remove one of them"
            )
        by_year[factor.year] = factor
    return FactorTable(factors)


def read_hourly_table(lines: Iterable[str], name: str) -> dict[str, dict[int, EmissionFactor]]:
    """Reads a CSV table with the columns zone, hour (ISO 8601), kg_per_kwh and source. Its form is as in `read_table`.

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
        factor = EmissionFactor(_parse_factor(cells, name, row), cells["source"], moment.year)
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
    """Yields the number and the cells of each row that is not empty.

    The cell of the factor is named by the unit in which the table states it.
    """
    remaining = iter(lines)
    header = next(remaining, "").removeprefix("\ufeff")
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.DictReader(itertools.chain([header] if header else [], remaining), delimiter=delimiter)
    found = [(column or "").strip() for column in reader.fieldnames or ()]
    reader.fieldnames = found
    unit = _factor_column(found, name)
    wanted = tuple(unit if column == _FACTOR else column for column in columns)
    missing = [column for column in wanted if column not in found]
    if missing:
        raise FactorError(f"{name}, row 1: lacks the column {missing[0]}; the columns must be {', '.join(columns)}")
    for cells in reader:
        texts = {column: (cells[column] or "").strip() for column in wanted}
        if not any(texts.values()):  # as spreadsheets write below a table
            continue
        short = next((column for column in wanted if cells[column] is None), None)
        if short is not None:
            raise FactorError(f"{name}, row {reader.line_num}, {short}: the row has too few cells")
        if delimiter != ",":
            texts[unit] = texts[unit].replace(",", ".")
        yield reader.line_num, texts


def _factor_column(found: list[str], name: str) -> str:
    """Returns the column of the factor."""
    given = [column for column in _KG_PER_KWH if column in found]
    if len(given) > 1:
        raise FactorError(f"{name}, row 1, {given[1]}: must not be given together with {given[0]}; remove one of them")
    return given[0] if given else _FACTOR


def _parse_factor(cells: Mapping[str, str], name: str, row: int) -> float:
    """Returns the factor of a row in kgCO2e/kWh."""
    unit = next(column for column in _KG_PER_KWH if column in cells)
    try:
        number = float(cells[unit])
    except ValueError:
        raise FactorError(f"{name}, row {row}, {unit}: {cells[unit]!r} is not a number") from None
    return check_factor(number * _KG_PER_KWH[unit], f"{name}, row {row}, {unit}")
