"""Which sequences of a source were stored: sorted, disjoint, non-adjacent ranges, one for a source that counts up."""

from bisect import bisect_right
from dataclasses import dataclass

Range = tuple[int, int]  # first and last sequence, both included


@dataclass(frozen=True, slots=True)
class Change:
    """What recording a sequence does to the ranges: `removed` give way to `added`."""

    removed: tuple[Range, ...]
    added: Range


def contains(ranges: list[Range], sequence: int) -> bool:
    """Whether the sequence was stored."""
    index = bisect_right(ranges, (sequence, 2**64)) - 1
    return index >= 0 and sequence <= ranges[index][1]


def record(ranges: list[Range], sequence: int) -> Change:
    """Adds a sequence that was not there; changes `ranges` in place and says how."""
    index = bisect_right(ranges, (sequence, 2**64))
    first = last = sequence
    start = end = index
    if index > 0 and ranges[index - 1][1] == sequence - 1:
        start, first = index - 1, ranges[index - 1][0]
    if index < len(ranges) and ranges[index][0] == sequence + 1:
        end, last = index + 1, ranges[index][1]
    change = Change(tuple(ranges[start:end]), (first, last))
    ranges[start:end] = [change.added]
    return change
