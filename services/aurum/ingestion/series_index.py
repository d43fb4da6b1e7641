"""Numbers for the series of a store, so that readings of many series are handled by array operations."""

import threading
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Numbers, SeriesKey, SeriesKeys, interned_key

UNKNOWN = -1  # in place of the number of a series that has none


class SeriesIndex:
    """The series of a store and their machines. Both are numbered in the order in which they are added.

    A number stands for the same series for as long as the process runs. May be used by several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[SeriesKey, int] = {}
        self._keys: list[SeriesKey | None] = []  # by series number; None for numbers that were left out
        self._machine_of = np.empty(1024, np.int32)  # by series number
        self._machine_numbers: dict[str, int] = {}
        self._machine_ids: list[str] = []  # by machine number
        self._series_of: list[list[int]] = []  # by machine number: the numbers of its series

    def __len__(self) -> int:
        """Returns the number that follows the highest one of a series."""
        return len(self._keys)

    @property
    def machines(self) -> int:
        """How many machines there are; their numbers are below."""
        return len(self._machine_ids)

    def load(self, series: Iterable[tuple[int, str, str]]) -> None:
        """Adds the series of a store, each with its number, machine and sensor, in the order of their numbers."""
        with self._lock:
            for number, machine_id, sensor in series:
                self._keys += [None] * (number - len(self._keys))
                self._add((machine_id, sensor))

    def find(self, keys: SeriesKeys) -> Numbers:
        """Returns the number of each series, or UNKNOWN."""
        return keys.numbers_in(self, self._find)

    def assign(self, keys: SeriesKeys) -> Numbers:
        """Returns the number of each series. Those that are new get the next numbers."""
        numbers = self.find(keys)
        if len(numbers) and numbers.min() == UNKNOWN:
            with self._lock:
                for place in np.flatnonzero(numbers == UNKNOWN).tolist():
                    if keys.keys[place] not in self._numbers:
                        self._add(keys.keys[place])
            numbers = self.find(keys)
        return numbers

    def number_of(self, key: SeriesKey) -> int | None:
        """Returns the number of a series, or None."""
        return self._numbers.get(key)

    def key_of(self, number: int) -> SeriesKey:
        """Returns the series with a number. Raises KeyError."""
        key = self._keys[number] if 0 <= number < len(self._keys) else None
        if key is None:
            raise KeyError(number)
        return key

    def added_since(self, number: int) -> list[tuple[int, SeriesKey]]:
        """Returns the series with this number or a higher one."""
        with self._lock:
            added = self._keys[number:]
        return [(place, key) for place, key in enumerate(added, start=number) if key is not None]

    def machines_of(self, numbers: Numbers) -> Numbers:
        """Returns the machine number of each series."""
        return self._machine_of[numbers]

    def machine_number(self, machine_id: str) -> int | None:
        """Returns the number of a machine, or None if it has no series."""
        return self._machine_numbers.get(machine_id)

    def machine_id(self, machine_number: int) -> str:
        """Returns the machine with a number."""
        return self._machine_ids[machine_number]

    def series_of(self, machine_id: str) -> list[int]:
        """Returns the numbers of the series of a machine."""
        machine = self._machine_numbers.get(machine_id)
        return [] if machine is None else list(self._series_of[machine])

    def _find(self, keys: Sequence[SeriesKey]) -> Numbers:
        get = self._numbers.get
        return np.fromiter((get(key, UNKNOWN) for key in keys), np.int32, len(keys))

    def _add(self, key: SeriesKey) -> None:
        key = interned_key(key)
        number, machine_id = len(self._keys), key[0]
        machine = self._machine_numbers.get(machine_id)
        if machine is None:
            machine = len(self._machine_ids)
            self._machine_ids.append(machine_id)
            self._series_of.append([])
            self._machine_numbers[machine_id] = machine
        if number >= len(self._machine_of):
            self._machine_of = _grown(self._machine_of, number + 1)
        self._machine_of[number] = machine
        self._series_of[machine].append(number)
        self._keys.append(key)
        self._numbers[key] = number  # last, so that a number that is found can be used


def _grown(array: npt.NDArray[np.int32], least: int) -> npt.NDArray[np.int32]:
    """Returns a copy of an array with room for at least `least` items."""
    larger = np.empty(max(least, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger
