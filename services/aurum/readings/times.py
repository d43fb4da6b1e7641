"""Reads times as plants write them: ISO 8601, numbers since 1970 in any unit, declared formats, and local times.

A number or a date that could mean several times is refused, because a reading at a wrong time is worse than none.
"""

import math
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cached_property
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXCEL_EPOCH = datetime(1899, 12, 30)
_EXCEL_DAYS = 2_958_466  # from 1900 to 9999
_MIN_SECONDS = 1e8  # in March 1973; smaller numbers in tables are serial dates, yyyymmdd or counters
_MIN_MILLISECONDS, _MIN_MICROSECONDS, _MIN_NANOSECONDS = 1e11, 1e14, 1e17
_YEAR_10000 = 253_402_300_800_000_000  # µs
_OUT_OF_RANGE = "out of range; use a time from 1970 to 9999"
_DECLARE = "declare the format of times (--time-format, or time_format of a files input or request)"
_UNIT_US = {"s": Fraction(1_000_000), "ms": Fraction(1000), "us": Fraction(1), "ns": Fraction(1, 1000)}
_MAX_SERIES = 200_000  # whose last local time is remembered
_MAX_PATTERN_TEXT = 200  # characters of a time in a declared pattern
_MAX_SHOWN = 40  # characters of a text in an error
_COMPACT = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])((\d\d){0,3}|\d{9})")
_NUMERIC_DATE = re.compile(
    r"(?P<first>\d{1,4})(?P<sign>[./-])(?P<second>\d{1,2})(?P=sign)(?P<third>\d{4}|\d{1,2})"
    r"(?P<gap>[ T]\s*)?(?P<clock>\d{1,2}:\d\d)?(?P<seconds>:\d\d)?(?P<fraction>\.\d+)?(?P<half>\s?[AaPp][Mm])?"
)
_PATTERN_OF_LENGTH = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S", 17: "%Y%m%d%H%M%S%f"}


class TimeOptionsError(ValueError):
    """A declared format or time zone does not exist."""


class UnclearTimeError(ValueError):
    """A text that is not a time, or that could mean several, unless its format is declared.

    Attributes:
        problem: What is wrong.
    """

    def __init__(self, problem: str, formats: str) -> None:
        super().__init__(f"{problem}; {_DECLARE}: {formats}")
        self.problem = problem


@dataclass(frozen=True)
class TimeOptions:
    """How the times of a table are written.

    Attributes:
        form: auto; the unit of numbers since 1970: s, ms, us or ns; excel for serial dates; or a pattern such as
            "%d.%m.%Y %H:%M".
        zone: The IANA name of the zone of times that state none, such as Europe/Berlin; UTC if absent.
    """

    form: str = "auto"
    zone: str | None = None

    def __post_init__(self) -> None:
        if self.form not in ("auto", "excel", *_UNIT_US) and "%" not in self.form:
            raise TimeOptionsError(
                f"{self.form!r} is not a format of times; use auto, s, ms, us, ns, excel, or a pattern such as "
                f"%d.%m.%Y %H:%M:%S"
            )
        if self.zone is not None:
            _ = self.zone_info

    @cached_property
    def zone_info(self) -> ZoneInfo | None:
        """The declared zone. Raises TimeOptionsError if it is unknown."""
        if self.zone is None:
            return None
        try:
            return ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise TimeOptionsError(
                f"{self.zone!r} is not a time zone; use an IANA name such as Europe/Berlin"
            ) from error


def is_taken_as_utc(text: str, options: TimeOptions) -> bool:
    """Returns whether a time states no zone, so that it is UTC because no other is declared."""
    if options.zone is not None:
        return False
    try:
        at = _parser_of(options.form)(text.strip())
    except ValueError:
        return False
    return isinstance(at, datetime) and at.tzinfo is None


