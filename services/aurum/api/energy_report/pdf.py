"""Writes the energy report as a PDF file."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from aurum.api.energy_report.document import DECIMALS, Cell, Column, ReportDocument, Section
from aurum.api.energy_report.texts import ReportTexts

if TYPE_CHECKING:
    import fpdf

_FONT = "helvetica"  # built into every viewer, for the characters of Western European languages
_ENCODING = "latin-1"
_TEXT_SIZE, _TITLE_SIZE, _HEADING_SIZE, _TABLE_SIZE = 9.0, 18.0, 12.0, 7.5  # points
_HEADING_SPACE = 30.0  # mm that a heading needs below it, so that it does not stand alone at the end of a page
_CHARACTER_WIDTH = 2.0  # mm of a table's text
_GREY = (90, 90, 90)
_STRIPES = (243, 245, 247)
_NARROWEST, _WIDEST = 8, 70  # characters for which a column gets room; longer texts are broken


def write_pdf(document: ReportDocument) -> bytes:
    """Returns the report as a PDF file of A4 pages.

    Characters that the font lacks are replaced by question marks, and a paragraph says so.
    """
    import fpdf  # noqa: PLC0415 - it loads libraries of images and fonts, which an API without such reports need not

    texts = document.texts

    class Report(fpdf.FPDF):
        """Pages with their number."""

        def footer(self) -> None:
            """Writes the number of the page."""
            self.set_y(-12)
            self.set_font(_FONT, size=_TABLE_SIZE)
            self.set_text_color(*_GREY)
            self.cell(0, 6, texts["page"].format(page=self.page_no(), pages="{nb}"), align="R")

    pdf = Report(orientation="landscape", format="A4")
    pdf.set_title(_printable(f"{document.title} - {document.period}"))
    pdf.set_lang(texts.language)
    pdf.set_auto_page_break(True, margin=15)
    pdf.add_page()
    pdf.set_font(_FONT, "B", _TITLE_SIZE)
    pdf.cell(0, 10, _printable(document.title), new_x="LMARGIN", new_y="NEXT")
    _write_paragraphs(pdf, [document.period, *([texts["replaced"]] if _has_replacements(document) else [])])
    for section in document.sections:
        if pdf.will_page_break(_HEADING_SPACE):
            pdf.add_page()
        pdf.ln(4)
        pdf.set_font(_FONT, "B", _HEADING_SIZE)
        pdf.cell(0, 8, _printable(section.title), new_x="LMARGIN", new_y="NEXT")
        if section.columns:
            _write_table(pdf, section, texts)
        _write_paragraphs(pdf, section.paragraphs)
    return bytes(pdf.output())


def _write_paragraphs(pdf: "fpdf.FPDF", paragraphs: Sequence[str]) -> None:
    pdf.set_font(_FONT, size=_TEXT_SIZE)
    for paragraph in paragraphs:
        pdf.multi_cell(0, 5, _printable(paragraph), new_x="LMARGIN", new_y="NEXT")
        pdf.ln(1)


def _write_table(pdf: "fpdf.FPDF", section: Section, texts: ReportTexts) -> None:
    columns = section.columns
    rows = [
        [_printable(cell_text(cell, column, texts)) for cell, column in zip(row, columns, strict=True)]
        for row in section.rows
    ]
    widths = [
        min(_WIDEST, max(_NARROWEST, len(column.title), *(len(row[index]) for row in rows)))
        for index, column in enumerate(columns)
    ]
    pdf.set_font(_FONT, size=_TABLE_SIZE)
    with pdf.table(
        borders_layout="HORIZONTAL_LINES",
        cell_fill_color=_STRIPES,
        cell_fill_mode="ROWS",
        col_widths=widths,
        line_height=4.5,
        text_align=["LEFT" if column.kind == "text" else "RIGHT" for column in columns],
        width=min(pdf.epw, sum(widths) * _CHARACTER_WIDTH),
        align="LEFT",
    ) as table:
        for cells in ([_printable(column.title) for column in columns], *rows):
            row = table.row()
            for cell in cells:
                row.cell(cell)


def cell_text(cell: Cell, column: Column, texts: ReportTexts) -> str:
    """Returns a cell as text in the form of the language. One that is not known is empty."""
    match cell:
        case None:
            return ""
        case datetime():
            return f"{cell:%Y-%m-%d %H:%M}"
        case date():
            return cell.isoformat()
        case str():
            return cell
    return texts.number(cell, DECIMALS[column.kind])


def _printable(text: str) -> str:
    return text.encode(_ENCODING, "replace").decode(_ENCODING)


def _has_replacements(document: ReportDocument) -> bool:
    texts = [document.period]
    for section in document.sections:
        texts += [*section.paragraphs, *(cell for row in section.rows for cell in row if isinstance(cell, str))]
    return any(_printable(text) != text for text in texts)
