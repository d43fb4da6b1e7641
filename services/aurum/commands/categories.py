"""Reads columns of words, such as the grade of a product, as numbers that stand for the words."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from aurum.commands.table_names import listed, natural_order
from aurum.readings.batch import Values
from aurum.readings.number_text import DEFAULT_ABSENT_WORDS, fold_words

Words = tuple[str, ...]
MOST_WORDS = 32  # of a category; a column with more is an id or a text
_MOST_READ = 1000
_LEAST_ROWS = 2  # of each word, on average; fewer show an id
_SCALES = tuple(
    scale.split()
    for scale in (
        *("l m h", "low medium high", "low mid high", "s m l", "small medium large"),
        *("off on", "no yes", "false true"),
    )
)


def coded(texts: Sequence[str], *, all_words: bool) -> tuple[Words, Values] | None:
    """Returns the words of a column and for each row the index of its word, NaN without one.

    The words are in the order of a known scale, such as low, medium, high, or else in natural order.

    Args:
        texts: The cells.
        all_words: Whether a single word, or a great number of them, is a category too.

    Returns:
        None if the column is no category: a single word, too many words, or words that hardly repeat.
    """
    cells = [" ".join(text.split()) for text in texts]
    counted = Counter(cell for cell in cells if cell.casefold() not in DEFAULT_ABSENT_WORDS)
    most, rows = (_MOST_READ, 0) if all_words else (MOST_WORDS, _LEAST_ROWS)
    if not 1 + (not all_words) <= len(counted) <= most or sum(counted.values()) < rows * len(counted):
        return None
    words = ordered_words(list(counted))
    code = {word: float(index) for index, word in enumerate(words)}
    return words, np.array([code.get(cell, np.nan) for cell in cells])


def category_note(name: str, words: Words) -> str:
    """Returns that a column is a category, as text."""
    return f"{name}: category of {len(words)} words, {listed(words)}"


def recode(values: Values, words: Words, known: Sequence[str]) -> tuple[Values, list[str]]:
    """Returns codes by the words of a table as codes by the words that a model knows.

    Args:
        values: Codes by `words`; NaN without a word.
        words: The words of the table.
        known: The words of the model. They are compared exactly, or without capitals if that is unambiguous.

    Returns:
        The codes, NaN for words that the model does not know; and these words.
    """
    exact = {word: float(index) for index, word in enumerate(known)}
    folded: Mapping[str, float] = {next(iter(fold_words([word]))): code for word, code in exact.items()}
    unambiguous = len(folded) == len(exact)
    codes = [
        exact.get(word, folded.get(next(iter(fold_words([word]))), np.nan) if unambiguous else np.nan) for word in words
    ]
    translated = np.full(len(values), np.nan)
    present = ~np.isnan(values)
    translated[present] = np.array(codes)[values[present].astype(np.intp)]
    return translated, [word for word, code in zip(words, codes, strict=True) if np.isnan(code)]


def ordered_words(words: Sequence[str]) -> Words:
    """Returns words in the order of a known scale, or else in natural order."""
    by_fold = {word.casefold(): word for word in words}
    if len(by_fold) == len(words):
        for scale in _SCALES:
            if set(by_fold) <= set(scale):
                return tuple(by_fold[step] for step in scale if step in by_fold)
    return tuple(sorted(words, key=lambda word: (natural_order(word.casefold()), word)))
