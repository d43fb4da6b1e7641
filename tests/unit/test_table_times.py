"""Times as plants write them: numbers of any unit, serial dates, patterns, and local times around clock changes."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.readings.times import TimeOptions, TimeOptionsError, TimeReader, parse_table_time, parse_timestamp

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago")
PER_UNIT = {"s": 1_000_000, "ms": 1000, "us": 1}
moments = st.integers(1_000_000_000, 4_000_000_000)  # s, from 2001 to 2096
zones = st.sampled_from(ZONES)


def read(text: str, form: str = "auto", zone: str | None = None) -> int:
    return TimeReader(TimeOptions(form, zone)).read(text, "m")


def reading_of(local: list[datetime], zone: str) -> list[int]:
    reader = TimeReader(TimeOptions(zone=zone))
    return [reader.read(at.strftime("%Y-%m-%d %H:%M:%S"), "m") for at in local]


@given(moments, st.sampled_from([*PER_UNIT, "ns"]))
def test_number_of_any_unit_is_recognised_by_its_size(seconds: int, unit: str) -> None:
    text = str(seconds * 1_000_000_000) if unit == "ns" else str(seconds * 1_000_000 // PER_UNIT[unit])
    assert parse_table_time(text) == parse_timestamp(text) == read(text, unit) == seconds * 1_000_000


@given(st.integers(1, 4 * 10**15), st.sampled_from(["s", "ms", "us", "ns"]))
def test_declared_unit_is_exact_for_any_number(us: int, unit: str) -> None:
    text = {"s": f"{us // 10**6}.{us % 10**6:06}", "ms": f"{us // 1000}.{us % 1000:03}", "us": f"{us}"}
    assert read(text.get(unit, f"{us}000"), unit) == us


@given(st.datetimes(datetime(1950, 1, 1), datetime(2090, 1, 1)), st.integers(7, 12))
def test_serial_date_is_read_to_the_second(moment: datetime, digits: int) -> None:
    moment = moment.replace(microsecond=0)
    days = (moment - datetime(1899, 12, 30)) / timedelta(days=1)
    expected = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    assert read(f"{days:.{digits}f}", "excel") == expected


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)),
    st.sampled_from(["%d.%m.%Y %H:%M:%S.%f", "%Y%m%d%H%M%S%f", "%m/%d/%Y %I:%M:%S.%f %p", "%d-%b-%y %H:%M:%S.%f"]),
)
def test_declared_pattern_is_read_back_exactly(moment: datetime, pattern: str) -> None:
    moment = moment if "%y" not in pattern else moment.replace(year=2000 + moment.year % 60)
    assert read(moment.strftime(pattern), pattern) == round(moment.replace(tzinfo=UTC).timestamp() * 1e6)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("46354.4166667", r"serial date of a spreadsheet \(2026-11-28 10:00\); .*--time-format.*: excel"),
        ("20261128", "may be a date and not a number since 1970; .*--time-format.*'%Y%m%d'"),
        ("202611281000", "may be a date .*'%Y%m%d%H%M'"),
        ("20261128100000", "may be a date .*'%Y%m%d%H%M%S'"),
        ("12", "would be a time in 1970 to 1973; .*--time-format.*: s, ms or us"),
        ("28.11.2026 10:00", "is not a time in ISO 8601; .*--time-format.*: '%d.%m.%Y %H:%M'"),
        ("1/13/2015 5:00:00 PM", "--time-format.*: '%m/%d/%Y %I:%M:%S %p'"),
        ("01/02/2026", "'%d/%m/%Y' or '%m/%d/%Y'"),
        ("2026/11/28 10:00:00.5", "'%Y/%m/%d %H:%M:%S.%f'"),
        ("yesterday", "is not a time in ISO 8601; .*--time-format"),
    ],
)
def test_unclear_time_is_refused_with_what_to_declare(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint) as refused:
        parse_table_time(text)
    assert repr(text) in str(refused.value)


def test_hinted_format_reads_the_refused_time() -> None:
    expected = read("2026-11-28T10:00:00Z")
    hints = {
        "46354.4166667": "excel",
        "20261128100000": "%Y%m%d%H%M%S",
        "28.11.2026 10:00": "%d.%m.%Y %H:%M",
        "11/28/2026 10:00:00 AM": "%m/%d/%Y %I:%M:%S %p",
    }
    assert {read(text, form) for text, form in hints.items()} == {expected}


@given(zones, st.integers(2000, 2035), st.integers(60, 3600), st.booleans())
def test_local_times_in_file_order_are_never_wrong(zone: str, year: int, step: int, descending: bool) -> None:
    """A regular series around every change of the clocks of a year is read back, in either direction."""
    info = ZoneInfo(zone)
    starts = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=6 * each) for each in range(4 * 365)]
    offsets = [each.astimezone(info).utcoffset() or timedelta() for each in starts]
    for start, before, after in zip(starts, offsets, offsets[1:], strict=False):
        if before == after:
            continue
        period = min(timedelta(seconds=step), abs(after - before))  # a longer one may leave out a whole pass
        times = [start + period * each for each in range(timedelta(hours=-3) // period, timedelta(hours=9) // period)]
        times = times[::-1] if descending else times
        local = [at.astimezone(info).replace(tzinfo=None) for at in times]
        assert reading_of(local, zone) == [round(at.timestamp() * 1e6) for at in times]


@given(zones, st.lists(st.datetimes(datetime(2026, 10, 24), datetime(2026, 11, 2)), max_size=30))
def test_increasing_local_times_stay_increasing(zone: str, local: list[datetime]) -> None:
    local = sorted({at.replace(microsecond=0) for at in local})
    times = reading_of([at for at in local if not _is_missing(at, zone)], zone)
    assert times == sorted(set(times))


def _is_missing(at: datetime, zone: str) -> bool:
    first, second = (at.replace(tzinfo=ZoneInfo(zone), fold=fold).utcoffset() for fold in (0, 1))
    return (first or timedelta()) < (second or timedelta())


def test_missing_hour_is_refused() -> None:
    with pytest.raises(ValueError, match="'2026-03-29 02:30:00' does not exist in Europe/Berlin: clocks were set"):
        read("2026-03-29 02:30:00", zone="Europe/Berlin")


def test_rows_out_of_order_in_a_repeated_hour_are_refused() -> None:
    local = [datetime(2026, 10, 25, 2, minute) for minute in (10, 20, 10, 20, 10)]
    with pytest.raises(ValueError, match="in the repeated hour of Europe/Berlin and out of order"):
        reading_of(local, "Europe/Berlin")


def test_series_are_told_apart_in_a_repeated_hour() -> None:
    """Rows of several machines with the same time are in the same pass."""
    reader = TimeReader(TimeOptions(zone="Europe/Berlin"))
    texts = ["2026-10-25 02:00", "2026-10-25 02:30"] * 2
    times = [reader.read(text, machine) for text in texts for machine in ("a", "b")]
    assert times[::2] == times[1::2] == sorted(set(times))
    assert reader.repeated == 8


def test_times_with_an_offset_need_no_zone() -> None:
    assert read("2026-10-25T02:30:00+01:00", zone="Europe/Berlin") == read("2026-10-25T01:30:00Z")
    assert read("1793000000", zone="Europe/Berlin") == 1_793_000_000_000_000


@pytest.mark.parametrize("options", [{"form": "days"}, {"zone": "Mars/Olympus"}, {"zone": "../etc/passwd"}])
def test_unknown_time_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(TimeOptionsError, match=r"is not a (format of times|time zone)"):
        TimeOptions(**options)