class TimeReader:
    """Reads the times of one table, in the order of its rows.

    When clocks are set back, an hour of local times is repeated. The rows of a series tell its two passes apart: a
    time belongs to the first pass as long as the times of the series increase, and to the second from then on. In a
    series whose times decrease, it is the other way round.

    Attributes:
        repeated: The number of times in a repeated hour.
        example: One of them, as text.
    """

    def __init__(self, options: TimeOptions) -> None:
        self.repeated = 0
        self.example = ""
        self._zone = options.zone_info
        self._last: dict[Hashable, tuple[int, int]] = {}  # by series: last time in µs; 1 if times rise, -1 if they fall
        self._parse = _parser_of(options.form)
        self._plain = options.form == "auto" and self._zone is None

    def read(self, text: str, series: Hashable) -> int:
        """Returns a time in µs since the epoch.

        Args:
            text: The time.
            series: Which series the time belongs to, to tell the passes of a repeated hour apart.

        Raises:
            ValueError: The time is ambiguous, does not exist or is not a time. The message tells what to declare.
        """
        if self._plain:
            return parse_table_time(text)
        at = self._parse(text.strip())
        if isinstance(at, int):
            return _check_range(at, text)
        if at.tzinfo is not None or self._zone is None:
            return _check_range(_since_epoch(at if at.tzinfo is not None else at.replace(tzinfo=UTC), text), text)
        return self._from_local(at, text, series)

    def _from_local(self, at: datetime, text: str, series: Hashable) -> int:
        local = at.replace(tzinfo=self._zone)
        first, second = (_since_epoch(local.replace(fold=fold), text) for fold in (0, 1))
        if first > second:  # clocks were set forward
            raise ValueError(f"{text[:_MAX_SHOWN]!r} does not exist in {self._zone}: clocks were set forward then")
        last = self._last.get(series)
        chosen = first
        if first < second:
            chosen = self._choose_pass(first, second, last, text)
            self.repeated += 1
            self.example = f"{text[:_MAX_SHOWN]} is {_EPOCH + timedelta(microseconds=chosen):%Y-%m-%dT%H:%M:%SZ}"
        if last is None and len(self._last) >= _MAX_SERIES:
            raise ValueError(
                f"local times of more than {_MAX_SERIES} series cannot be told apart; write times with their offset"
            )
        change = 0 if last is None else chosen - last[0]
        self._last[series] = chosen, (change > 0) - (change < 0) or (0 if last is None else last[1])
        return chosen

    def _choose_pass(self, first: int, second: int, last: tuple[int, int] | None, text: str) -> int:
        """Returns which of two passes of a repeated hour a time is in. Raises ValueError if neither continues it."""
        if last is None:
            return first
        last_us, direction = last
        if direction >= 0:
            for chosen in (first, second):
                if chosen > last_us:
                    return chosen
        if direction <= 0:
            for chosen in (second, first):
                if chosen < last_us:
                    return chosen
        raise ValueError(
            f"{text[:_MAX_SHOWN]!r} is in the repeated hour of {self._zone} and out of order; sort the rows of the "
            f"series by time, or write times with their offset"
        )


def parse_timestamp(text: str) -> int:
    """Parses a time to microseconds since the epoch. Raises ValueError.

    Args:
        text: ISO 8601 (UTC if it names no zone), or a number since 1970. Numbers below 1e11 are seconds, those below
            1e14 milliseconds, those below 1e17 microseconds, and others nanoseconds.
    """
    text = text.strip()
    number = _number(text)
    if number is not None:
        return timestamp_from_number(number)
    try:
        return _parse_iso(text)
    except UnclearTimeError as error:
        raise ValueError(f"{error.problem}; use ISO 8601 such as 2026-05-04T12:00:00Z") from None


def parse_table_time(text: str) -> int:
    """Parses a time as `parse_timestamp` does, but refuses numbers that may be dates or counters. Raises ValueError."""
    text = text.strip()
    if text[4:5] == "-":  # most times are ISO 8601, which is quicker to try first
        return _parse_iso(text)
    number = _number(text)
    return _parse_iso(text) if number is None else plant_time_from_number(number, text)


def plant_time_from_number(number: float, text: str | None = None) -> int:
    """Converts a number since 1970 in a table or message to µs.

    Args:
        number: The number.
        text: The number as it was written.

    Raises:
        ValueError: The number is too small for any time since 1973, or may be a date such as 20261128. The message
            tells what it may be.
    """
    shown = text or repr(number)
    if (math.isfinite(number) and 0 <= number < _MIN_SECONDS) or (_COMPACT.fullmatch(shown) and len(shown) > 10):
        raise _unclear_number(number, shown)
    return timestamp_from_number(number)


