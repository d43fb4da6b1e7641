"""Tells failures from a column of flags or state words. A word that is not known is asked about, never a failure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Values
from aurum.readings.number_text import fold_words

_EMPTY = fold_words(["", "-", "NA", "N/A", "#N/A", "NaN", "null", "(null)", "nil"])
HEALTHY_WORDS = fold_words([
    *("0", "no", "n", "none", "false", "normal", "healthy", "ok", "good", "pass", "passed", "neg", "negative"),
    *("no failure", "no fault", "not failed", "running", "operational", "in operation", "up"),
    *("falso", "faux", "falsch", "nein", "nee", "non", "gesund", "in ordnung", "normale"),
])  # fmt: skip
_FAILED = fold_words([
    *("failure", "failed", "fail", "fault", "faulty", "broken", "broken down", "breakdown", "defect", "defective"),
    *("defekt",),
])  # fmt: skip
FAILURE_WORDS = _FAILED | fold_words([
    *("1", "yes", "y", "true", "pos", "positive", "verdadeiro", "verdadero", "vero", "vrai", "wahr", "ja", "oui"),
])  # fmt: skip
_MOST_NAMED = 10


class UnknownStateError(ValueError):
    """A column of states has words whose meaning is not known. The message lists them and the options that tell it."""


@dataclass(frozen=True, slots=True)
class StateWords:
    """What words in a column of failures mean, as far as it is declared. They are compared without capitals.

    Attributes:
        healthy: Words of a machine that works.
        failure: Words of a machine that has failed.
        ignored: Words of rows that are left out, such as those of a repair.
    """

    healthy: Sequence[str] = ()
    failure: Sequence[str] = ()
    ignored: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.healthy or self.failure or self.ignored)


@dataclass(frozen=True, slots=True)
class States:
    """The states of the rows of a table.

    Attributes:
        faults: 1 for each row at a failure, else 0.
        ignored: Which rows are left out.
        note: What the words were taken for.
    """

    faults: Values
    ignored: npt.NDArray[np.bool_]
    note: str


def has_failure_word(texts: Sequence[str], declared: StateWords) -> bool:
    """Whether any of the words names a failure, which `yes` does not, or is declared as one."""
    return not fold_words(set(texts)).isdisjoint(_FAILED | fold_words(declared.failure))


def states_of(name: str, texts: Sequence[str], declared: StateWords, place: str) -> States:
    """Returns the states of rows. Empty cells are healthy.

    Args:
        name: The column, for messages.
        texts: The word of each row.
        declared: The words that options name. They have precedence over the usual ones.
        place: The file, for messages.

    Raises:
        UnknownStateError: The meaning of a word is not known, or a declared word does not occur.
    """
    counted = Counter(texts)
    meaning = {word: _meaning(word, declared) for word in counted}
    unknown = sorted((word for word, means in meaning.items() if means is None), key=lambda word: -counted[word])
    if unknown:
        raise UnknownStateError(_question(name, unknown, counted, place))
    occurring = fold_words(counted)
    for option, words in (
        ("--healthy", declared.healthy),
        ("--failure-value", declared.failure),
        ("--ignore", declared.ignored),
    ):
        absent = next((word for word in words if not fold_words([word]) <= occurring), None)
        if absent is not None:
            shown = ", ".join(repr(word) for word, _ in counted.most_common(_MOST_NAMED))
            raise UnknownStateError(
                f"{place}, column {name!r} has no {absent!r}, which {option} names; its words are {shown}"
            )
    return States(
        np.array([float(meaning[text] == "failure") for text in texts]),
        np.array([meaning[text] == "ignored" for text in texts], dtype=bool),
        _note(name, counted, meaning),
    )


def _meaning(word: str, declared: StateWords) -> str | None:
    folded = _plain(next(iter(fold_words([word]))))
    for meaning, words in (("healthy", declared.healthy), ("failure", declared.failure), ("ignored", declared.ignored)):
        if folded in map(_plain, fold_words(words)):
            return meaning
    if folded in FAILURE_WORDS:
        return "failure"
    return "healthy" if folded in HEALTHY_WORDS or folded in _EMPTY else None


def _plain(word: str) -> str:
    """Returns a whole number without its decimals: 1.0 is 1."""
    try:
        number = float(word)
    except ValueError:
        return word
    return f"{number:g}"


def _question(name: str, unknown: Sequence[str], counted: Counter[str], place: str) -> str:
    shown = ", ".join(f"{word[:40]!r} ({counted[word]} rows)" for word in unknown[:_MOST_NAMED])
    more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
    return (
        f"{place}, column {name!r}: are these failures: {shown}{more}? Name each of them with --failure-value, "
        f"--healthy, or --ignore (rows to leave out). If the column does not tell failures, name the one that does "
        f"with --failure, or leave it out with --exclude {name!r}"
    )


def _note(name: str, counted: Counter[str], meaning: dict[str, str | None]) -> str:
    parts = []
    for means, label in (("failure", "failure"), ("healthy", "healthy"), ("ignored", "left out")):
        words = [f"{word.strip() or 'empty'} ({count})" for word, count in counted.items() if meaning[word] == means]
        if words:
            shown = ", ".join(words[:_MOST_NAMED])
            parts.append(f"{label}: {shown}{' …' if len(words) > _MOST_NAMED else ''}")
    return f"failures by {name!r} ({'; '.join(parts)})"
