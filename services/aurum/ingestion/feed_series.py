"""The series of the feed, by the numbers that the store has given to them."""

from array import array

import numpy as np
import numpy.typing as npt

from aurum.ingestion.feed_machines import FeedMachines
from aurum.ingestion.reading_ring import Numbers
from aurum.ingestion.series_index import SeriesIndex
from aurum.readings.batch import SeriesKey, SeriesKeys


class FeedSeries:
    """The machines of the store's series, by the numbers that the feed gives to machines."""

    def __init__(self, index: SeriesIndex, machines: FeedMachines) -> None:
        self._index = index
        self._machines = machines
        self._machine_of = array("i")  # by series

    def __len__(self) -> int:
        """Returns the number that follows the highest one of a series."""
        self._extend()
        return len(self._machine_of)

    def number(self, keys: SeriesKeys) -> Numbers:
        """Returns the number of each series of a batch that is stored."""
        return self._index.assign(keys).astype(np.uint32)

    def key(self, number: int) -> SeriesKey:
        """Returns the machine and the sensor of a series."""
        return self._index.key_of(number)

    def machines(self, first: int, end: int) -> npt.NDArray[np.int32]:
        """Returns the number of the machine of each series in [first, end); 0 for numbers that are left out."""
        return np.array(self._machine_of[first:end], np.int32)

    def _extend(self) -> None:
        known = len(self._machine_of)
        if known == len(self._index):
            return
        for number, key in self._index.added_since(known):
            self._machine_of.extend([0] * (number - len(self._machine_of)))
            self._machine_of.append(self._machines.number(key[0]))
