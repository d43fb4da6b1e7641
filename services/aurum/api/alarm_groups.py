"""Alarms that stand for the machines of a gateway or site: their machines, their text, and who may see them."""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence

from aurum.alarms.lifecycle import GROUP_PREFIX, Alarm, Transition
from aurum.api.alarm_schemas import GroupOut, SilentMachineOut
from aurum.api.machine_cache import MachineCache
from aurum.api.serializers import to_datetime

_MOST_SITES = 20_000  # of groups that are remembered; the latest ones
_MOST_MACHINES = 1000  # of a group in an answer

_CAUSES = {
    "gateway_away": "the gateway is not connected",
    "gateway_idle": "the gateway is connected, and sends nothing",
    "gateway_partial": "the gateway sends readings of other machines",
    "site": "the machines of the site send nothing",
}


class GroupSites:
    """The sites of groups, by which callers may see them."""

    def __init__(self) -> None:
        self._sites: collections.OrderedDict[str, str] = collections.OrderedDict()

    def note(self, transition: Transition) -> None:
        """Notes the site of a group that an entry of the journal states."""
        if transition.machine_id.startswith(GROUP_PREFIX) and transition.kind == "raised":
            self._sites[transition.machine_id] = transition.site
            self._sites.move_to_end(transition.machine_id)
            while len(self._sites) > _MOST_SITES:
                self._sites.popitem(last=False)

    def site_of(self, machine_id: str) -> str | None:
        """Returns the site of a group, given by what stands for the machine in its alarms; None if it is unknown."""
        return self._sites.get(machine_id)


def is_group(machine_id: str) -> bool:
    """Returns whether an alarm concerns a group of machines, given by its field `machine_id`."""
    return machine_id.startswith(GROUP_PREFIX)


def shown_machine(machine_id: str) -> str:
    """Returns the machine of an alarm as answers show it: empty for a group."""
    return "" if is_group(machine_id) else machine_id


def members_by_parent(alarms: Iterable[Alarm]) -> Mapping[str, Sequence[Alarm]]:
    """Returns the active alarms that each parent suppresses, by the id of the parent."""
    found: dict[str, list[Alarm]] = collections.defaultdict(list)
    for alarm in alarms:
        if alarm.parent and alarm.active:
            found[alarm.parent].append(alarm)
    return found


def group_text(gateway: str, site: str, machines: int | None = None) -> str:
    """Returns the text of a group's alarm.

    Args:
        gateway: The gateway; empty for a group of a site.
        site: The site; empty if it is unknown.
        machines: How many machines are silent; None if it is not to be said.
    """
    where = f"Gateway {gateway}{f' ({site})' if site else ''}" if gateway else f"Site {site}"
    if machines == 0:
        return f"{where}: all machines send again"
    return f"{where}: {'machines' if machines is None else f'{machines} machines'} send no readings"


def group_of_entries(alarm: Alarm | None, entries: Iterable[Transition]) -> tuple[str, str]:
    """Returns the gateway and the site of a group's alarm: of its last raise among entries, or else of the alarm."""
    raised = [entry for entry in entries if entry.kind == "raised"]
    if raised:
        return raised[-1].gateway, raised[-1].site
    return (alarm.gateway, alarm.site) if alarm else ("", "")


def group_out(
    parent: Alarm, members: Sequence[Alarm], cache: MachineCache, is_visible: Callable[[str], bool] | None
) -> GroupOut:
    """Returns what a parent stands for.

    Args:
        parent: The parent.
        members: The active alarms that it suppresses.
        cache: The machines.
        is_visible: Whether the caller may see a machine; None if it may see all.
    """
    visible = [alarm for alarm in members if is_visible is None or is_visible(alarm.machine_id)]
    silent = sorted((_silent_since(alarm, cache), alarm.machine_id) for alarm in visible)
    return GroupOut(
        gateway=parent.gateway or None,
        site=parent.site or None,
        cause=parent.cause or None,
        cause_text=_CAUSES.get(parent.cause),
        since=to_datetime(silent[0][0] if silent else parent.raised_us - int((parent.value or 0.0) * 1e6)),
        count=len(silent),
        machines=[
            SilentMachineOut(machine_id=machine_id, since=to_datetime(since))
            for since, machine_id in silent[:_MOST_MACHINES]
        ],
    )


def _silent_since(alarm: Alarm, cache: MachineCache) -> int:
    """Returns the time of the last reading of a silent machine in µs since 1970, also if the cache lacks it."""
    machine = cache.get_machine(alarm.machine_id)
    if machine is not None and machine.last_seen_us:
        return machine.last_seen_us
    return alarm.raised_us - int((alarm.limit or 0.0) * 1e6)
