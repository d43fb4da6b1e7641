"""Keeps the values of two devices that give the same machine and sensor apart."""

import collections
from collections.abc import Callable

DeviceKey = tuple[str, str, str | None]  # group, node, device; None for the node itself

_MAX_TAGS = 200_000  # beyond this the ones that were used longest ago are forgotten


class TagOwners:
    """Which device sends each sensor of each machine.

    Args:
        is_alive: Whether a device is born and has not died.
    """

    def __init__(self, is_alive: Callable[[DeviceKey], bool]) -> None:
        self._is_alive = is_alive
        self._owners: collections.OrderedDict[tuple[str, str], DeviceKey] = collections.OrderedDict()

    def other_owner(self, machine: str, sensor: str, device: DeviceKey) -> DeviceKey | None:
        """Returns the living device that already sends a sensor of a machine; None if `device` is or becomes its owner.

        A device whose owner died takes its place, as when the node of a device is replaced.
        """
        tag = (machine, sensor)
        owner = self._owners.get(tag)
        if owner is not None and owner != device and self._is_alive(owner):
            return owner
        self._owners[tag] = device
        self._owners.move_to_end(tag)
        if len(self._owners) > _MAX_TAGS:
            self._owners.popitem(last=False)
        return None
