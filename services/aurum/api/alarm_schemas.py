"""JSON models of alarms."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from aurum.alarms.lifecycle import AlarmState, TransitionKind
from aurum.alarms.rules import Priority


class AlarmOut(BaseModel):
    id: str
    machine_id: str
    rule: str
    text: str
    priority: Priority
    state: AlarmState = Field(
        description="unacknowledged; acknowledged; returned, over before it was seen; shelved; suppressed; normal."
    )
    active: bool = Field(description="Whether what it is about is the case, also while shelved or suppressed.")
    value: float | None = Field(description="That raised it.")
    raised_at: datetime | None
    cleared_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    shelved_until: datetime | None
    shelved_by: str | None
    reason: str | None
    count: int = Field(description="How often it was raised.")


class FloodOut(BaseModel):
    active: bool = Field(description="More than ten alarms in ten minutes, until they are fewer than five.")
    since: datetime | None
    last_ten_minutes: int


class AlarmsOut(BaseModel):
    items: list[AlarmOut]
    counts: dict[str, int] = Field(description="Of all alarms, by state.")
    flood: FloodOut


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AcknowledgeIn(_In):
    by: str = Field("", max_length=100)


class ShelveIn(_In):
    minutes: float = Field(gt=0, le=7 * 24 * 60, description="At most a week: a shelved alarm has an end.")
    by: str = Field("", max_length=100)
    reason: str = Field("", max_length=500)


class TransitionOut(BaseModel):
    at: datetime
    id: str
    machine_id: str
    rule: str
    transition: TransitionKind
    by: str | None
    until: datetime | None
    value: float | None
    reason: str | None


class JournalOut(BaseModel):
    items: list[TransitionOut] = Field(description="The newest first.")


Order = Literal["priority", "newest"]
