"""JSON models of reports on alarms."""

from datetime import datetime

from pydantic import BaseModel, Field

from aurum.alarms.lifecycle import AlarmState, Priority
from aurum.api.alarm_schemas import TransitionOut


class _PeriodOut(BaseModel):
    start: datetime
    end: datetime
    site: str = Field(description="The site; empty for all that the caller may see.")
    complete_from: datetime = Field(
        description="From when on all entries of the journal were read: the start, unless there are too many entries."
    )


class _ReportedAlarmOut(BaseModel):
    id: str
    machine_id: str = Field(description="The machine; empty if the alarm stands for a group of machines.")
    gateway: str | None = Field(None, description="The gateway of a group.")
    site: str | None = Field(None, description="The site of a group.")
    rule: str
    text: str


class OpenAlarmOut(_ReportedAlarmOut):
    """An alarm that is open at the end of the period."""

    priority: Priority
    state: AlarmState
    raised_at: datetime | None = Field(description="When it was raised; null if that was before the period.")


class RaisedAlarmOut(_ReportedAlarmOut):
    """An alarm with how often it was raised in the period."""

    priority: Priority
    count: int


class ShelvedAlarmOut(_ReportedAlarmOut):
    """An alarm that is shelved at the end of the period."""

    until: datetime
    by: str | None
    reason: str | None


class WorstMachineOut(BaseModel):
    """A machine with its raises in the period and its open alarms at the end."""

    machine_id: str
    raised: int
    open: int


class HandoverOut(_PeriodOut):
    """What a shift hands over. Each list has at most 500 items, and the counts are of all."""

    raised: int
    cleared: int
    acknowledged: int
    open_count: int
    shelved_count: int
    comment_count: int
    open: list[OpenAlarmOut] = Field(
        description="Alarms that are active or not acknowledged at the end; the urgent and then the oldest first."
    )
    raised_alarms: list[RaisedAlarmOut] = Field(description="Alarms that were raised, the most frequent first.")
    shelved: list[ShelvedAlarmOut]
    comments: list[TransitionOut]
    worst: list[WorstMachineOut] = Field(description="The machines with most raises, at most ten.")


class FrequencyOut(BaseModel):
    """How often a rule or machine raised alarms, and its share of all raises."""

    name: str
    text: str | None = Field(None, description="Text of the rule; null for a machine, and for a rule that was removed.")
    count: int
    share: float


class AlarmFiguresOut(_PeriodOut):
    """Figures by ANSI/ISA-18.2 and EEMUA 191, see docs/alarms.md. Rates are per ten minutes and operator position."""

    positions: int
    intervals: int = Field(description="Complete intervals of ten minutes.")
    raised: int = Field(description="Raises that were announced: neither shelved nor suppressed.")
    average_rate: float | None
    peak_rate: float | None
    busy_share: float | None = Field(description="Share of intervals with more than ten raises per position.")
    flood_share: float | None = Field(description="Share of intervals in a flood.")
    by_priority: dict[Priority, float]
    top_rules: list[FrequencyOut]
    top_rules_share: float
    top_machines: list[FrequencyOut]
    top_machines_share: float
    top_alarms_share: float = Field(description="Share of the ten most frequent alarms.")
    chattering: list[str] = Field(description="Alarms that were raised three times in ten minutes, at most 100.")
    chattering_count: int
    stale: list[str] = Field(description="Alarms that were active for more than 24 hours at the end, at most 100.")
    stale_count: int
