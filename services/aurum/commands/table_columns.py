"""Reads the columns of tables in CSV or Parquet, from which histories are made."""

import csv
import io
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aurum.readings.batch import Timestamps, Values
from aurum.readings.csv_table import DELIMITERS, TableOptions
from aurum.readings.number_text import DEFAULT_ABSENT_WORDS, parse_number
from aurum.readings.table_text import PARQUET, TableText, TextError, open_table
from aurum.readings.tables import TableError
from aurum.readings.times import TimeOptions, TimeReader

FIRST_ROW = 2  # of a table, after its header
_NUMBERS = 0.5  # a text column with at least this share of numbers is numeric, and its other cells are errors
_COUNTER_BELOW = 1e8  # smaller numbers in a time column are a count of hours or cycles, not times since 1970
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_SAMPLE = 200  # rows from which the decimal sign is recognised
_STATED_DELIMITER = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # the first line that spreadsheets write
_GROUPED = r"^\s*[+-]?\d{1,3}(\.\d{3})+,\d+\s*$"
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)


def read_columns(file: Path, written: TableOptions | None = None, encoding: str | None = None) -> dict[str, Any]:
    """Returns the columns of a table as pyarrow arrays.

    Args:
        file: The table.
        written: How it is written, if it is text.
        encoding: The encoding of the text; None to recognise it.

    Raises:
        TableError: The table cannot be read.
    """
    import pyarrow as pa  # noqa: PLC0415 - an image that serves lacks it
    from pyarrow import parquet  # noqa: PLC0415

    try:
        table = (
            parquet.read_table(file)
            if file.suffix.lower() in PARQUET
            else _read_csv(file, written or TableOptions(), encoding)
        )
    except pa.ArrowInvalid as error:
        row = re.search(r"Row #(\d+)", str(error))
        raise TableError(int(row[1]) if row else 1, "", f"cannot be read: {str(error).splitlines()[0]}") from error
    except TextError as error:
        raise TableError(1, "", str(error)) from error
    if not table.num_rows:
        raise TableError(1, "", "is the only row; the table has no data")
    twice = next((name for name in table.column_names if table.column_names.count(name) > 1), None)
    if twice is not None:
        raise TableError(1, twice, "is repeated in the header")
    return {name: table.column(name).combine_chunks() for name in table.column_names}


def _read_csv(file: Path, written: TableOptions, encoding: str | None) -> Any:
    """Returns a CSV table. Raises TableError, TextError, pyarrow.ArrowInvalid."""
    from pyarrow import csv as arrow_csv  # noqa: PLC0415

    with open_table(file, encoding) as text:
        lines = [line for line, _ in zip(text, range(_SAMPLE), strict=False)]
    stated = _STATED_DELIMITER.fullmatch(lines[0]) if lines else None
    first, *rest = lines[1 if stated else 0 :] or [""]
    delimiter = written.delimiter or (stated[1] if stated else max(DELIMITERS, key=first.count))
    if len(next(csv.reader([first], delimiter=delimiter), [])) < 2:
        raise TableError(
            1, "", "has only one column; separate columns by commas, semicolons or tabs, or declare --delimiter"
        )
    cells = (cell for row in csv.reader(rest, delimiter=delimiter) for cell in row)
    comma = written.decimal == "comma" or (
        written.decimal == "auto" and delimiter != "," and any(_DECIMAL_COMMA.fullmatch(cell.strip()) for cell in cells)
    )
    with open_table(file, encoding) as text:
        table = arrow_csv.read_csv(
            io.BufferedReader(_Utf8(text)),
            arrow_csv.ReadOptions(use_threads=False, skip_rows=1 if stated else 0),  # threads hide the row of errors
            arrow_csv.ParseOptions(delimiter=delimiter),
            arrow_csv.ConvertOptions(decimal_point="," if comma else "."),
        )
    return _with_decimal_points(table) if comma else table


