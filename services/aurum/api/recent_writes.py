"""When this replica last wrote readings of each machine, which a prediction right afterwards takes into account."""

import collections
import time
from collections.abc import Callable, Iterable

_REMEMBERED_US = 60_000_000
_MOST_MACHINES = 10_000


class RecentWrites:
    """The machines whose readings were acknowledged within the last minute. Use it from one event loop.

    Args:
        clock: Present time in seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._written: collections.OrderedDict[str, int] = collections.OrderedDict()  # the latest last

    def note(self, machine_ids: Iterable[str]) -> None:
        """Notes that readings of machines were acknowledged."""
        now_us = int(self._clock() * 1e6)
        for machine_id in machine_ids:
            self._written[machine_id] = now_us
            self._written.move_to_end(machine_id)
        while self._written and (
            len(self._written) > _MOST_MACHINES or next(iter(self._written.values())) < now_us - _REMEMBERED_US
        ):
            self._written.popitem(last=False)

    def last(self, machine_id: str) -> int:
        """Returns when readings of a machine were last acknowledged, in µs since 1970; 0 if it is not remembered."""
        return self._written.get(machine_id, 0)
