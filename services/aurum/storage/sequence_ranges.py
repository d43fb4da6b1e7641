"""The stored sequences of a source, as sorted, disjoint, non-adjacent ranges. A source without gaps has one range."""

from bisect import bisect_right

Range = tuple[int, int]  # first and last sequence, both inclusive


def contains(ranges: list[Range], sequence: int) -> bool:
    """Returns whether the sequence was stored."""
    index = bisect_right(ranges, (sequence, 2**64)) - 1
    return index >= 0 and sequence <= ranges[index][1]


def record(ranges: list[Range], first: int, last: int | None = None) -> None:
    """Adds a sequence, or all from `first` to `last`, to `ranges` in place. Some may be present already."""
    last = first if last is None else last
    end = bisect_right(ranges, (last + 1, 2**64))
    start = end
    while start > 0 and ranges[start - 1][1] >= first - 1:
        start -= 1
    if start < end:
        first = min(first, ranges[start][0])
        last = max(last, ranges[end - 1][1])
    ranges[start:end] = [(first, last)]
