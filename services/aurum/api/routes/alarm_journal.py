"""The history of alarms by their journal, and comments on alarms, which are kept in it."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query

from aurum.alarms.lifecycle import Alarm, Priority, Transition, TransitionKind
from aurum.api.alarm_groups import group_of_entries, group_text, is_group, shown_machine
from aurum.api.alarm_history import HistoryQuery, read_page
from aurum.api.alarm_schemas import CommentIn, JournalOut, TransitionOut
from aurum.api.context import ApiContext, Caller, Context
from aurum.api.routes.alarms import operator, require_loaded
from aurum.api.scope import require_machine, visibility_filter
from aurum.api.serializers import parse_query_time, to_datetime, to_optional_datetime
from aurum.runtime.audit import Act
from aurum.runtime.errors import NotFoundError
from aurum.security.identity import Identity

router = APIRouter(prefix="/api/alarms", tags=["alarms"])

_MOST_RULES = 50  # in one query


@router.get("/journal")
async def journal(  # noqa: PLR0917 - query parameters
    context: Context,
    caller: Caller,
    start: Annotated[str | None, Query(description="Start, inclusive; ISO 8601 or a number since 1970.")] = None,
    end: Annotated[str | None, Query(description="End, exclusive; ISO 8601 or a number since 1970.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    cursor: Annotated[str | None, Query(description="next_cursor of the previous page, with the same filters.")] = None,
    machine_id: Annotated[str, Query(description="Only alarms of this machine.")] = "",
    site: Annotated[str, Query(description="Only alarms of machines at this site.")] = "",
    rule: Annotated[
        list[str] | None, Query(max_length=_MOST_RULES, description="Names of rules; may be repeated. By default all.")
    ] = None,
    priority: Annotated[
        list[Priority] | None, Query(description="Priorities; may be repeated. By default all.")
    ] = None,
    transition: Annotated[
        list[TransitionKind] | None, Query(description="Kinds of transitions; may be repeated. By default all.")
    ] = None,
) -> JournalOut:
    """Returns the transitions of alarms, the newest first, with the operators who caused them."""
    if machine_id:
        await require_machine(context, caller, machine_id)
    priorities = frozenset(priority or ())
    query = HistoryQuery(
        start_us=parse_query_time("start", start),
        end_us=parse_query_time("end", end),
        machine_id=machine_id,
        rules=frozenset(rule or ()),
        kinds=frozenset(transition or ()),
        selects_machine=machines_at(context, caller, site),
        selects=(lambda entry: priority_of_entry(context, entry) in priorities) if priorities else None,
    )
    page = await read_page(context.ingestion, query, limit, cursor)
    return JournalOut(
        items=[transition_out(context, entry) for entry in page.transitions], next_cursor=page.next_cursor
    )


@router.post("/{alarm_id}/comments", status_code=201)
async def comment_on_alarm(context: Context, caller: Caller, alarm_id: str, body: CommentIn) -> TransitionOut:
    """Adds a comment to the journal of an alarm. The same comment again within a minute is added once."""
    require_loaded(context)

    async def comment(act: Act) -> Alarm:
        alarm = await context.alarm_service.comment(alarm_id, operator(caller, body.by), body.text)
        act.after = body.text
        return alarm

    alarm = await context.audit.perform(caller, "alarm.comment", alarm_id, comment)
    return transition_out(
        context,
        Transition(
            "commented",
            alarm.machine_id,
            alarm.rule,
            alarm.commented_us,
            alarm.commented_by,
            comment=alarm.comment,
        ),
    )


def machines_at(context: ApiContext, caller: Identity, site: str) -> Callable[[str], bool] | None:
    """Returns a predicate for the ids of machines that the caller may see, at one site or at all.

    Args:
        context: The shared objects.
        caller: Who asks.
        site: The site; empty for all.

    Returns:
        The predicate; None if it is true for all machines.

    Raises:
        NotFoundError: The caller may not see the site.
    """
    if not site:
        return visibility_filter(context, caller)
    if caller.sites and not caller.may_see(site):
        raise NotFoundError(f"there is no site {site!r}", reason="SITE_NOT_FOUND")

    def is_there(machine_id: str) -> bool:
        if is_group(machine_id):
            return context.alarm_service.site_of_group(machine_id) == site
        machine = context.machine_cache.get_machine(machine_id)
        return machine is not None and machine.site == site

    return is_there


def transition_out(context: ApiContext, entry: Transition) -> TransitionOut:
    """Converts an entry of the journal."""
    gateway, site = _group_of_entry(context, entry)
    return TransitionOut(
        at=to_datetime(entry.at_us),
        id=entry.alarm_id,
        machine_id=shown_machine(entry.machine_id),
        rule=entry.rule,
        text=text_of_entry(context, entry),
        transition=entry.kind,
        by=entry.by or None,
        until=to_optional_datetime(entry.until_us),
        value=entry.value,
        reason=entry.reason or None,
        priority=priority_of_entry(context, entry),
        comment=entry.comment or None,
        parent=entry.parent or None,
        gateway=gateway or None,
        site=site or None,
        cause=entry.cause or None,
    )


def _group_of_entry(context: ApiContext, entry: Transition) -> tuple[str, str]:
    """Returns the gateway and the site of a group's entry; empty for an alarm of one machine."""
    if not is_group(entry.machine_id):
        return "", ""
    return group_of_entries(context.alarm_service.find(entry.alarm_id), [entry])


def text_of_entry(context: ApiContext, entry: Transition) -> str:
    """Returns the text of an alarm in the journal: that of its last raise, or that of its rule."""
    if is_group(entry.machine_id):
        return group_text(*_group_of_entry(context, entry))
    alarm = context.alarm_service.find(entry.alarm_id)
    rule = context.alarm_service.rule(entry.rule)
    return entry.text or (alarm.text if alarm else "") or (rule.text if rule else entry.rule)


def priority_of_entry(context: ApiContext, entry: Transition) -> Priority:
    """Returns the priority of an alarm in the journal: that of its last raise, or that of its rule."""
    alarm = context.alarm_service.find(entry.alarm_id)
    rule = context.alarm_service.rule(entry.rule)
    return entry.priority or (alarm.priority if alarm else "") or (rule.priority if rule else "low")
