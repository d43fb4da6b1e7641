"""JSON models of the alarm rules, their revisions and the preview of a rule."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from aurum.alarms.rule_changes import RuleChange
from aurum.alarms.rules import AlarmRule

By = Annotated[str, Field(max_length=100, description="Author's name; ignored if callers are authenticated.")]
Reason = Annotated[str, Field(min_length=1, max_length=500, description="Why the rules change.")]
Expected = Annotated[
    int, Field(ge=0, description="`revision` as it was read before the change; 409 if there is a newer one.")
]


class RulesOut(BaseModel):
    """The alarm rules in force."""

    revision: int = Field(description="Number of the newest stored revision; 0 if none was stored.")
    source: Literal["file", "stored"] = Field(
        description="Whether the rules of the file are in force (AURUM_ALARM_RULES, or the built-in ones), or those of "
        "the revision."
    )
    file_changed: bool = Field(
        description="Whether the file has changed since the revision in force was stored. Restoring revision 0 goes "
        "back to the file."
    )
    stored_at: datetime | None = Field(description="When the newest revision was stored.")
    by: str | None
    reason: str | None
    rules: list[AlarmRule]


class RevisionOut(BaseModel):
    """A revision of the alarm rules."""

    revision: int
    at: datetime
    by: str | None
    reason: str
    source: Literal["file", "stored"] = Field(description="Whether it went back to the rules of the file.")
    restores: int | None = Field(description="The revision that it repeats, 0 for the file; null if it repeats none.")
    changes: list[str] = Field(description="What it changed, one text for each rule; the first ones if there are many.")
    rule_changes: list[RuleChange] = Field(
        description="`changes` for programs; empty for revisions of earlier versions."
    )
    change_count: int = Field(description="How many rules it changed.")


class RevisionsOut(BaseModel):
    """A part of the revisions of the alarm rules."""

    items: list[RevisionOut] = Field(description="Revisions, the newest first.")
    next_cursor: str | None = Field(description="`cursor` of the next page; null if there are no older revisions.")


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RulesIn(_In):
    """The body of a change: the whole set of rules."""

    revision: Expected
    rules: list[dict[str, Any]] = Field(description="All rules, each as GET /api/alarms/rules returns it.")
    reason: Reason
    by: By = ""


class RestoreIn(_In):
    """The body of a return to an earlier revision."""

    restores: int = Field(ge=0, description="The revision whose rules come into force again; 0 for the file.")
    revision: Expected
    reason: Reason
    by: By = ""


class PreviewIn(_In):
    """The body of a preview."""

    rule: dict[str, Any] = Field(description="The rule, as in GET /api/alarms/rules.")


class PreviewedMachineOut(BaseModel):
    """How often a rule would have raised the alarm of one machine."""

    machine_id: str
    raised: int
    last_at: datetime = Field(description="When it would have been raised last.")


class PreviewOut(BaseModel):
    """How often a rule would have raised alarms in the last week, by what is stored."""

    start: datetime
    end: datetime
    raised: int = Field(description="Alarms in all machines that were examined.")
    machines: int = Field(description="Machines that were examined.")
    machines_in_all: int = Field(description="Machines to which the rule applies.")
    machines_with_data: int = Field(description="Machines with readings or predictions that the rule needs.")
    readings: int = Field(description="Readings or predictions that were examined.")
    data_from: datetime | None = Field(description="Time of the earliest of them; null if there were none.")
    stopped_by: Literal["machines", "readings", "time"] | None = Field(
        description="The limit that ended the preview before all machines were examined; null if all were."
    )
    most: list[PreviewedMachineOut] = Field(description="The ten machines with most alarms.")
