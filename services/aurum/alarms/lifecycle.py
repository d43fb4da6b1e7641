"""The states of an alarm by ISA-18.2 (IEC 62682).

The state is a fold of `apply_transition` over the transitions in the journal.

                 acknowledge                        clear
    unacknowledged ───────→ acknowledged ───────────────────→ normal
         │ clear                                               ↑
         └──────→ returned (cleared while unacknowledged) ───┘ acknowledge

An operator may shelve an alarm for a limited time, and a rule may suppress it by design. Meanwhile the alarm keeps
changing its underlying state, which is visible again afterwards.

If many machines of one gateway or site fall silent together, a parent alarm stands for them and suppresses theirs. What
is raised under a parent needs no acknowledgement of its own, until it is released because the parent ends.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

AlarmState = Literal["normal", "unacknowledged", "acknowledged", "returned", "shelved", "suppressed"]
Quantity = Literal["risk", "rul", "anomaly", "sensor", "rate", "silence"]
Priority = Literal["low", "medium", "high", "urgent"]
TransitionKind = Literal[
    "raised", "cleared", "acknowledged", "shelved", "unshelved", "suppressed", "unsuppressed", "commented"
]

_DIGEST = 12  # characters
CHATTER_RAISES, CHATTER_US = 3, 600_000_000  # an alarm that is raised so often within this time chatters
# Why the platform cleared an alarm whose condition did not end
RULE_REMOVED = "the rule was removed"
RULE_CHANGED = "the rule was changed"
TYPE_NOT_COVERED = "the rule does not cover this type of machine"
OTHERS_RETURNED = "most machines of the group send again"  # why a parent releases an alarm

GROUP_PREFIX = "@"  # of the machine_id of a parent alarm; no id of a machine begins so
Cause = Literal["gateway_away", "gateway_idle", "gateway_partial", "site"]


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of an alarm's state, as an entry of the journal.

    Attributes:
        kind: What happened.
        machine_id: The machine.
        rule: The name of the alarm rule.
        at_us: When it happened, in µs since 1970.
        by: The operator; empty for the platform.
        until_us: The end of a shelving, in µs since 1970.
        value: The value that raised or cleared the alarm.
        reason: The reason for a shelving or for an acknowledgement of several alarms, or why the platform cleared an
            alarm whose condition may still hold.
        text: The text of the rule when it raised the alarm.
        priority: Its priority then.
        quantity: What the rule limits.
        sensor: The sensor, if the rule limits a reading or its rate of change.
        limit: The limit that was exceeded.
        gateway: Of silence: the gateway from which the readings of the machine came, or the group of a parent.
        site: Likewise the site.
        parent: The id of the parent alarm that suppresses this one, or releases it.
        cause: Of a parent: what is known of why its machines are silent.
        comment: What an operator wrote about the alarm.
        past: Whether it was found later, in a simulated past. It is history only, and changes no present state.
    """

    kind: TransitionKind
    machine_id: str
    rule: str
    at_us: int
    by: str = ""
    until_us: int = 0
    value: float | None = None
    reason: str = ""
    text: str = ""
    priority: Priority | Literal[""] = ""
    quantity: Quantity | Literal[""] = ""
    sensor: str = ""
    limit: float | None = None
    gateway: str = ""
    site: str = ""
    parent: str = ""
    cause: Cause | Literal[""] = ""
    comment: str = ""
    past: bool = False

    @property
    def alarm_id(self) -> str:
        """The id of the alarm, MACHINE~RULE."""
        return alarm_id(self.machine_id, self.rule)

    @property
    def entry_id(self) -> str:
        """What identifies the entry among those of its time. Processes that detect the same transition get the same."""
        of_kind = f"{self.alarm_id}~{self.kind}"
        if not self.comment:
            return of_kind
        digest = hashlib.sha256(f"{self.by}\0{self.comment}".encode()).hexdigest()[:_DIGEST]
        return f"{of_kind}~{digest}"  # two comments of the same time are two entries


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm rule for one machine, with its state. Times are in µs since 1970; 0 means never.

    Attributes:
        machine_id: The machine.
        rule: The name of the alarm rule.
        active: Whether the condition holds.
        acknowledged: Whether an operator has acknowledged the last raise. True for an alarm that was never raised.
        suppressed: Whether the rule hides the alarm.
        shelved_until_us: The end of the shelving.
        raised_us: When the alarm was last raised.
        cleared_us: When it was last cleared.
        acknowledged_us: When it was last acknowledged.
        acknowledged_by: Who acknowledged it.
        shelved_by: Who shelved it.
        reason: Why it was shelved.
        value: The value that raised it.
        count: How often it was raised.
        text: The text of the rule when it was last raised; empty if an older version raised it.
        priority: Its priority then.
        quantity: What the rule limits.
        sensor: The sensor, if the rule limits a reading or its rate of change.
        limit: The limit that was exceeded.
        recent_raises: When it was raised the last times, in µs since 1970, the oldest first; at most CHATTER_RAISES.
        gateway: Of silence: the gateway from which the readings of the machine came, or the group of a parent.
        site: Likewise the site.
        cause: Of a parent: what was known of why its machines are silent.
        parent: The id of the parent alarm that suppresses this one; empty if none does.
        apart: Whether a parent has released it since it was raised, so that it stays an alarm of its own.
        comment: The last comment of an operator.
        commented_by: Who wrote it.
        commented_us: When it was written.
    """

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
    text: str = ""
    priority: Priority | Literal[""] = ""
    quantity: Quantity | Literal[""] = ""
    sensor: str = ""
    limit: float | None = None
    recent_raises: tuple[int, ...] = ()
    gateway: str = ""
    site: str = ""
    cause: Cause | Literal[""] = ""
    parent: str = ""
    apart: bool = False
    comment: str = ""
    commented_by: str = ""
    commented_us: int = 0

    @property
    def alarm_id(self) -> str:
        """The id of the alarm, MACHINE~RULE."""
        return alarm_id(self.machine_id, self.rule)

    @property
    def is_parent(self) -> bool:
        """Whether it stands for the machines of a gateway or site that are silent together."""
        return self.machine_id.startswith(GROUP_PREFIX)

    @property
    def chatters(self) -> bool:
        """Whether it was raised CHATTER_RAISES times within CHATTER_US, by ISA-18.2 and EEMUA 191."""
        raises = self.recent_raises
        return len(raises) == CHATTER_RAISES and raises[-1] - raises[0] <= CHATTER_US

    def state(self, now_us: int) -> AlarmState:
        """Returns the state at a time in µs since 1970, which decides whether a shelving has ended."""
        if self.suppressed or self.parent:
            return "suppressed"
        if self.shelved_until_us > now_us:
            return "shelved"
        if self.active:
            return "acknowledged" if self.acknowledged else "unacknowledged"
        return "normal" if self.acknowledged else "returned"


def alarm_id(machine_id: str, rule: str) -> str:
    """Returns the id of the alarm of a rule for a machine. Machine ids contain no ~, so the id can be split again."""
    return f"{machine_id}~{rule}"


def apply_transition(alarm: Alarm, transition: Transition) -> Alarm:
    """Returns the alarm after a transition. One without effect, such as a second raise, leaves it unchanged."""
    at, changed = transition.at_us, alarm
    if transition.past:
        return alarm
    match transition.kind:
        case "raised" if not alarm.active:
            changed = _raised(alarm, transition)
        case "cleared" if alarm.active or alarm.parent:
            changed = replace(alarm, active=False, cleared_us=at, parent="", apart=False)
        case "acknowledged" if not alarm.acknowledged:
            changed = replace(alarm, acknowledged=True, acknowledged_us=at, acknowledged_by=transition.by)
        case "shelved":
            until, by, reason = transition.until_us, transition.by, transition.reason
            changed = replace(alarm, shelved_until_us=until, shelved_by=by, reason=reason)
        case "unshelved":
            changed = replace(alarm, shelved_until_us=0, shelved_by="", reason="")
        case "suppressed" | "unsuppressed":
            changed = _suppressed(alarm, transition)
        case "commented":
            changed = replace(alarm, comment=transition.comment, commented_by=transition.by, commented_us=at)
    return changed


def _raised(alarm: Alarm, transition: Transition) -> Alarm:
    """Returns an alarm after a raise. One under a parent needs no acknowledgement of its own."""
    return replace(
        alarm,
        active=True,
        acknowledged=bool(alarm.parent),
        raised_us=transition.at_us,
        value=transition.value,
        count=alarm.count + 1,
        text=transition.text,
        priority=transition.priority,
        quantity=transition.quantity,
        sensor=transition.sensor,
        limit=transition.limit,
        recent_raises=alarm.recent_raises if alarm.parent else _with_raise(alarm, transition.at_us),
        gateway=transition.gateway,
        site=transition.site,
        cause=transition.cause,
        apart=False,
    )


def _suppressed(alarm: Alarm, transition: Transition) -> Alarm:
    """Returns an alarm that its rule or a parent suppresses, or suppresses no more."""
    if not transition.parent:
        return replace(alarm, suppressed=transition.kind == "suppressed")
    if transition.kind == "suppressed":
        return replace(alarm, parent=transition.parent)
    return _released(alarm, transition.at_us)


def _released(alarm: Alarm, at_us: int) -> Alarm:
    """Returns an alarm that its parent suppresses no more. If it is active, it is as if it were raised now."""
    if not alarm.parent:
        return alarm
    if not alarm.active:
        return replace(alarm, parent="")
    raises = _with_raise(alarm, at_us)
    return replace(alarm, parent="", apart=True, acknowledged=False, recent_raises=raises)


def _with_raise(alarm: Alarm, at_us: int) -> tuple[int, ...]:
    return (*alarm.recent_raises, at_us)[-CHATTER_RAISES:]


def has_effect(alarm: Alarm, transition: Transition) -> bool:
    """Returns whether a transition changes an alarm."""
    return apply_transition(alarm, transition) != alarm
