"""Emission factors: selection by zone, method and year, reading of tables and files, and validation errors."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from aurum.sustainability.country_table import country_rows
from aurum.sustainability.factors import (
    EmissionFactor,
    FactorError,
    FactorTable,
    built_in_table,
    check_factor,
    mark_stale,
    read_hourly_table,
    read_hourly_table_file,
    read_table,
    read_table_file,
)
from aurum.sustainability.providers import FileFactors

HEADER = "zone,method,year,kg_per_kwh,source"
HOURLY = "zone,hour,kg_per_kwh,source"
HOUR = 470_000  # 2023-08-14T08:00Z


def hour_of(year: int, month: int = 1, day: int = 1, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) // 3600


@pytest.fixture
def table() -> FactorTable:
    rows = ["X,location,2020,0.5,grid 20", "X,location,2022,0.4,grid 22", "X,residual,2021,0.7,rest 21"]
    return read_table([HEADER, *rows, "Y,location,2021,0.3,other"], "t.csv")


@pytest.mark.parametrize(
    ("hour", "year"),
    [
        (hour_of(2015), 2020),
        (hour_of(2020), 2020),
        (hour_of(2021, 12, 31, 23), 2020),
        (hour_of(2022), 2022),
        (hour_of(2030), 2022),
    ],
)
@pytest.mark.usefixtures("far_east")
def test_factor_of_latest_applicable_year_is_used(table: FactorTable, hour: int, year: int) -> None:
    assert table.factor_for("X", "location", hour).year == year


def test_missing_residual_factor_falls_back_to_location(table: FactorTable) -> None:
    assert table.factor_for("X", "residual", hour_of(2022)) == EmissionFactor(0.7, "rest 21", 2021, "residual")
    assert table.factor_for("Y", "residual", hour_of(2022)) == EmissionFactor(0.3, "other", 2021, "location")


@pytest.mark.parametrize("method", ["location", "residual"])
def test_unknown_zone_error_lists_known_zones(table: FactorTable, method: str) -> None:
    with pytest.raises(FactorError) as caught:
        table.factor_for("Z", "residual" if method == "residual" else "location", HOUR)
    assert str(caught.value) == (
        "there is no emission factor for zone 'Z'; the zones are X, Y, and others can be "
        "added with AURUM_SUSTAINABILITY_FACTORS"
    )


def test_custom_factors_override_or_extend_table(table: FactorTable) -> None:
    more = table.with_rows(read_table([HEADER, "X,location,2019,0.1,mine", "Z,location,2019,0.2,mine"], "u.csv"))
    assert more.zones == ["X", "Y", "Z"]
    assert more.factor_for("X", "location", hour_of(2022)).source == "mine"
    assert more.factor_for("X", "residual", hour_of(2022)).source == "rest 21"
    assert table.zones == ["X", "Y"]


def test_factor_table_is_read_with_all_fields() -> None:
    lines = [
        "year,zone,note,source,method,kg_per_kwh",
        '2024, A ,n," S, 1 ", residual , 0.25 ',
        "2023,A,n,T,residual,1",
    ]
    assert read_table(lines, "t.csv").factors == {
        ("A", "residual"): {
            2024: EmissionFactor(0.25, "S, 1", 2024, "residual"),
            2023: EmissionFactor(1.0, "T", 2023, "residual"),
        }
    }


def test_built_in_factor_table_covers_years_and_methods() -> None:
    assert sorted(built_in_table().factors["WORLD", "location"]) == [2022, 2023, 2024]
    for (_, method), by_year in built_in_table().factors.items():
        assert all(
            (factor.method, factor.year, factor.stale) == (method, year, False) for year, factor in by_year.items()
        )


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], f"f.csv, row 1: lacks the column zone; the columns must be {HEADER.replace(',', ', ')}"),
        (
            ["zone,method,kg_per_kwh"],
            f"f.csv, row 1: lacks the column year; the columns must be {HEADER.replace(',', ', ')}",
        ),
        ([HEADER, "X,location,2024,0.1,s", "X,location,2024,0.1"], "f.csv, row 3, source: the row has too few cells"),
        ([HEADER, "X,Grid,2024,0.1,s"], "f.csv, row 2, method: 'Grid' is not one of location, residual"),
        ([HEADER, "X,location,-5,0.1,s"], "f.csv, row 2, year: '-5' is not a year"),
        ([HEADER, "X,location,2024,few,s"], "f.csv, row 2, kg_per_kwh: 'few' is not a number"),
        (
            [HEADER, "X,location,2024,0.1,s", "X,residual,2024,3.5,s"],
            "f.csv, row 3, kg_per_kwh: 3.5 is not plausible; a factor is from 0 to 3 kg/kWh",
        ),
    ],
)
def test_invalid_factor_table_reports_row_and_field(lines: list[str], problem: str) -> None:
    with pytest.raises(FactorError) as caught:
        read_table(lines, "f.csv")
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            ["zone,hour,source"],
            "h.csv, row 1: lacks the column kg_per_kwh; the columns must be zone, hour, kg_per_kwh, source",
        ),
        ([HOURLY, "X,noon,0.1,s"], "h.csv, row 2, hour: 'noon' is not a time in ISO 8601"),
        ([HOURLY, "X,2023-08-14T08:00Z"], "h.csv, row 2, kg_per_kwh: the row has too few cells"),
        ([HOURLY, "X,2023-08-14T08:00Z,much,s"], "h.csv, row 2, kg_per_kwh: 'much' is not a number"),
        (
            [HOURLY, "X,2023-08-14T08:00Z,0.1,s", "X,2023-08-14T09:00Z,-1,s"],
            "h.csv, row 3, kg_per_kwh: -1 is not plausible; a factor is from 0 to 3 kg/kWh",
        ),
    ],
)
def test_invalid_hourly_factors_report_row_and_field(lines: list[str], problem: str) -> None:
    with pytest.raises(FactorError) as caught:
        read_hourly_table(lines, "h.csv")
    assert str(caught.value) == problem


@pytest.mark.usefixtures("far_east")
def test_hourly_factors_are_read_by_zone_in_utc() -> None:
    lines = ["X,2023-08-14T08:00,0.1,a", "X,2023-08-14T11:30+02:00,0.2,b", "Y,2024-01-01T00:00Z,0.3, c "]
    assert read_hourly_table([HOURLY, *lines], "h.csv") == {
        "X": {HOUR: EmissionFactor(0.1, "a", 2023), HOUR + 1: EmissionFactor(0.2, "b", 2023)},
        "Y": {hour_of(2024): EmissionFactor(0.3, "c", 2024)},
    }


@pytest.mark.parametrize("value", [0.0, 1e-9, 1.5, 3.0])
def test_factor_within_limits_is_accepted(value: float) -> None:
    assert check_factor(value, "here") == value


@pytest.mark.parametrize(("value", "told"), [(-0.001, "-0.001"), (3.001, "3.001"), (float("nan"), "nan")])
def test_factor_outside_limits_is_rejected(value: float, told: str) -> None:
    with pytest.raises(FactorError) as caught:
        check_factor(value, "here")
    assert str(caught.value) == f"here: {told} is not plausible; a factor is from 0 to 3 kg/kWh"


def test_stale_factor_differs_only_in_stale_flag() -> None:
    factor = EmissionFactor(0.2, "s", 2024, "residual")
    assert mark_stale(factor) == EmissionFactor(0.2, "s", 2024, "residual", stale=True)
    assert not factor.stale


async def test_factor_file_returns_only_available_hours(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = [f"X,2023-08-14T{hour:02}:00Z,0.{hour},s" for hour in (7, 8, 9, 11)]
    path.write_text("\n".join([HOURLY, *rows, "Y,2023-08-14T08:00Z,0.5,s"]))
    factors = FileFactors(path)
    assert [*await factors.hourly("X", HOUR, HOUR + 3)] == [HOUR, HOUR + 1]
    assert [*await factors.hourly("X", HOUR, HOUR + 4)] == [HOUR, HOUR + 1, HOUR + 3]
    assert (await factors.hourly("Y", HOUR, HOUR + 1))[HOUR].kg_per_kwh == 0.5
    assert await factors.hourly("Z", HOUR, HOUR + 1) == {}


async def test_factor_file_is_utf8_and_preserves_line_endings(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(f'{HOURLY}\r\nX,2023-08-14T08:00Z,0.1,"Énergie\r\net climat"\r\n'.encode())
    assert (await FileFactors(path).hourly("X", HOUR, HOUR + 1))[HOUR].source == "Énergie\r\net climat"


def test_factor_file_with_invalid_factor_is_reported_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"{HOURLY}\nX,2023-08-14T08:00Z,9,s\n")
    with pytest.raises(FactorError, match=r"^mine\.csv, row 2, kg_per_kwh: 9 is not plausible"):
        FileFactors(path)


def test_spreadsheet_export_of_factors_is_read(tmp_path: Path) -> None:
    """A byte order mark, semicolons, decimal commas and empty rows, as spreadsheets of many languages write them."""
    path = tmp_path / "supplier.csv"
    rows = "zone;method;year;kg_per_kwh;source\r\nÑ;residual;2025;0,412;Energía SA\r\n;;;;\r\n"
    expected = {("Ñ", "residual"): {2025: EmissionFactor(0.412, "Energía SA", 2025, "residual")}}
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        path.write_bytes(rows.encode(encoding))
        assert read_table_file(path).factors == expected, encoding


def test_hourly_factors_with_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"{HOURLY}\nX,2023-08-14T08:00Z,0.1,s\n", encoding="utf-8-sig")
    assert read_hourly_table_file(path) == {"X": {HOUR: EmissionFactor(0.1, "s", 2023)}}


@pytest.mark.parametrize(
    ("column", "stated", "kg_per_kwh"),
    [
        ("g_per_kwh", "363", 0.363),
        ("kg_per_mwh", "363", 0.363),
        ("t_per_mwh", "0.363", 0.363),
        ("lb_per_mwh", "823.1", 0.37335),  # eGRID2022, the mean of the US
    ],
)
def test_factor_is_converted_from_unit_of_its_column(column: str, stated: str, kg_per_kwh: float) -> None:
    table = read_table([HEADER.replace("kg_per_kwh", column), f"X,location,2024,{stated},s"], "u.csv")
    assert table.factor_for("X", "location", hour_of(2024)).kg_per_kwh == pytest.approx(kg_per_kwh, abs=1e-5)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([f"{HEADER},g_per_kwh", "X,location,2024,0.1,s,100"], "row 1, g_per_kwh: must not be given together with"),
        (["zone,method,year,g_per_kwh,source", "X,location,2024,4000,s"], "row 2, g_per_kwh: 4 is not plausible"),
        ([HEADER, "X,location,2024,0.1,s", "X,location,2024,0.2,t"], "row 3, year: zone X has a location factor for"),
        ([HEADER.replace(",", ";"), "X;location;2024;1.234,5;s"], "row 2, kg_per_kwh: '1.234.5' is not a number"),
    ],
)
def test_contradictory_factor_table_is_refused(lines: list[str], problem: str) -> None:
    with pytest.raises(FactorError, match=f"^f.csv, {problem}"):
        read_table(lines, "f.csv")


def test_factor_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(b"zone;m\xc3\xa9thod\n\x81\x8d;")
    with pytest.raises(FactorError, match=r"^mine\.csv is not UTF-8 text"):
        read_table_file(path)


@pytest.mark.parametrize(
    ("zone", "year", "kg_per_kwh"),
    [("ES", 2024, 0.14615), ("ES", 2019, 0.24667), ("NA", 2023, 0.04762), ("KY", 2022, 0.64), ("DE", 2024, 0.363)],
)
def test_built_in_table_has_factors_of_countries(zone: str, year: int, kg_per_kwh: float) -> None:
    """Those of Our World in Data, unless a national authority publishes its own."""
    factor = built_in_table().factor_for(zone, "location", hour_of(year, 6))
    assert (factor.year, factor.kg_per_kwh) == (year, pytest.approx(kg_per_kwh, abs=0.01))
    assert ("Our World in Data" in factor.source) == (zone != "DE")


def test_country_factors_are_converted_from_grams() -> None:
    lines = [
        "Entity,Code,Year,Carbon intensity of electricity - gCO2/kWh",
        "Spain,ESP,2018,300.0",
        "Spain,ESP,2024,146.15356",
        "Asia,,2024,500.0",
        "European Union (27),,2023,237.49",
        "World,OWID_WRL,2024,473.0",
        "Chad,TCD,2022,0.0",
    ]
    found = [(zone, name, year, factor) for zone, name, _, year, factor, _ in country_rows(lines)]
    assert found == [("ES", "Spain", 2024, "0.14615"), ("EU", "European Union (27)", 2023, "0.23749")]
    with pytest.raises(FactorError, match=r"^row 2, Code: 'XYZ' of Nowhere is unknown"):
        list(country_rows([lines[0], "Nowhere,XYZ,2024,100"]))
