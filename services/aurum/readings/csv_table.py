"""Reads CSV tables of readings, long or wide, as historians, spreadsheets and loggers write them."""

import csv
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from aurum.readings.batch import Series, sensor_problem
from aurum.readings.number_text import DEFAULT_ABSENT_WORDS, parse_number
from aurum.readings.repeated_times import RepeatedTimes
from aurum.readings.table_text import TextError
from aurum.readings.tables import Rows, TableError
from aurum.readings.times import TimeOptions, TimeReader, is_taken_as_utc

LONG_COLUMNS = ("machine_id", "timestamp", "sensor", "value")
_MAX_COLUMNS = 500
_MAX_NOTED_SERIES = 100_000
_MAX_EXAMPLE = 40  # characters of a cell in a note
_MAX_MISTAKES = 5  # kinds that are told with the first mistake
_MAX_LOOKED_AT = 1000  # rows that are searched for other kinds of mistakes
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)

Decimal = Literal["auto", "point", "comma"]


@dataclass(frozen=True, slots=True)
class TableOptions:
    """How a table is written, as far as it is declared.

    Attributes:
        delimiter: The sign between cells; None to recognise it from the header.
        decimal: The decimal sign; auto to recognise it from the first number that has one. In a table that is separated
            by commas, that is always a point.
        absent_words: Words in place of a number, as returned by `fold_words`.
        times: The format and the zone of times.
        device_names: Whether machines and sensors have any names, which are mapped later.
    """

    delimiter: str | None = None
    decimal: Decimal = "auto"
    absent_words: frozenset[str] = DEFAULT_ABSENT_WORDS
    times: TimeOptions = field(default_factory=TimeOptions)
    device_names: bool = False


@dataclass(slots=True)
class TableNotes:
    """What was recognised in a table, and which cells are not readings, for the user to be told.

    Attributes:
        encoding: The encoding of the text.
        delimiter: The sign between cells.
        long: Whether the table has a row for each reading.
        decimal_comma: Whether the decimal sign is a comma.
        absent: The number of cells that have a word instead of a number.
        absent_example: One of them.
        repeated: The number of local times in a repeated hour.
        repeated_example: One of them.
        utc: The first time, if it states no zone and is therefore taken as UTC.
        same_time: The readings that replace one of the same sensor and time.
        renamed: The stored names of machines and sensors by their names in the table, where they differ.
    """

    encoding: str = "UTF-8"
    delimiter: str = ","
    long: bool = True
    decimal_comma: bool = False
    absent: int = 0
    absent_example: str = ""
    repeated: int = 0
    repeated_example: str = ""
    utc: str = ""
    same_time: RepeatedTimes = field(default_factory=RepeatedTimes)
    renamed: dict[str, str] = field(default_factory=dict)
    _absent_series: set[tuple[str, str]] = field(default_factory=set)
    _series: set[tuple[str, str]] = field(default_factory=set)

    def record_absent(self, row: int, machine_id: str, sensor: str, text: str) -> None:
        """Notes a cell without a number."""
        self.absent += 1
        if not self.absent_example:
            self.absent_example = f"row {row}, {machine_id} {sensor}: {text[:_MAX_EXAMPLE]!r}"
        if len(self._absent_series) < _MAX_NOTED_SERIES:
            self._absent_series.add((machine_id, sensor))

    def record_numbers(self, series: Iterable[tuple[str, str]]) -> None:
        """Notes that these machines and sensors, as the table names them, have numbers."""
        if len(self._series) < _MAX_NOTED_SERIES:
            self._series.update(series)

    def record_times(self, series: Iterable[Series]) -> bool:
        """Notes readings of one sensor and time, of which the last one is kept. The series are those of one block.

        Returns:
            Whether any reading may replace one of an earlier block.
        """
        return self.same_time.record(series)

    def record_name(self, name: str, stored: str) -> None:
        """Notes under which name a machine or sensor is stored."""
        if name != stored and len(self.renamed) < _MAX_NOTED_SERIES:
            self.renamed[name] = stored

    def silent(self) -> list[tuple[str, str]]:
        """Returns the machines and sensors of which no cell has a number, unless there are too many to know."""
        if len(self._series) >= _MAX_NOTED_SERIES:
            return []
        return sorted(self._absent_series - self._series)

    def describe(self, *, absent: bool = True) -> list[str]:
        """Returns the notes as texts, without those that go without saying.

        Args:
            absent: Whether cells without a number are described.
        """
        texts = []
        if self.encoding != "UTF-8":
            texts.append(f"read as {self.encoding}")
        if self.delimiter != "," or self.decimal_comma:
            decimal = ", with a decimal comma" if self.decimal_comma else ""
            texts.append(f"separated by {DELIMITERS.get(self.delimiter, repr(self.delimiter))}{decimal}")
        if absent and self.absent:
            texts.append(f"cells without a number, not stored: {self.absent:,} (first: {self.absent_example})")
        if silent := self.silent():
            machine_id, sensor = silent[0]
            more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
            texts.append(f"without any number: {machine_id} {sensor}{more}")
        if self.renamed:
            name, stored = next(iter(self.renamed.items()))
            more = f" and {len(self.renamed) - 1} more" if len(self.renamed) > 1 else ""
            texts.append(f"names that are stored in another form: {name!r} as {stored}{more}")
        return texts + self._describe_times()

    def _describe_times(self) -> list[str]:
        texts = []
        if self.utc:
            texts.append(
                f"times state no zone and are taken as UTC (first: {self.utc}); if they are local, declare their zone "
                f"(--timezone, or timezone of a files input or request)"
            )
        if self.same_time.count or not self.same_time.exact:
            least = "" if self.same_time.exact else "at least "
            last = f" (last: {self.same_time.example})" if self.same_time.example else ""
            texts.append(
                f"replaced by a later row with the same machine, sensor and time: {least}{self.same_time.count:,}{last}"
            )
        if self.repeated:
            texts.append(
                f"times in a repeated hour, resolved by the order of rows: {self.repeated:,} "
                f"(last: {self.repeated_example})"
            )
        return texts


