"""Detects changes of a mean with ADWIN (Bifet and Gavaldà, 2007), which keeps the longest window without a change.

River's `drift.ADWIN` gives the same results. It is not used here because importing it also imports scikit-learn and
SciPy, which takes seconds and 110 MB in a service that needs neither.
"""

import math

_DELTA = 0.002  # bound on the probability of a false alarm at one check
_CHECK_EVERY = 32  # values
_ROW = 5  # buckets of one size; of one more, the two oldest become a bucket of the next size
_LEAST_PART = 5  # values in a part of the window that is compared


class MeanChanges:
    """Detects a change when two parts of the window have means that differ by more than chance explains.

    The window consists of buckets of 1, 2, 4, … values, so its memory and time grow with the logarithm of its length.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._rows: list[list[float]] = [[]]  # sums of the buckets of 2**row values, the oldest first
        self._values = 0
        self._sum = 0.0
        self._squares = 0.0  # sum of the squared deviations from the mean

    def update(self, value: float) -> bool:
        """Adds a value. Returns whether the mean has changed; if so, the window is cleared."""
        if self._values:
            deviation = value - self._sum / self._values
            self._squares += deviation * deviation * self._values / (self._values + 1)
        self._values += 1
        self._sum += value
        self._rows[0].append(value)
        self._merge()
        if self._values % _CHECK_EVERY or not self._changed():
            return False
        self._start()
        return True

    def _merge(self) -> None:
        for index, row in enumerate(self._rows):
            if len(row) <= _ROW:
                return
            if index + 1 == len(self._rows):
                self._rows.append([])
            self._rows[index + 1].append(row[0] + row[1])
            del row[:2]

    def _changed(self) -> bool:
        """Whether the window can be cut into an older and a newer part whose means differ."""
        bound = math.log(2 * math.log(self._values) / _DELTA)
        spread = 2 * self._squares / self._values * bound
        older, newer = 0, self._values
        older_sum, newer_sum = 0.0, self._sum
        for index in range(len(self._rows) - 1, -1, -1):
            size = 1 << index
            for total in self._rows[index]:
                older, newer = older + size, newer - size
                older_sum, newer_sum = older_sum + total, newer_sum - total
                if newer < _LEAST_PART:
                    return False
                if older < _LEAST_PART:
                    continue
                weight = 1 / (older - _LEAST_PART + 1) + 1 / (newer - _LEAST_PART + 1)
                if abs(older_sum / older - newer_sum / newer) > math.sqrt(weight * spread) + 2 / 3 * weight * bound:
                    return True
        return False