def timestamp_from_number(number: float) -> int:
    """Converts a number to microseconds since the epoch, by the rules of `parse_timestamp`. Raises ValueError."""
    if not math.isfinite(number):
        raise ValueError(f"{number!r} is not a time")
    size = abs(number)
    if size >= _MIN_NANOSECONDS:
        return _check_range(int(number) // 1000, f"{number:g}")
    if size >= _MIN_MICROSECONDS:
        return _check_range(int(number), f"{number:g}")
    return round(number * (1_000 if size >= _MIN_MILLISECONDS else 1_000_000))


def _number(text: str) -> float | None:
    """Returns a number since 1970, as an exact integer where possible; None for another text."""
    try:
        if text.isdecimal():
            return int(text[:_MAX_SHOWN])
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _unclear_number(number: float, text: str) -> UnclearTimeError:
    """Returns why a number is not taken as one since 1970, with what it may be."""
    shown = text[:_MAX_SHOWN]
    if pattern := _PATTERN_OF_LENGTH.get(len(text)) if _COMPACT.fullmatch(text) else None:
        return UnclearTimeError(f"{shown!r} may be a date and not a number since 1970", f"{pattern!r}, or s, ms, us")
    if 10_000 <= number < 100_000:
        date = f"{_EXCEL_EPOCH + timedelta(days=number):%Y-%m-%d %H:%M}"
        return UnclearTimeError(f"{shown!r} may be a serial date of a spreadsheet ({date})", "excel, or s")
    return UnclearTimeError(f"{shown!r} would be a time in 1970 to 1973", "s, ms or us if it is one")


def _parse_iso(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _unclear_text(text) from None
    return _check_range(_since_epoch(moment if moment.tzinfo else moment.replace(tzinfo=UTC), text), text)


def _unclear_text(text: str) -> UnclearTimeError:
    """Returns why a text is not a time, with the format that it may have."""
    problem = f"{text[:_MAX_SHOWN]!r} is not a time"
    found = _NUMERIC_DATE.fullmatch(text)
    if found is None:
        return UnclearTimeError(f"{problem} in ISO 8601", "a pattern such as '%d.%m.%Y %H:%M:%S'")
    sign, half = found["sign"], found["half"]
    clock = ("%I" if half else "%H") + ":%M" if found["clock"] else ""
    clock += (":%S" if found["seconds"] else "") + (".%f" if found["fraction"] else "")
    clock += ("%p" if len(half) == 2 else " %p") if half else ""
    rest = (found["gap"] or "") + clock
    year = "%Y" if len(found["third"]) == 4 else "%y"
    if len(found["first"]) == 4:
        likely = [f"%Y{sign}%m{sign}%d"]
    else:
        day_first, month_first = f"%d{sign}%m{sign}{year}", f"%m{sign}%d{sign}{year}"
        likely = [month_first] if int(found["second"]) > 12 else [day_first, month_first]
        likely = [day_first] if int(found["first"]) > 12 else likely
    return UnclearTimeError(f"{problem} in ISO 8601", " or ".join(repr(each + rest) for each in likely))


def _parser_of(form: str) -> Callable[[str], datetime | int]:
    """Returns a function that parses a text to µs since the epoch, or to a time that may lack its zone."""
    if form == "auto":
        return _parse_any
    if form == "excel":
        return _parse_excel
    if form in _UNIT_US:
        return lambda text: _parse_unit(text, form)
    return lambda text: _parse_pattern(text, form)


def _parse_any(text: str) -> datetime | int:
    number = _number(text)
    if number is not None:
        return plant_time_from_number(number, text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise _unclear_text(text) from None


def _parse_unit(text: str, unit: str) -> int:
    try:
        number = Fraction(text) if "/" not in text and "_" not in text and len(text) <= _MAX_SHOWN else None
    except ValueError:
        number = None
    if number is None or abs(number) > 10**30:
        raise ValueError(f"{text[:_MAX_SHOWN]!r} is not a number of {unit} since 1970, the declared format of times")
    return math.floor(number * _UNIT_US[unit])


def _parse_excel(text: str) -> datetime:
    number = _number(text)
    if number is None or not 1 <= number < _EXCEL_DAYS:
        raise ValueError(f"{text[:_MAX_SHOWN]!r} is not a serial date of a spreadsheet, the declared format of times")
    at = _EXCEL_EPOCH + timedelta(days=number)
    # Spreadsheets round the day's fraction; the whole second that rounds to the same digits was meant
    digits = len(text.partition(".")[2])
    second = (at + timedelta(seconds=0.5)).replace(microsecond=0)
    return second if abs((at - second).total_seconds()) <= 0.5 * 86_400 / 10**digits + 1e-5 else at


def _parse_pattern(text: str, pattern: str) -> datetime:
    try:
        if len(text) > _MAX_PATTERN_TEXT:
            raise ValueError
        return datetime.strptime(text, pattern)
    except ValueError:
        raise ValueError(f"{text[:_MAX_SHOWN]!r} does not match the declared format of times, {pattern!r}") from None


def _since_epoch(at: datetime, text: str) -> int:
    try:
        since = at.astimezone(UTC) - _EPOCH
    except (OverflowError, ValueError):
        raise ValueError(f"{text[:_MAX_SHOWN]!r} is {_OUT_OF_RANGE}") from None
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _check_range(us: int, text: str) -> int:
    if abs(us) >= _YEAR_10000:
        raise ValueError(f"{text[:_MAX_SHOWN]!r} is {_OUT_OF_RANGE}")
    return us
