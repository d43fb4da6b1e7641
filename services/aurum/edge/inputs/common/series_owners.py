"""Which tag stores each sensor of each machine, over the inputs of a gateway, so that two tags never mix in one series.

The first tag keeps the series. Another one gets it when the first has stored nothing for ten minutes, or is gone: a
device may have been renamed, or have moved to another input.
"""

from collections.abc import Callable
from typing import Protocol

from aurum.edge.inputs.common.tag import Tag
from aurum.readings.batch import now_us

SILENT_US = 600_000_000  # µs without a stored value after which another tag may store the series


class TagHolder(Protocol):
    """The tags of an input."""

    @property
    def name(self) -> str:
        """The name of the input."""

    def lose(self, tag: Tag, other: Tag, winner: str) -> None:
        """Stops storing a tag, because `other` of the input `winner` stores its series from now on."""


class SeriesOwners:
    """The owners of all series. It has an entry for each tag that its holders remember, and no more.

    Args:
        clock: Returns the time in µs since the epoch.
    """

    def __init__(self, clock: Callable[[], int] = now_us) -> None:
        self.now_us = clock
        self._owners: dict[tuple[str, str], tuple[TagHolder, Tag]] = {}

    def claim(self, holder: TagHolder, tag: Tag) -> tuple[TagHolder, Tag] | None:
        """Makes a tag the owner of its series, unless another one is in use.

        Returns:
            The present owner, if it keeps the series; None if `tag` owns it.
        """
        series = (tag.machine_id, tag.sensor)
        now = self.now_us()
        owner = self._owners.get(series)
        if owner is not None and owner[1] is not tag:
            if owner[1].held or now - owner[1].used_us < SILENT_US:
                return owner
            owner[0].lose(owner[1], tag, holder.name)
        self._owners[series] = holder, tag
        tag.used_us = now
        return None

    def release(self, tag: Tag) -> None:
        """Forgets a tag, so that another one may store its series."""
        series = (tag.machine_id, tag.sensor)
        owner = self._owners.get(series)
        if owner is not None and owner[1] is tag:
            del self._owners[series]

    def __len__(self) -> int:
        return len(self._owners)
