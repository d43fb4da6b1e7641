"""The monthly report: its month, its languages, and names that a file format cannot show as they are."""

import io
import json
import string
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pypdf
import pytest

import aurum.api.energy_report
from aurum.api.energy_report.content import resolve_month
from aurum.api.energy_report.document import report_document
from aurum.api.energy_report.pdf import write_pdf
from aurum.api.energy_report.schemas import EnergyReportOut, Language, ReportDay, ReportLine
from aurum.api.energy_report.texts import load_texts
from aurum.api.energy_report.xlsx import write_xlsx
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import HOUR_US

TEXTS = Path(aurum.api.energy_report.__file__).parent / "text"
NOW = round(datetime(2026, 11, 15, tzinfo=UTC).timestamp()) * 1_000_000
USE: dict[str, Any] = {
    "energy_kwh": 12_345.678,
    "coverage": 0.5,
    "fed_in_kwh": None,
    "location_kgco2e": None,
    "market_kgco2e": None,
    "water_litres": None,
    "costs": [],
}


def report_of(name: str, language: Language = "en") -> EnergyReportOut:
    line = ReportLine(name=name, estimated_kwh=None, **USE)
    return EnergyReportOut(
        month="2026-10",
        start=datetime(2026, 10, 1, tzinfo=UTC),
        end=datetime(2026, 11, 1, tzinfo=UTC),
        complete=True,
        timezone="UTC",
        site="",
        language=language,
        total=line,
        costs=[],
        sites=[line],
        sites_count=1,
        types=[],
        types_count=0,
        machines=[],
        machines_count=0,
        days=[ReportDay(day=date(2026, 10, 1), **USE)],
        prices=[],
        demand=[],
        without_tariff=[],
        unpriced_kwh=0,
        factors=[],
        contracts=[],
        corrections=[],
        corrections_count=0,
        corrections_by_kind={},
        not_metered=[],
        not_metered_count=0,
        method=[],
        notes=[],
    )


@pytest.mark.parametrize(
    ("month", "timezone", "hours", "complete"),
    [
        ("2026-10", "Europe/Berlin", 745, True),
        ("2026-03", "Europe/Berlin", 743, True),
        ("2026-02", "UTC", 672, True),
        ("2026-11", "UTC", 14 * 24, False),
    ],
)
def test_month_is_that_of_the_time_zone_up_to_now(month: str, timezone: str, hours: int, complete: bool) -> None:
    found = resolve_month(month, timezone, NOW)
    assert (found.over.end - found.over.start, found.complete) == (hours * HOUR_US, complete)


@pytest.mark.parametrize(
    "month", ["2026-13", "2026-1", "0000-01", "9999-12", "2026-10-01", "", "\u0662\u0660\u0662\u0666-\u0661\u0660"]
)
def test_text_that_is_no_month_is_refused(month: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is not a month such as 2026-10"):
        resolve_month(month, "UTC", NOW)


def test_month_that_has_not_begun_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="2026-12 has not begun yet in Asia/Tokyo"):
        resolve_month("2026-12", "Asia/Tokyo", NOW)


def placeholders(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: placeholders(value) for key, value in content.items()}
    if isinstance(content, list):
        return [placeholders(each) for each in content]
    return sorted(name for _, name, _, _ in string.Formatter().parse(content) if name)


def test_languages_of_reports_have_the_same_texts() -> None:
    english, spanish = (json.loads((TEXTS / f"{name}.json").read_text()) for name in ("en", "es"))
    assert placeholders(english) == placeholders(spanish)


def test_numbers_of_reports_have_the_form_of_the_language() -> None:
    assert load_texts("en").number(-12_345.678, 2) == "-12,345.68"
    assert load_texts("es").number(12_345.678, 1) == "12.345,7"
    assert load_texts("es").number(999, 0) == "999"


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "http://example.com"])
def test_name_in_xlsx_report_is_text(name: str) -> None:
    book = openpyxl.load_workbook(io.BytesIO(write_xlsx(report_document(report_of(name)))))
    cell = book["By site"]["A2"]
    assert (cell.value, cell.data_type, cell.hyperlink) == (name, "s", None)
    assert book["By site"]["B2"].value == pytest.approx(12_345.678)


def pdf_text(report: EnergyReportOut) -> str:
    pages = pypdf.PdfReader(io.BytesIO(write_pdf(report_document(report)))).pages
    return "\n".join(page.extract_text() for page in pages)


def test_pdf_report_says_that_its_font_lacks_characters() -> None:
    found = pdf_text(report_of("泵-1"))
    assert "?-1" in found
    assert "Characters that the font of this file lacks" in found
    assert "Characters that the font" not in pdf_text(report_of("Bombeo Ñandú"))
    assert "Bombeo Ñandú" in pdf_text(report_of("Bombeo Ñandú", "es"))


def test_report_leaves_out_what_is_not_accounted() -> None:
    sections = {section.title: section for section in report_document(report_of("hall")).sections}
    assert sections.keys() == {"Summary", "By site", "Day by day"}
    assert [column.title for column in sections["By site"].columns] == ["Name", "Energy kWh", "Coverage %"]
    assert [row[0] for row in sections["Summary"].rows] == ["Energy", "Coverage"]
