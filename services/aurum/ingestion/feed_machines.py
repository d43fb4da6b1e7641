"""The numbers of the machines of the feed, and to whom they fall among the members that share them."""

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aurum.readings.machine_shares import Hashes, name_hash, owners_of

Members = tuple[str, ...]
Indices = npt.NDArray[np.int16]

_MAX_MEMBERSHIPS = 8  # whose division of the machines is kept: the present one and some that followers leave
_AT_ONCE = 500_000  # pairs of a machine and a member that are weighed without a pause, some milliseconds


class FeedMachines:
    """Numbers machines from 0. They are bounded by the limit on machines."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._hashes = array("Q")
        self._divisions: OrderedDict[Members, Division] = OrderedDict()  # the most recently used last

    def __len__(self) -> int:
        """Returns the number of machines."""
        return len(self._names)

    def number(self, machine_id: str) -> int:
        """Returns the number of a machine. A new one gets the next number."""
        number = self._numbers.setdefault(machine_id, len(self._names))
        if number == len(self._names):
            self._names.append(machine_id)
            self._hashes.append(name_hash(machine_id))
        return number

    def names(self, first: int) -> list[str]:
        """Returns the machines with numbers from `first` on."""
        return self._names[first:]

    def hashes(self, first: int, end: int) -> Hashes:
        """Returns the hashes of machines by their numbers in [first, end)."""
        return np.array(self._hashes[first:end], np.uint64)

    def division(self, members: Sequence[str]) -> "Division":
        """Returns the division of the machines among members, which all followers with these members share."""
        key = tuple(sorted(set(members)))
        division = self._divisions.get(key)
        if division is None:
            division = self._divisions[key] = Division(self, key)
            while len(self._divisions) > _MAX_MEMBERSHIPS:
                self._divisions.popitem(last=False)
        self._divisions.move_to_end(key)
        return division


class Division:
    """To which member each machine falls.

    Attributes:
        members: The distinct names of the members, sorted.
    """

    def __init__(self, machines: FeedMachines, members: Members) -> None:
        self._machines = machines
        self._owners: Indices = np.zeros(0, np.int16)  # by number of the machine; room for more at the end
        self._known = 0
        self.members = members

    async def extend(self) -> None:
        """Decides to whom the machines fall that are new, with pauses for the event loop."""
        most = max(1, _AT_ONCE // len(self.members))
        while self._known < len(self._machines):
            end = min(self._known + most, len(self._machines))
            if end > len(self._owners):
                room = np.zeros(max(1024, 2 * len(self._owners), end), np.int16)
                room[: self._known] = self._owners[: self._known]
                self._owners = room
            self._owners[self._known : end] = owners_of(self._machines.hashes(self._known, end), self.members)
            self._known = end
            if end < len(self._machines):
                await asyncio.sleep(0)

    @property
    def owners(self) -> Indices:
        """The index of the member for each machine, by number. Machines that are newer than `extend` are missing."""
        return self._owners[: self._known]
