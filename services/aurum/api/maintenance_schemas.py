"""JSON models of maintenance records."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from aurum.maintenance.records import RecordKind


class MaintenanceIn(BaseModel):
    """A maintenance record to store."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, allow_inf_nan=False)

    text: str = Field(min_length=1, max_length=500, examples=["Bearing replaced"])
    by: str = Field("", max_length=100)
    kind: RecordKind | None = Field(
        None,
        description="An overhaul, or the replacement of what wears, begins a new life of the machine, and a failure "
        "ends it; repair and inspection do neither. Without a kind it is a note.",
    )
    component: str = Field("", max_length=100, examples=["drive-end bearing"])
    failure_mode: str = Field("", max_length=100, examples=["bearing wear"])
    cost: float | None = Field(None, ge=0, le=1e12, description="In the currency of the cost table.")
    downtime: float | None = Field(None, ge=0, le=1e6, description="Hours for which the machine was not available.")
    at: str | None = Field(None, description="The same as `from`, which it precedes.")
    from_: str | None = Field(
        None,
        alias="from",
        description="When the work began or the machine failed, ISO 8601 or a number since 1970; by default now.",
    )
    to: str | None = Field(None, description="When the machine was back in service; in the past, not before `from`.")


class MaintenanceEdit(MaintenanceIn):
    """The new content of a maintenance record. It replaces all fields; without a time, the present one stays."""

    revision: int | None = Field(
        None, ge=0, description="The revision that is edited. If it is not the present one, the request is refused."
    )


class MaintenanceOut(BaseModel):
    """A maintenance record."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    at: datetime = Field(description="The same as `from`.")
    text: str
    by: str
    kind: RecordKind | None = Field(None, description="Null for a note.")
    component: str = ""
    failure_mode: str = ""
    cost: float | None = None
    downtime: float | None = Field(None, description="Hours.")
    from_: datetime = Field(alias="from")
    to: datetime | None = None
    revision: int = Field(0, description="How often it was edited.")


class MaintenanceRecords(BaseModel):
    """The maintenance records of a machine."""

    machine_id: str
    items: list[MaintenanceOut] = Field(description="Items, the newest first.")


class MaintenanceChange(BaseModel):
    """A change of a maintenance record."""

    at: datetime
    by: str
    action: Literal["created", "edited", "deleted"]
    before: dict[str, Any] | None
    after: dict[str, Any]


class MaintenanceChanges(BaseModel):
    """The changes of a maintenance record."""

    machine_id: str
    record_id: str
    items: list[MaintenanceChange] = Field(description="Items, the newest first.")


class SensorLevelsOut(BaseModel):
    """The levels of a sensor that shows wear before a stop, and reads as at the beginning after it."""

    sensor: str
    begin: float = Field(description="Mean at the beginning of the life.")
    before: float = Field(description="Mean before the stop.")
    after: float = Field(description="Mean after the stop.")


class LifeSuggestionOut(BaseModel):
    """A stop after which the machine reads as at the beginning of its life."""

    stopped_at: datetime = Field(description="The last reading before the stop.")
    resumed_at: datetime = Field(description="The first reading after the stop.")
    levels: list[SensorLevelsOut] = Field(description="The sensors that read as at the beginning again.")
    staying: list[str] = Field(description="The sensors that show wear and do not.")


class LifeSuggestionsOut(BaseModel):
    """The stops after which a machine reads as at the beginning of its life."""

    machine_id: str
    since: datetime = Field(description="The beginning of the readings that were examined.")
    sensors: int = Field(description="Sensors that were examined.")
    sensors_left_out: int = Field(
        description="Sensors that were not examined, since there are too many readings or sensors."
    )
    items: list[LifeSuggestionOut] = Field(description="Items, the newest first.")
