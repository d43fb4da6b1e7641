"""How the table in a body is written, as far as the query of the request declares it."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import Depends, Query

from aurum.readings.csv_table import TableOptions
from aurum.readings.number_text import DEFAULT_ABSENT_WORDS, fold_words
from aurum.readings.table_text import text_encoding_problem
from aurum.readings.times import TimeOptions, TimeOptionsError
from aurum.runtime.errors import InvalidArgumentError

_MAX_WORDS = 1000


class TableForm:
    """The declared form of a table.

    Attributes:
        encoding: The encoding of the text; None to recognise it.
        options: How the table is written.
        declared: What is declared, as text; empty if nothing is.
    """

    def __init__(  # noqa: PLR0917
        self,
        time_format: Annotated[
            str | None,
            Query(
                max_length=100,
                description="CSV: format of times: auto for ISO 8601 or a number since 1970; its unit s, ms, us or ns; "
                "excel for serial dates of a spreadsheet; or a pattern such as %d.%m.%Y %H:%M:%S.",
            ),
        ] = None,
        timezone: Annotated[
            str | None,
            Query(
                max_length=100,
                description="CSV: zone of times that state none, such as Europe/Berlin; UTC if absent.",
            ),
        ] = None,
        delimiter: Annotated[
            str | None,
            Query(
                min_length=1,
                max_length=1,
                description="CSV: sign between cells; recognized from the header if absent.",
            ),
        ] = None,
        decimal: Annotated[
            Literal["auto", "point", "comma"] | None,
            Query(
                description="CSV: decimal sign; auto takes that of the first number, or a point in a table with commas."
            ),
        ] = None,
        encoding: Annotated[
            str | None,
            Query(
                max_length=40,
                description="CSV: encoding of the text, such as windows-1252; UTF-8, UTF-16 or Windows-1252 if absent.",
            ),
        ] = None,
        absent_words: Annotated[
            list[str] | None,
            Query(
                max_length=_MAX_WORDS,
                description="CSV: texts in place of an absent value, in addition to the usual ones such as Bad Input.",
            ),
        ] = None,
    ) -> None:
        given = {
            "time_format": time_format,
            "timezone": timezone,
            "delimiter": delimiter,
            "decimal": decimal,
            "encoding": encoding,
            "absent_words": absent_words,
        }
        self._given = [name for name, value in given.items() if value]
        self.declared = str(sorted((name, str(given[name])) for name in self._given)) if self._given else ""
        if encoding is not None and (problem := text_encoding_problem(encoding)):
            raise InvalidArgumentError.for_field("encoding", problem)
        self.encoding = encoding
        self.options = TableOptions(
            delimiter,
            decimal or "auto",
            DEFAULT_ABSENT_WORDS | fold_words(absent_words or ()),
            _time_options(time_format, timezone),
        )

    def check_unused(self) -> None:
        """Raises InvalidArgumentError if anything is declared, because the body is no table."""
        for name in self._given:
            raise InvalidArgumentError.for_field(name, "is only for CSV; send Content-Type: text/csv, or leave it out")


def _time_options(time_format: str | None, timezone: str | None) -> TimeOptions:
    """Returns how times are written. Raises InvalidArgumentError, which names the parameter."""
    field = "time_format"
    try:
        options = TimeOptions(time_format or "auto")
        field = "timezone"
        return replace(options, zone=timezone)
    except TimeOptionsError as error:
        raise InvalidArgumentError.for_field(field, str(error)) from error


DeclaredForm = Annotated[TableForm, Depends()]
