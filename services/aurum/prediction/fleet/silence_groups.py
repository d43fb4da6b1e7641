"""Decides when one alarm stands for the machines of a gateway or site that are silent together.

It is free of I/O and of the journal. A parent begins when MOST_ALONE + 1 machines of a group have fallen silent within
the limit of the rule from each other. It ends when half of them have sent again and the others have had the limit of
the rule to follow, so that a gateway that returns does not release machines that report a moment later. A parent that
chatters, because its gateway flaps, is cleared only after it has had no machines for CHATTER_US; machines that fall
silent meanwhile join it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aurum.alarms.lifecycle import CHATTER_US, GROUP_PREFIX, Cause, Priority
from aurum.alarms.rules import PRIORITIES
from aurum.prediction.fleet.step_locator import Integers

MOST_ALONE = 2  # machines of a group that are silent by alarms of their own
_GATHER_US = 10_000_000  # for which a silent machine waits for others that may follow; at most a quarter of the limit
_DIGITS = 12  # of the id of a group

Group = tuple[str, str]
"""A gateway and a site, of which one may be empty."""
NO_GROUP: Group = ("", "")


@dataclass(frozen=True, slots=True)
class Senders:
    """From where the readings of machines come, by the number of the machine.

    Attributes:
        gateway_names: The names of gateways.
        gateways: The number of the gateway of each machine.
        site_names: The names of sites.
        sites: The number of the site of each machine.
        connected: The gateways that are connected to ingestion.
    """

    gateway_names: Sequence[str]
    gateways: Integers
    site_names: Sequence[str]
    sites: Integers
    connected: frozenset[str] = frozenset()

    def group_of(self, machine: int) -> Group:
        """Returns the group of a machine."""
        return self.gateway_names[int(self.gateways[machine])], self.site_names[int(self.sites[machine])]


def group_id(group: Group) -> str:
    """Returns what stands for the machine in the id of a parent alarm."""
    return GROUP_PREFIX + hashlib.sha256("\n".join(group).encode()).hexdigest()[:_DIGITS]


def parent_priority(priority: Priority) -> Priority:
    """Returns the priority of a parent, which is one above that of its machines."""
    return PRIORITIES[min(len(PRIORITIES) - 1, PRIORITIES.index(priority) + 1)]


def cause_of(group: Group, connected: frozenset[str], *, whole: bool) -> Cause:
    """Returns what is known of why the machines of a group are silent.

    Args:
        group: The group.
        connected: The gateways that are connected to ingestion.
        whole: Whether all machines of the group are silent.
    """
    if not group[0]:
        return "site"
    if group[0] not in connected:
        return "gateway_away"
    return "gateway_idle" if whole else "gateway_partial"


def gather_us(limit_us: int) -> int:
    """Returns for how long a silent machine waits for others. limit_us: The limit of the rule in µs."""
    return min(_GATHER_US, limit_us // 4)


def together_since(last_seen: Iterable[int], limit_us: int) -> int:
    """Returns from which last reading on, in µs since 1970, machines are silent together with the latest of them.

    Args:
        last_seen: The times of their last readings in µs since 1970.
        limit_us: The limit of the rule in µs.
    """
    return max(last_seen, default=0) - limit_us


@dataclass(slots=True)
class GroupState:
    """What is remembered of a group while its parent is active.

    Attributes:
        most: The greatest number of its machines that were silent at a time.
        recovering_us: Since when half of them have sent again, in µs since 1970; 0 if they have not.
        empty_us: Since when no machine is under the parent, in µs since 1970; 0 if there are some.
    """

    most: int = 0
    recovering_us: int = 0
    empty_us: int = 0

    def continues(self, silent: int, at_us: int, limit_us: int) -> bool:
        """Notes how many machines are silent under the parent, and returns whether it continues.

        Args:
            silent: Their number.
            at_us: The present time in µs since 1970.
            limit_us: The limit of the rule in µs.
        """
        self.most = max(self.most, silent)
        if 2 * silent > self.most and silent > MOST_ALONE:
            self.recovering_us = 0
            return True
        self.recovering_us = self.recovering_us or at_us
        return silent > 0 and at_us - self.recovering_us < limit_us

    def note_members(self) -> None:
        """Notes that machines are under the parent."""
        self.empty_us = 0

    def is_over(self, at_us: int, *, chatters: bool) -> bool:
        """Notes that no machine is under the parent, and returns whether the parent is to be cleared.

        Args:
            at_us: The present time in µs since 1970.
            chatters: Whether the parent chatters.
        """
        self.most, self.recovering_us = 0, 0  # machines that fall silent from now on are counted anew
        self.empty_us = self.empty_us or at_us
        return not chatters or at_us - self.empty_us >= CHATTER_US
