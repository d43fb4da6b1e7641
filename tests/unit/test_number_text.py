"""Numbers in text, as plants write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.readings.number_text import DEFAULT_ABSENT_WORDS, fold_words, parse_number

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE)
def test_each_finite_number_is_read_from_its_text(number: float) -> None:
    assert parse_number(f" {number!r}\t") == number
    assert parse_number(repr(number).replace(".", ","), decimal_comma=True) == number


@given(st.integers(-(10**9), 10**9), st.integers(0, 999))
def test_grouped_thousands_are_read_with_decimal_comma(whole: int, part: int) -> None:
    text = f"{whole:,}".replace(",", ".") + f",{part:03}"
    assert parse_number(text, decimal_comma=True) == float(f"{whole}.{part:03}")


@pytest.mark.parametrize(
    "text",
    ["", "  ", "NaN", "-nan", "null", "Bad", "BAD INPUT", "No Data", "I/O  Timeout", "#N/A", "Pt Created", "n/a"],
)
def test_words_of_historians_are_absent_values(text: str) -> None:
    assert parse_number(text) is None
    assert parse_number(text, decimal_comma=True) is None


@pytest.mark.parametrize("text", ["ON", "73.2 %", "73,2", "inf", "-Infinity", "1e999", "1_000", "0x10", "1.2.3", "1 2"])
def test_other_texts_are_not_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        parse_number(text)


@pytest.mark.parametrize("text", ["1.234", "21.4", "1,2,3", "1.23,4", ",", "1234.567,8"])
def test_ambiguous_decimal_commas_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number with a decimal comma"):
        parse_number(text, decimal_comma=True)


def test_a_plant_adds_its_own_absent_words() -> None:
    words = DEFAULT_ABSENT_WORDS | fold_words(["Kein  Wert", "-9999"])
    assert parse_number(" kein wert ", absent_words=words) is None
    assert parse_number(" -9999", absent_words=words) is None
    with pytest.raises(ValueError, match="'kein wert' is not a number"):
        parse_number("kein wert")
