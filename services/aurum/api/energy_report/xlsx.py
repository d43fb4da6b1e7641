"""Writes the energy report as a workbook of spreadsheets, with numbers in full precision."""

import io
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import xlsxwriter

from aurum.api.energy_report.document import Cell, Column, Kind, ReportDocument, Section

_FORMATS: dict[Kind, str] = {
    "text": "@",
    "amount": "#,##0.0",
    "money": "#,##0.00",
    "percent": "0.0",
    "factor": "0.0000",
    "count": "0",
    "time": "yyyy-mm-dd hh:mm",
    "day": "yyyy-mm-dd",
}
_LONGEST_NAME = 31  # characters of the name of a sheet
_WIDEST = 60  # characters of a column
_TEXT_WIDTH = 120  # characters of a column of paragraphs
_SMALL = 12  # characters for which a column has room at least


def write_xlsx(document: ReportDocument) -> bytes:
    """Returns the report as an XLSX file with a sheet for each section.

    Texts are never formulas. Times are in the time zone of the report.
    """
    output = io.BytesIO()
    workbook = xlsxwriter.Workbook(output, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    formats = {kind: workbook.add_format({"num_format": form}) for kind, form in _FORMATS.items()}
    bold = workbook.add_format({"bold": True, "text_wrap": True, "bottom": 1})
    wrapped = workbook.add_format({"text_wrap": True, "valign": "top"})
    for index, section in enumerate(document.sections):
        sheet = workbook.add_worksheet(section.title[:_LONGEST_NAME])
        row = 0
        if index == 0:
            sheet.write_string(0, 0, document.title, workbook.add_format({"bold": True, "font_size": 16}))
            sheet.write_string(1, 0, document.period)
            row = 3
        row = _write_table(sheet, section, row, formats, bold)
        if section.columns:
            row += 1
        else:
            sheet.set_column(0, 0, _TEXT_WIDTH)
        for paragraph in section.paragraphs:
            sheet.write_string(row, 0, paragraph, None if section.columns else wrapped)
            row += 1
    workbook.close()
    return output.getvalue()


def _write_table(sheet: Any, section: Section, row: int, formats: dict[Kind, Any], bold: Any) -> int:
    """Writes the table of a section from a row on, and returns the row below it."""
    if not section.columns:
        return row
    for index, column in enumerate(section.columns):
        sheet.write_string(row, index, column.title, bold)
        sheet.set_column(index, index, _width(column, [cells[index] for cells in section.rows]))
    sheet.freeze_panes(row + 1, 1)
    for cells in section.rows:
        row += 1
        for index, (cell, column) in enumerate(zip(cells, section.columns, strict=True)):
            _write_cell(sheet, row, index, cell, formats[column.kind])
    return row + 1


def _write_cell(sheet: Any, row: int, index: int, cell: Cell, form: Any) -> None:
    match cell:
        case None:
            sheet.write_blank(row, index, None, form)
        case str():
            sheet.write_string(row, index, cell, form)
        case datetime():
            sheet.write_datetime(row, index, cell.replace(tzinfo=None), form)
        case date():
            sheet.write_datetime(row, index, cell, form)
        case _:
            sheet.write_number(row, index, cell, form)


def _width(column: Column, cells: Sequence[Cell]) -> int:
    longest = max((len(cell) for cell in cells if isinstance(cell, str)), default=0)
    return min(_WIDEST, max(_SMALL, len(column.title) // 2, longest))
