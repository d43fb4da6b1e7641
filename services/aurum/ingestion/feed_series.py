"""The numbers of the series whose readings are in the feed."""

from array import array
from collections.abc import Sequence
from sys import intern

import numpy as np
import numpy.typing as npt

from aurum.ingestion.feed_machines import FeedMachines
from aurum.ingestion.reading_ring import Numbers


class FeedSeries:
    """Numbers series from 0 in the order of their first readings.

    They are bounded by the limits on machines and sensors, since only readings that were accepted come here.
    """

    def __init__(self, machines: FeedMachines) -> None:
        self._machines = machines
        self._numbers: dict[tuple[str, str], int] = {}
        self._keys: list[tuple[str, str]] = []
        self._machine_of = array("i")  # by series

    def __len__(self) -> int:
        """Returns the number of series."""
        return len(self._keys)

    def number(self, keys: Sequence[tuple[str, str]]) -> Numbers:
        """Returns the number of each series, given as machine and sensor. New series get the next numbers."""
        numbers = [*map(self._numbers.get, keys)]
        if None in numbers:
            numbers = [self._add(key) if number is None else number for key, number in zip(keys, numbers, strict=True)]
        return np.array(numbers, np.uint32)

    def key(self, number: int) -> tuple[str, str]:
        """Returns the machine and the sensor of a series."""
        return self._keys[number]

    def machines(self, first: int) -> npt.NDArray[np.int32]:
        """Returns the number of the machine of each series from `first` on."""
        return np.array(self._machine_of[first:], np.int32)

    def _add(self, key: tuple[str, str]) -> int:
        key = intern(key[0]), intern(key[1])  # each batch has its own copies of the names
        number = self._numbers.setdefault(key, len(self._keys))
        if number == len(self._keys):
            self._keys.append(key)
            self._machine_of.append(self._machines.number(key[0]))
        return number