def read_csv(
    lines: Iterable[str],
    block: int,
    *,
    options: TableOptions | None = None,
    notes: TableNotes | None = None,
    max_row_characters: int = 1_000_000,
) -> Iterator[Rows]:
    """Reads a CSV table with a header, in blocks of about `block` readings.

    The table is long (machine_id, timestamp, sensor, value) or wide (machine_id, timestamp, then one column per
    sensor). Row numbers start at 1 with the header.

    Args:
        lines: The lines of the table.
        block: Number of readings in a block.
        options: How the table is written.
        notes: Gets what is recognised, and the cells without a number.
        max_row_characters: Maximum length of a row. It bounds the memory, since the cells of a row take many times the
            bytes of its text.

    Raises:
        TableError: If a row is wrong. Readings of the same block are then not yielded.
    """
    options, notes = options or TableOptions(), notes or TableNotes()
    bounded = _BoundedRows(lines, max_row_characters)
    rows = Rows()
    try:
        delimiter = bounded.read_delimiter(options.delimiter)
        reader = csv.reader(bounded, strict=True, delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        parser = _RowParser(header, delimiter, options, notes)
        bounded.begin_row()
        for cells in reader:
            bounded.begin_row()
            if not cells:
                continue
            try:
                parser.add_row(rows, bounded.line, cells)
            except TableError as error:
                later = _later_mistakes(bounded, reader, parser, cells)
                others = [each for each in later if (each.row, each.column) != (error.row, error.column)]
                raise error.with_others(others[:_MAX_MISTAKES]) from error
            if len(rows.values) >= block:
                yield rows
                rows = Rows()
    except csv.Error as error:
        raise TableError(max(bounded.line, 1), "", f"is not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise TableError(bounded.line + 1, "", "is not UTF-8 text") from error
    except TextError as error:
        raise TableError(bounded.line + 1, "", str(error)) from error
    if len(rows):
        yield rows


def _later_mistakes(
    bounded: "_BoundedRows", reader: Iterator[list[str]], parser: "_RowParser", cells: Sequence[str]
) -> list[TableError]:
    """Returns the mistakes from a row on, one of each kind, so that a user learns at once what must be declared.

    Args:
        bounded: The lines of the table.
        reader: Yields the next rows.
        parser: Parses them.
        cells: The row with the first mistake.
    """
    found: dict[str, TableError] = {}
    try:
        for _ in range(_MAX_LOOKED_AT):
            for kind, mistake in parser.mistakes(bounded.line, cells):
                found.setdefault(kind, mistake)
            if len(found) > _MAX_MISTAKES:
                break
            bounded.begin_row()
            cells = next(reader)
    except (StopIteration, csv.Error, UnicodeDecodeError, TextError, TableError):
        return list(found.values())  # the table ends, or what comes later is not known
    return list(found.values())


class _BoundedRows:
    """Yields the lines of a table, and limits the length of a row, which may have several lines.

    Attributes:
        line: The number of the last line.
    """

    def __init__(self, lines: Iterable[str], max_characters: int) -> None:
        self._lines = iter(lines)
        self._max_characters = max_characters
        self._length = 0
        self._first: str | None = None
        self.line = 0

    def read_delimiter(self, declared: str | None) -> str:
        """Returns the sign between the cells of the header, which is read and then yielded again.

        A first line such as `sep=;`, which spreadsheets write, states it.
        """
        first = next(self._lines, None)
        stated = re.fullmatch(r"sep=(.)\s*", first or "", re.IGNORECASE)
        if stated is not None:
            self.line += 1
            declared = declared or stated[1]
            first = next(self._lines, None)
        self._first = first
        head = (first or "")[: self._max_characters]
        return declared or _delimiter_of(head)

    def begin_row(self) -> None:
        """Starts to count the characters of the next row."""
        self._length = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._first is not None:
            line, self._first = self._first, None
        else:
            line = next(self._lines)
        self.line += 1
        self._length += len(line)
        if self._length > self._max_characters:
            raise TableError(self.line, "", f"has more than {self._max_characters} characters")
        return line


def _delimiter_of(header: str) -> str:
    """Returns the delimiter with which the header has the required columns, else the most frequent one."""
    for sign in DELIMITERS:
        names = {name.strip().strip('"') for name in header.split(sign)}
        if {"machine_id", "timestamp"} <= names:
            return sign
    return max(DELIMITERS, key=header.count)


class _RowParser:
    """Parses the rows of a table."""

    def __init__(self, header: Sequence[str], delimiter: str, options: TableOptions, notes: TableNotes) -> None:
        self._header = header
        self._delimiter = delimiter
        self._notes = notes
        self._long = _check_header(header, delimiter, device_names=options.device_names)
        self._machine, self._time = header.index("machine_id"), header.index("timestamp")
        others = [(index, name) for index, name in enumerate(header) if index not in (self._machine, self._time)]
        self._sensors = [] if self._long else others
        self._sensor, self._value = (header.index("sensor"), header.index("value")) if self._long else (0, 0)
        self._numbers = _NumberReader(delimiter, options, notes)
        self._times, self._time_options = TimeReader(options.times), options.times
        self._first = True
        notes.delimiter, notes.long = delimiter, self._long

    def add_row(self, rows: Rows, row: int, cells: Sequence[str]) -> None:
        """Adds the readings of a row. Raises TableError."""
        if len(cells) != len(self._header):
            raise self._wrong_length(row, len(cells))
        machine_id = cells[self._machine].strip()
        series = (machine_id, cells[self._sensor].strip()) if self._long else machine_id
        timestamp = self._read_time(row, cells[self._time], series)
        cells_of_sensors = [(self._value, cells[self._sensor].strip())] if self._long else self._sensors
        read = self._numbers.read
        for index, sensor in cells_of_sensors:
            text = cells[index]
            if not text and not self._long:
                continue
            try:
                value = read(text)
            except ValueError as error:
                raise TableError(row, "value" if self._long else sensor, str(error), _word_advice(text)) from None
            if value is not None:
                rows.add_reading(row, machine_id, sensor, timestamp, value)
            elif self._long or text.strip():
                self._notes.record_absent(row, machine_id, sensor, text.strip())

    def mistakes(self, row: int, cells: Sequence[str]) -> Iterator[tuple[str, TableError]]:
        """Yields the mistakes of a row, each with its kind: what is declared or corrected once for the whole table."""
        if not cells:
            return
        if len(cells) != len(self._header):
            yield "cells", self._wrong_length(row, len(cells))
            return
        machine_id = cells[self._machine].strip()
        try:
            self._read_time(row, cells[self._time], (machine_id, cells[self._sensor].strip()))
        except TableError as error:
            yield "time", error
        for index, name in [(self._value, "value")] if self._long else self._sensors:
            text = cells[index]
            try:
                self._numbers.read(text) if text else None
            except ValueError as error:
                advice = _word_advice(text)
                yield f"word {text.strip()}" if advice else "number", TableError(row, name, str(error), advice)

    def _read_time(self, row: int, text: str, series: Hashable) -> int:
        try:
            timestamp = self._times.read(text, series)
        except ValueError as error:
            raise TableError(row, "timestamp", str(error)) from None
        if self._first:
            self._first = False
            if is_taken_as_utc(text, self._time_options):
                self._notes.utc = text.strip()[:_MAX_EXAMPLE]
        if self._times.repeated:
            self._notes.repeated, self._notes.repeated_example = self._times.repeated, self._times.example
        return timestamp

    def _wrong_length(self, row: int, count: int) -> TableError:
        header = self._header
        column = header[count] if count < len(header) else f"column {len(header) + 1}"
        problem = f"has {count} cells, and the header has {len(header)}; the file may be truncated"
        if count > len(header) and self._delimiter == ",":
            problem = (
                f"has {count} cells, and the header has {len(header)}; if numbers have a decimal comma, cells must be "
                f"separated by semicolons or tabs, or quoted"
            )
        return TableError(row, column, problem)


class _NumberReader:
    """Reads the numbers of a table, and recognises its decimal sign."""

    def __init__(self, delimiter: str, options: TableOptions, notes: TableNotes) -> None:
        self._absent_words = options.absent_words
        self._notes = notes
        self._undecided = options.decimal == "auto" and delimiter != ","
        notes.decimal_comma = options.decimal == "comma"
        self._number_words = any(map(_is_number, options.absent_words))
        self._plain = not (self._number_words or self._undecided or notes.decimal_comma)

    def read(self, text: str) -> float | None:
        """Returns a finite number, or None for a word in place of one. Raises ValueError."""
        if self._plain:
            try:
                value = float(text)
            except ValueError:
                pass
            else:
                if value - value == 0.0 and "_" not in text:  # most are finite
                    return value
        elif self._undecided:
            self._decide(text)
        return parse_number(text, absent_words=self._absent_words, decimal_comma=self._notes.decimal_comma)

    def _decide(self, text: str) -> None:
        """Takes the decimal sign of a number, if it has one, for that of the table."""
        comma = _DECIMAL_COMMA.fullmatch(text.strip()) is not None
        if comma or ("." in text and _is_number(text)):
            self._undecided = False
            self._notes.decimal_comma = comma
            self._plain = not (comma or self._number_words)


def _word_advice(text: str) -> str:
    """Returns what to do about a text in place of a number, if it is a word."""
    if any(map(str.isdigit, text)):
        return ""
    return "; if it stands for no reading, declare the word (--absent, or absent_words of a files input or request)"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_header(header: Sequence[str], delimiter: str, *, device_names: bool) -> bool:
    """Returns True for a long table and False for a wide one. Raises TableError if it is neither."""
    if len(header) > _MAX_COLUMNS:
        raise TableError(1, "", f"has {len(header)} columns; at most {_MAX_COLUMNS} are allowed")
    if sorted(header) == sorted(LONG_COLUMNS):
        return True
    mistakes = [
        TableError(1, name, "is in the header twice")
        for name in dict.fromkeys(header)
        if header.count(name) > 1 and name.strip()
    ]
    missing = [name for name in ("machine_id", "timestamp") if name not in header]
    if missing:
        rule = (
            f"is missing; the header must be machine_id,timestamp,sensor,value or machine_id,timestamp,SENSOR,…, "
            f"and is separated by {DELIMITERS.get(delimiter, repr(delimiter))}"
        )
        mistakes[:0] = [TableError(1, name, rule if name == missing[0] else "is missing") for name in missing]
    sensors = [name for name in header if name not in ("machine_id", "timestamp")]
    if not sensors and not mistakes:
        mistakes = [TableError(1, "", "has no sensor besides machine_id and timestamp")]
    if not device_names:
        problems = [(name, sensor_problem(name)) for name in sensors]
        mistakes += [TableError(1, name, problem) for name, problem in problems if problem]
    if mistakes:
        raise mistakes[0].with_others(mistakes[1 : _MAX_MISTAKES + 1])
    return False
