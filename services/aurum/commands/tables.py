"""Options of the commands that read tables. Each imports its modules when it is called."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aurum.readings.csv_table import TableOptions
    from aurum.readings.times import TimeOptions

_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}


class DecimalSign(StrEnum):
    """The decimal signs of a table."""

    auto = "auto"
    point = "point"
    comma = "comma"


TimeFormat = Annotated[
    str | None,
    typer.Option(
        "--time-format",
        help="Format of times: s, ms, us or ns since 1970, excel, or a pattern such as '%d.%m.%Y %H:%M'; if absent, "
        "ISO 8601 or a number since 1970.",
    ),
]
Timezone = Annotated[
    str | None,
    typer.Option("--timezone", help="Zone of times that state none, such as Europe/Berlin; UTC if absent."),
]
Encoding = Annotated[str | None, typer.Option(help="Encoding of the text, such as windows-1252; recognized if absent.")]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Sign between cells: comma, semicolon, tab, bar or any other sign; recognized if absent."),
]
Decimal = Annotated[DecimalSign, typer.Option(help="Decimal sign of numbers.")]
Absent = Annotated[
    list[str] | None,
    typer.Option("--absent", help="Word in place of a number, besides the usual ones; may be repeated."),
]


def time_options(time_format: str | None, timezone: str | None) -> "TimeOptions":
    """Returns the declared format of times. Raises typer.BadParameter."""
    from aurum.readings.times import TimeOptions, TimeOptionsError  # noqa: PLC0415

    try:
        return TimeOptions(time_format or "auto", timezone)
    except TimeOptionsError as error:
        raise typer.BadParameter(str(error)) from error


def table_options(
    time_format: str | None,
    timezone: str | None,
    delimiter: str | None,
    decimal: DecimalSign,
    absent: list[str] | None,
) -> "TableOptions":
    """Returns how a table is written, as far as the options tell. Raises typer.BadParameter."""
    from aurum.readings.csv_table import TableOptions  # noqa: PLC0415
    from aurum.readings.number_text import DEFAULT_ABSENT_WORDS, fold_words  # noqa: PLC0415

    sign = None if delimiter is None else _DELIMITERS.get(delimiter, delimiter)
    if sign is not None and len(sign) != 1:
        raise typer.BadParameter(f"{delimiter!r} is not a delimiter; use comma, semicolon, tab, bar or a single sign")
    words = DEFAULT_ABSENT_WORDS | fold_words(absent or ())
    return TableOptions(sign, decimal.value, words, time_options(time_format, timezone))


def text_encoding(name: str | None) -> str | None:
    """Returns the declared encoding. Raises typer.BadParameter if it is unknown."""
    from aurum.readings.table_text import text_encoding_problem  # noqa: PLC0415

    if name is not None and (problem := text_encoding_problem(name)):
        raise typer.BadParameter(problem)
    return name
