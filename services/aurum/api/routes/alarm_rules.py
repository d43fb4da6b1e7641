"""The alarm rules: those in force, changes by engineers, their history, and the preview of a rule."""

from typing import Annotated

from fastapi import APIRouter, Query

from aurum.alarms.rules_revision import RulesRevision
from aurum.api.alarm_preview import Preview
from aurum.api.alarm_rules import RulesDesk, parse_rule, parse_rules
from aurum.api.alarm_rules_schemas import (
    PreviewedMachineOut,
    PreviewIn,
    PreviewOut,
    RestoreIn,
    RevisionOut,
    RevisionsOut,
    RulesIn,
    RulesOut,
)
from aurum.api.context import Caller, Context
from aurum.api.routes.alarms import operator
from aurum.api.serializers import to_datetime, to_optional_datetime
from aurum.runtime.audit import Act
from aurum.runtime.errors import InvalidArgumentError

router = APIRouter(prefix="/api/alarms/rules", tags=["alarms"])


@router.get("")
async def rules_in_force(context: Context, caller: Caller) -> RulesOut:
    """Returns the alarm rules in force, and where they come from. Callers of sites see no author and reason."""
    context.rules_desk.require_loaded()
    found = _rules_out(context.rules_desk)
    return found.model_copy(update={"by": None, "reason": None}) if caller.sites else found


@router.put("")
async def replace_rules(context: Context, caller: Caller, body: RulesIn) -> RulesOut:
    """Replaces all alarm rules. Answers 409 if another revision was stored meanwhile."""
    context.rules_desk.require_loaded()
    rules = parse_rules(body.rules, "body.rules")

    async def replace(act: Act) -> RulesRevision:
        revision = await context.rules_desk.store(rules, body.revision, operator(caller, body.by), body.reason)
        act.after = _audited(revision)
        return revision

    await context.audit.perform(caller, "alarm_rules.replace", "alarm rules", replace, f"revision {body.revision}")
    return _rules_out(context.rules_desk)


@router.post("/restore")
async def restore_rules(context: Context, caller: Caller, body: RestoreIn) -> RulesOut:
    """Puts the rules of an earlier revision, or of the file, in force again. This stores a new revision."""
    context.rules_desk.require_loaded()

    async def restore(act: Act) -> RulesRevision:
        by = operator(caller, body.by)
        revision = await context.rules_desk.restore(body.restores, body.revision, by, body.reason)
        act.after = _audited(revision)
        return revision

    await context.audit.perform(caller, "alarm_rules.restore", "alarm rules", restore, f"revision {body.revision}")
    return _rules_out(context.rules_desk)


@router.get("/history")
async def rules_history(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=50)] = 20,
    cursor: Annotated[str | None, Query(max_length=20, description="next_cursor of the previous page.")] = None,
) -> RevisionsOut:
    """Returns the revisions of the alarm rules, the newest first."""
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and 0 < int(cursor) < 2**63):
        raise InvalidArgumentError.for_field("cursor", "is not the next_cursor of a page")
    revisions, before_us = await context.rules_desk.history(int(cursor or 0), limit)
    return RevisionsOut(
        items=[_revision_out(revision) for revision in revisions], next_cursor=str(before_us) if before_us else None
    )


@router.post("/preview")
async def preview_rule(context: Context, body: PreviewIn) -> PreviewOut:
    """Returns how often a rule would have raised alarms in the last week, by stored readings and predictions.

    It examines machines in the order of their ids until a limit is reached, and says which. Suppression by faults and
    by the alarm of a gateway, damped chattering, and outages of the platform are not considered.
    """
    preview = await context.rules_preview.compute(parse_rule(body.rule, "body.rule"))
    return _preview_out(preview)


def _rules_out(desk: RulesDesk) -> RulesOut:
    revision = desk.rules.revision
    return RulesOut(
        revision=desk.number,
        source="file" if desk.rules.from_file else "stored",
        file_changed=desk.rules.file_changed,
        stored_at=to_datetime(revision.at_us) if revision else None,
        by=(revision.by or None) if revision else None,
        reason=revision.reason if revision else None,
        rules=list(desk.rules.current.rules),
    )


def _revision_out(revision: RulesRevision) -> RevisionOut:
    return RevisionOut(
        revision=revision.number,
        at=to_datetime(revision.at_us),
        by=revision.by or None,
        reason=revision.reason,
        source="file" if revision.rules is None else "stored",
        restores=revision.restores,
        changes=list(revision.changes),
        rule_changes=list(revision.rule_changes),
        change_count=revision.change_count,
    )


def _preview_out(preview: Preview) -> PreviewOut:
    return PreviewOut(
        start=to_datetime(preview.start_us),
        end=to_datetime(preview.end_us),
        raised=preview.raised,
        machines=preview.machines,
        machines_in_all=preview.machines_in_all,
        machines_with_data=preview.machines_with_data,
        readings=preview.readings,
        data_from=to_optional_datetime(preview.data_from_us),
        stopped_by=preview.stopped_by,
        most=[
            PreviewedMachineOut(machine_id=each.machine_id, raised=each.raised, last_at=to_datetime(each.last_us))
            for each in preview.most
        ],
    )


def _audited(revision: RulesRevision) -> str:
    return f"revision {revision.number} ({revision.change_count} rules changed): {'; '.join(revision.changes)}"
