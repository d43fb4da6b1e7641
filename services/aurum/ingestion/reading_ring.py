"""The latest readings in the order in which they became durable, in columns that are overwritten in turn."""

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Timestamps, Values

Numbers = npt.NDArray[np.uint32]
Readings = tuple[Numbers, Timestamps, Values]

READING_BYTES = 20


class ReadingRing:
    """Holds as many of the latest readings as fit.

    The memory is reserved at once, and taken by the operating system as it is filled.

    Attributes:
        end: The number of readings that were ever appended.
    """

    def __init__(self, max_bytes: int) -> None:
        self._capacity = max_bytes // READING_BYTES
        self._numbers: Numbers = np.empty(self._capacity, "<u4")
        self._timestamps: Timestamps = np.empty(self._capacity, "<i8")
        self._values: Values = np.empty(self._capacity, "<f8")
        self.end = 0

    @property
    def oldest(self) -> int:
        """The position of the oldest reading that is held."""
        return max(0, self.end - self._capacity)

    @property
    def nbytes(self) -> int:
        """The bytes of the readings that are held."""
        return (self.end - self.oldest) * READING_BYTES

    def append(self, numbers: Numbers, timestamps: Timestamps, values: Values) -> None:
        """Appends readings: the number of the series, the time and the value of each."""
        count = len(numbers)
        done = max(0, count - self._capacity)  # earlier ones would be overwritten at once
        while done < count:
            at = (self.end + done) % self._capacity
            some = min(count - done, self._capacity - at)
            self._numbers[at : at + some] = numbers[done : done + some]
            self._timestamps[at : at + some] = timestamps[done : done + some]
            self._values[at : at + some] = values[done : done + some]
            done += some
        self.end += count

    def read(self, start: int, end: int) -> Readings:
        """Returns readings in [start, end) that are held, from `start` on: at least one, and as many as are contiguous.

        The arrays are views, valid until the next `append`.
        """
        at = start % self._capacity
        stop = at + min(end - start, self._capacity - at)
        return self._numbers[at:stop], self._timestamps[at:stop], self._values[at:stop]
