"""The life of an alarm, as ISA-18.2 (IEC 62682) has its states: a fold of `apply` over the transitions in its journal.

                 acknowledge                        clear
    unacknowledged ───────→ acknowledged ───────────────────→ normal
         │ clear                                               ↑
         └──────→ returned (cleared before anybody saw it) ────┘ acknowledge

An operator may shelve an alarm for a time; a design may suppress it. It goes on underneath, and is where it would
have been when that ends.
"""

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["normal", "unacknowledged", "acknowledged", "returned", "shelved", "suppressed"]
Kind = Literal["raised", "cleared", "acknowledged", "shelved", "unshelved", "suppressed", "unsuppressed"]


@dataclass(frozen=True, slots=True)
class Transition:
    """by: who did it; empty for the platform. until_us: of a shelving. value: what raised or cleared it."""

    kind: Kind
    machine_id: str
    rule: str
    at_us: int
    by: str = ""
    until_us: int = 0
    value: float | None = None
    reason: str = ""

    @property
    def alarm_id(self) -> str:
        return alarm_id(self.machine_id, self.rule)


@dataclass(frozen=True, slots=True)
class Alarm:
    """raised_us, cleared_us, acknowledged_us: when that was last; 0 if never. count: how often it was raised."""

    machine_id: str
    rule: str
    active: bool = False
    acknowledged: bool = True
    suppressed: bool = False
    shelved_until_us: int = 0
    raised_us: int = 0
    cleared_us: int = 0
    acknowledged_us: int = 0
    acknowledged_by: str = ""
    shelved_by: str = ""
    reason: str = ""
    value: float | None = None
    count: int = 0

    @property
    def alarm_id(self) -> str:
        return alarm_id(self.machine_id, self.rule)

    def state(self, now_us: int) -> State:
        if self.suppressed:
            return "suppressed"
        if self.shelved_until_us > now_us:
            return "shelved"
        if self.active:
            return "acknowledged" if self.acknowledged else "unacknowledged"
        return "normal" if self.acknowledged else "returned"


def alarm_id(machine_id: str, rule: str) -> str:
    """Of an alarm: safe in URLs, since a machine id has no ~."""
    return f"{machine_id}~{rule}"


def apply(alarm: Alarm, transition: Transition) -> Alarm:
    """The alarm after a transition. One that changes nothing, such as a second raise, leaves it as it is."""
    at, changed = transition.at_us, alarm
    match transition.kind:
        case "raised" if not alarm.active:
            count = alarm.count + 1
            changed = replace(alarm, active=True, acknowledged=False, raised_us=at, value=transition.value, count=count)
        case "cleared" if alarm.active:
            changed = replace(alarm, active=False, cleared_us=at)
        case "acknowledged" if not alarm.acknowledged:
            changed = replace(alarm, acknowledged=True, acknowledged_us=at, acknowledged_by=transition.by)
        case "shelved":
            until, by, reason = transition.until_us, transition.by, transition.reason
            changed = replace(alarm, shelved_until_us=until, shelved_by=by, reason=reason)
        case "unshelved":
            changed = replace(alarm, shelved_until_us=0, shelved_by="", reason="")
        case "suppressed" | "unsuppressed":
            changed = replace(alarm, suppressed=transition.kind == "suppressed")
    return changed


def changes(alarm: Alarm, transition: Transition) -> bool:
    return apply(alarm, transition) != alarm
