"""How inputs read numbers in text. Imported tables read them in the same way, so the rules are in aurum.readings."""

from aurum.readings.number_text import DEFAULT_ABSENT_WORDS, fold_words, parse_number

__all__ = ["DEFAULT_ABSENT_WORDS", "fold_words", "parse_number"]
