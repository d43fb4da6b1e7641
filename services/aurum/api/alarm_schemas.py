"""JSON models of alarms."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from aurum.alarms.lifecycle import AlarmState, Cause, Priority, Quantity, TransitionKind


class SilentMachineOut(BaseModel):
    """A machine that is silent together with others."""

    machine_id: str
    since: datetime = Field(description="The time of its last reading.")


class GroupOut(BaseModel):
    """What an alarm of a group stands for: machines of a gateway or site that fell silent together."""

    gateway: str | None = Field(description="The gateway that sends the readings of the machines; null for a site.")
    site: str | None = Field(description="The site of the machines.")
    cause: Cause | None = Field(description="What was known of the cause when the alarm was raised.")
    cause_text: str | None = Field(description="The same in words.")
    since: datetime = Field(description="The earliest of their last readings.")
    count: int = Field(description="How many machines are silent.")
    machines: list[SilentMachineOut] = Field(description="The machines, at most 1,000.")


class AlarmOut(BaseModel):
    """An alarm: one rule for one machine, with its state by ISA-18.2."""

    id: str
    machine_id: str
    rule: str
    text: str
    priority: Priority
    state: AlarmState = Field(
        description="State; `returned` means that the condition ended before the alarm was acknowledged."
    )
    active: bool = Field(description="Whether the condition holds, also while the alarm is shelved or suppressed.")
    value: float | None = Field(description="The value that raised the alarm.")
    quantity: Quantity = Field(description="What the rule limits.")
    sensor: str | None = Field(description="The sensor, if the rule limits a reading or its rate of change.")
    limit: float | None = Field(
        description="The limit, in the unit of the value; of a rate per minute, of silence in seconds."
    )
    present_value: float | None = Field(description="The present value, if it is known; of a rate it never is.")
    chatters: bool = Field(
        description="Whether the alarm was raised three times in ten minutes; it is then cleared only after its "
        "condition has been over for ten minutes."
    )
    raised_at: datetime | None
    cleared_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    shelved_until: datetime | None
    shelved_by: str | None
    reason: str | None
    count: int = Field(description="How often the alarm was raised.")
    site: str = Field(description="Site of the machine; empty if it is not registered.")
    line: str = Field(description="Production line of the machine by the accounting plan; empty without one.")
    comment: str | None = Field(description="The last comment; the journal has all of them.")
    commented_by: str | None
    commented_at: datetime | None
    parent: str | None = Field(None, description="The id of the alarm of a group that suppresses this one.")
    group: GroupOut | None = Field(
        None, description="The machines, if the alarm stands for a group of them; machine_id is empty then."
    )


class AlarmLimitOut(BaseModel):
    """The limit of an alarm rule."""

    rule: str
    text: str
    priority: Priority
    quantity: Quantity = Field(description="What the rule limits.")
    sensor: str | None = Field(description="The sensor, if the rule limits a reading or its rate of change.")
    limit: float = Field(
        description="The limit, in the unit of the value; of a rate per minute, of silence in seconds. That of an "
        "anomaly is the usual one, if its rule refers to the model's threshold."
    )
    above: bool = Field(description="Whether values above the limit raise the alarm, rather than those below.")


class AlarmLimits(BaseModel):
    """The limits of the alarm rules that apply to a machine."""

    machine_id: str
    items: list[AlarmLimitOut] = Field(description="Limits, in the order of the rules.")


class FloodOut(BaseModel):
    """Whether there are more alarms than an operator can handle."""

    active: bool = Field(description="True above ten alarms in ten minutes, until they are fewer than five.")
    since: datetime | None
    last_ten_minutes: int


class AlarmsOut(BaseModel):
    """The alarms that match a query."""

    items: list[AlarmOut]
    counts: dict[str, int] = Field(description="Number of all visible alarms by state.")
    flood: FloodOut


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AcknowledgeIn(_In):
    """The body of an acknowledgement or unshelving."""

    by: str = Field("", max_length=100, description="Operator's name; ignored if callers are authenticated.")


class ShelveIn(_In):
    """The body of a shelving."""

    minutes: float = Field(gt=0, le=7 * 24 * 60, description="Duration of the shelving in minutes, at most a week.")
    by: str = Field("", max_length=100, description="Operator's name; ignored if callers are authenticated.")
    reason: str = Field("", max_length=500)


class CommentIn(_In):
    """The body of a comment."""

    text: str = Field(min_length=1, max_length=1000)
    by: str = Field("", max_length=100, description="Operator's name; ignored if callers are authenticated.")


AlarmIds = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=200)]],
    Field(min_length=1, max_length=300, description="Ids of the alarms, at most 300."),
]


class AcknowledgeManyIn(_In):
    """The body of an acknowledgement of many alarms."""

    ids: AlarmIds
    by: str = Field("", max_length=100, description="Operator's name; ignored if callers are authenticated.")
    reason: str = Field("", max_length=500, description="Why they are acknowledged together.")


class ShelveManyIn(_In):
    """The body of a shelving of many alarms. Either `minutes` or `until` is given; with `until` it can be repeated."""

    ids: AlarmIds
    minutes: float | None = Field(None, gt=0, le=7 * 24 * 60, description="Duration in minutes, at most a week.")
    until: datetime | None = Field(None, description="End of the shelving, with a time zone; at most in a week.")
    by: str = Field("", max_length=100, description="Operator's name; ignored if callers are authenticated.")
    reason: str = Field("", max_length=500)


class BulkItemOut(BaseModel):
    """What became of one alarm."""

    id: str
    done: bool = Field(description="Whether the alarm now is as the action makes it.")
    changed: bool = Field(description="False if it already was so before.")
    state: AlarmState | None
    problem: str | None = Field(description="Kind of problem if it is not done, such as alarm-not-found.")
    detail: str | None = Field(description="The problem in words.")


class BulkOut(BaseModel):
    """What became of each alarm, in the order of the request; an alarm that was named twice is listed once."""

    items: list[BulkItemOut]


class TransitionOut(BaseModel):
    """An entry of the alarm journal."""

    at: datetime
    id: str
    machine_id: str
    rule: str
    text: str = Field(description="Text of the alarm when it was raised; the present text of the rule if unknown.")
    transition: TransitionKind
    by: str | None
    until: datetime | None
    value: float | None
    reason: str | None
    parent: str | None = Field(None, description="The id of the alarm of a group that suppresses or releases this one.")
    gateway: str | None = Field(None, description="The gateway, if the alarm stands for machines of one.")
    site: str | None = Field(None, description="The site, if the alarm stands for machines of one.")
    cause: Cause | None = Field(None, description="What was known of the cause, if such an alarm was raised.")
    priority: Priority = Field(description="Priority of the alarm when it was raised; that of the rule if unknown.")
    comment: str | None


class JournalOut(BaseModel):
    """A part of the alarm journal."""

    items: list[TransitionOut] = Field(
        description="Transitions, the newest first. They may be fewer than `limit`, even none, although there are more."
    )
    next_cursor: str | None = Field(description="`cursor` of the next page; null if there are no older transitions.")


Order = Literal["priority", "newest"]