def _with_decimal_points(table: Any) -> Any:
    """Returns a table in which also the numbers of text columns have decimal points.

    Points between groups of three digits, as in 1.234,5, are left out.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415

    for index, name in enumerate(table.column_names):
        column = table.column(index)
        if pa.types.is_string(column.type):
            grouped = pc.match_substring_regex(column, _GROUPED)
            whole = pc.if_else(pc.fill_null(grouped, False), pc.replace_substring(column, ".", ""), column)
            replaced = pc.replace_substring_regex(whole, r"^(\s*[+-]?\d*),(\d+\s*)$", r"\1.\2")
            table = table.set_column(index, name, replaced)
    return table


class _Utf8(io.RawIOBase):
    """A file with the text of a table in UTF-8."""

    def __init__(self, text: TableText) -> None:
        self._parts = (part.encode() for part in text.parts())
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, into: Any) -> int:
        """Reads the next bytes."""
        while not self._rest:
            text = next(self._parts, None)
            if text is None:
                return 0
            self._rest = memoryview(text)
        part = self._rest[: len(into)]
        into[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)


def is_text(array: Any) -> bool:
    """Whether a column has texts, also if some of them are numbers."""
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or _is_dictionary(array))


def _is_dictionary(array: Any) -> bool:
    """Whether a column of Parquet has texts that are stored once each."""
    import pyarrow as pa  # noqa: PLC0415

    return bool(pa.types.is_dictionary(array.type) and pa.types.is_string(array.type.value_type))


def texts_of(array: Any) -> list[str]:
    """Returns the cells of a column as texts, empty ones as empty texts."""
    return ["" if each is None else str(each) for each in array.to_pylist()]


def numbers_of(
    name: str, array: Any, notes: list[str] | None = None, absent: frozenset[str] = DEFAULT_ABSENT_WORDS
) -> Values | None:
    """Returns the numbers of a column; None for a text column.

    Args:
        name: The name of the column.
        array: The column.
        notes: Gets the number of cells that have a word of a historian, such as "Bad Input", instead of a number.
        absent: Words in place of a number.

    Returns:
        The numbers; NaN for empty cells and for words.

    Raises:
        TableError: A cell of a column of numbers is something else.
    """
    import pyarrow as pa  # noqa: PLC0415

    kind = array.type
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return _numbers_of_texts(name, texts_of(array), notes, absent)
    values: Values = np.array(array.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise TableError(int(infinite[0]) + 2, name, "is infinite")
    return values


def _numbers_of_texts(
    name: str, texts: Sequence[str], notes: list[str] | None, absent: frozenset[str]
) -> Values | None:
    """Returns what `numbers_of` returns for a column of texts."""
    values = np.full(len(texts), np.nan)
    words: list[int] = []
    wrong: list[int] = []
    for row, text in enumerate(texts):
        try:
            number = parse_number(text, absent_words=absent)
        except ValueError:
            wrong.append(row)
            continue
        if number is not None:
            values[row] = number
        elif text.strip():
            words.append(row)
    if len(wrong) > _NUMBERS * (len(wrong) + np.count_nonzero(~np.isnan(values))):
        return None
    if wrong:
        raise TableError(wrong[0] + FIRST_ROW, name, f"{texts[wrong[0]][:40]!r} is not a number")
    if words and notes is not None:
        first = f"{texts[words[0]][:40]!r} in row {words[0] + FIRST_ROW}"
        notes.append(f"{name}: {len(words)} cells without a number, such as {first}")
    return values


def is_counter(array: Any) -> bool:
    """Whether the numbers of a time column count hours or cycles. Dates such as 20261128 do not."""
    import pyarrow as pa  # noqa: PLC0415

    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return False
    numbers = np.asarray(array.cast(pa.float64()).to_numpy(zero_copy_only=False))
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers) or np.abs(numbers).max() >= _COUNTER_BELOW:
        return False
    return not all(_DATE.fullmatch(f"{number:.0f}") for number in numbers)


def times_of(array: Any, name: str, options: TimeOptions, series: Sequence[Hashable]) -> Timestamps:
    """Returns the times of a column in µs since the epoch.

    Args:
        array: The column.
        name: The name of the column.
        options: How times are written.
        series: The series of each row, to tell the passes of a repeated hour of local times apart.

    Raises:
        TableError: A time is missing, ambiguous or not a time.
    """
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        if array.null_count:
            raise TableError(array.to_pylist().index(None) + 2, name, "is empty")
        if options.zone is not None and getattr(array.type, "tz", None) is None:
            return _read_times(
                name, [each.isoformat(" ") for each in array.to_pylist()], TimeOptions(zone=options.zone), series
            )
        moments: Timestamps = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy()
        return moments
    return _read_times(name, texts_of(array), options, series)


def _read_times(name: str, texts: Sequence[str], options: TimeOptions, series: Sequence[Hashable]) -> Timestamps:
    reader = TimeReader(options)
    times = np.empty(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        try:
            times[row] = reader.read(text, series[row])
        except ValueError as error:
            raise TableError(row + FIRST_ROW, name, str(error)) from None
    return times
