"""Reads numbers as plants write them in text: with words of historians for absent values, and with decimal commas."""

import math
import re
from collections.abc import Iterable

_MAX_SHOWN = 40  # characters of a text in an error
_GROUPED = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+(e[+-]?\d+)?", re.IGNORECASE)  # 1.234,5


def fold_words(words: Iterable[str]) -> frozenset[str]:
    """Returns words in the form that `parse_number` compares: without case, and with single spaces."""
    return frozenset(" ".join(word.split()).casefold() for word in words)


DEFAULT_ABSENT_WORDS = fold_words([
    *("", "-", "--", "---", "?", "NA", "N/A", "NaN", "-NaN", "null", "(null)", "nil", "none", "missing"),
    *("Bad", "Bad Data", "Bad Input", "Bad Output", "Set to Bad", "Invalid", "Invalid Data", "Invalid Float", "Error"),
    *("No Data", "No Sample", "No Result", "No Value", "Pt Created", "Snapshot", "Configure", "Calc Failed"),
    *("Calc Timeout", "I/O Timeout", "Scan Timeout", "Scan Off", "Timeout", "Comm Fail", "Equip Fail", "Failed"),
    *("Intf Shut", "Shutdown", "Not Connect", "Not Connected", "Out of Serv", "Out of Service", "Access Denied"),
    *("Over Range", "Under Range", "Unit Down", "DCS Failed", "Arc Off-line", "unavailable", "unknown"),
    *("#N/A", "#NA", "#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "1.#QNAN", "-1.#IND"),
])  # fmt: skip
"""What historians (PI, Wonderware), spreadsheets and home automation write in place of a value."""


def parse_number(
    text: str, *, absent_words: frozenset[str] = DEFAULT_ABSENT_WORDS, decimal_comma: bool = False
) -> float | None:
    """Reads a number.

    Args:
        text: The text. Spaces around it are ignored.
        absent_words: Texts in place of an absent value, as returned by `fold_words`.
        decimal_comma: Whether the decimal sign is a comma. Points may then only separate thousands, as in 1.234,5.

    Returns:
        The number, which is finite. None if the value is absent.

    Raises:
        ValueError: If the text is neither a finite number nor an absent value.
    """
    try:  # most texts are plain numbers
        value = float(_with_point(text) if decimal_comma else text)
    except ValueError:
        value = math.inf
    if math.isfinite(value) and "_" not in text:
        return None if text.strip() in absent_words else value
    if math.isnan(value) or " ".join(text.split()).casefold() in absent_words:
        return None
    shown = text.strip()[:_MAX_SHOWN]
    if not decimal_comma and "," in shown:
        raise ValueError(f"{shown!r} is not a number; declare the decimal comma if the comma is one")
    raise ValueError(f"{shown!r} is not a number{' with a decimal comma' if decimal_comma else ''}")


def _with_point(text: str) -> str:
    """Returns a number with a point in place of its decimal comma. Raises ValueError if a point is ambiguous."""
    if "." in text:
        if not _GROUPED.fullmatch(text.strip()):
            raise ValueError(text)
        text = text.replace(".", "")
    return text.replace(",", ".")
