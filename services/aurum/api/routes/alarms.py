"""Alarms by ISA-18.2: list, acknowledgement and shelving."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Query

from aurum.alarms.lifecycle import Alarm, AlarmState, Priority
from aurum.alarms.rules import PRIORITIES
from aurum.api.alarm_groups import group_out, group_text, members_by_parent, shown_machine
from aurum.api.alarm_schemas import (
    AcknowledgeIn,
    AlarmOut,
    AlarmsOut,
    FloodOut,
    GroupOut,
    Order,
    ShelveIn,
)
from aurum.api.context import ApiContext, Caller, Context
from aurum.api.scope import visibility_filter, visible_items
from aurum.api.serializers import to_datetime, to_optional_datetime
from aurum.runtime.audit import Act
from aurum.runtime.errors import UnavailableError
from aurum.runtime.time_units import MINUTE_US
from aurum.security.identity import Identity

router = APIRouter(prefix="/api/alarms", tags=["alarms"])

_BY_URGENCY: tuple[AlarmState, ...] = (
    "unacknowledged",
    "returned",
    "acknowledged",
    "shelved",
    "suppressed",
    "normal",
)
_STATE_RANK = {state: rank for rank, state in enumerate(_BY_URGENCY)}
_PRIORITY_RANK = {priority: rank for rank, priority in enumerate(PRIORITIES)}


@router.get("")
async def list_alarms(  # noqa: PLR0917 - query parameters
    context: Context,
    caller: Caller,
    state: Annotated[
        list[AlarmState] | None, Query(description="States; may be repeated. By default all but normal.")
    ] = None,
    priority: Annotated[
        list[Priority] | None, Query(description="Priorities; may be repeated. By default all.")
    ] = None,
    machine_id: Annotated[str, Query(description="Only alarms of this machine.")] = "",
    groups: Annotated[
        bool, Query(description="Only alarms that stand for machines that fell silent together.")
    ] = False,
    order: Annotated[
        Order, Query(description="Order; `priority` lists unacknowledged and urgent alarms first.")
    ] = "priority",
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> AlarmsOut:
    """Returns the alarms of the plant, and whether there is an alarm flood."""
    require_loaded(context)
    now = _now()
    states, priorities = frozenset(state or ()), frozenset(priority or ())
    # Answers are built only for the alarms that are returned, since a plant may have many
    alarms = [(alarm, alarm.state(now)) for alarm in visible_items(context, caller, context.alarm_service.alarms)]
    selected = [
        (alarm, present_state)
        for alarm, present_state in alarms
        if (present_state in states if states else present_state != "normal")
        and (not priorities or priority_of(context, alarm) in priorities)
        and machine_id in ("", alarm.machine_id)
        and (alarm.is_parent or not groups)
    ]
    if order == "priority":
        selected.sort(key=lambda pair: (_STATE_RANK[pair[1]], -_PRIORITY_RANK[priority_of(context, pair[0])]))
    members = members_by_parent(alarm for alarm, _ in alarms)
    recent, since = context.alarm_service.flood(caller.sites)
    return AlarmsOut(
        items=[_alarm_out(context, caller, alarm, now, members) for alarm, _ in selected[:limit]],
        counts=dict(Counter(present_state for _, present_state in alarms)),
        flood=FloodOut(active=bool(since), since=to_optional_datetime(since), last_ten_minutes=recent),
    )


@router.post("/{alarm_id}/ack")
async def acknowledge_alarm(
    context: Context, caller: Caller, alarm_id: str, body: Annotated[AcknowledgeIn | None, Body()] = None
) -> AlarmOut:
    """Acknowledges an alarm. Answers 409 if it is already acknowledged."""
    require_loaded(context)

    async def acknowledge(act: Act) -> Alarm:
        alarm = await context.alarm_service.acknowledge(alarm_id, operator(caller, body.by if body else ""))
        act.after = alarm.state(_now())
        return alarm

    alarm = await context.audit.perform(
        caller, "alarm.acknowledge", alarm_id, acknowledge, _current_state(context, alarm_id)
    )
    return _alarm_out(context, caller, alarm, _now())


@router.post("/{alarm_id}/shelve")
async def shelve_alarm(context: Context, caller: Caller, alarm_id: str, body: ShelveIn) -> AlarmOut:
    """Shelves an alarm for a limited time."""
    require_loaded(context)
    until = _now() + int(body.minutes * MINUTE_US)

    async def shelve(act: Act) -> Alarm:
        alarm = await context.alarm_service.shelve(alarm_id, until, operator(caller, body.by), body.reason)
        act.after = f"shelved until {to_datetime(until).isoformat()}"
        return alarm

    alarm = await context.audit.perform(caller, "alarm.shelve", alarm_id, shelve, _current_state(context, alarm_id))
    return _alarm_out(context, caller, alarm, _now())


@router.post("/{alarm_id}/unshelve")
async def unshelve_alarm(
    context: Context, caller: Caller, alarm_id: str, body: Annotated[AcknowledgeIn | None, Body()] = None
) -> AlarmOut:
    """Ends the shelving of an alarm. Answers 409 if it is not shelved."""
    require_loaded(context)

    async def unshelve(act: Act) -> Alarm:
        alarm = await context.alarm_service.unshelve(alarm_id, operator(caller, body.by if body else ""))
        act.after = alarm.state(_now())
        return alarm

    alarm = await context.audit.perform(caller, "alarm.unshelve", alarm_id, unshelve, _current_state(context, alarm_id))
    return _alarm_out(context, caller, alarm, _now())


def operator(caller: Identity, by: str) -> str:
    """Returns the operator's name for the journal: the authenticated user, else the name in the body."""
    return caller.user_id if caller.kind != "open" else by


def _current_state(context: ApiContext, alarm_id: str) -> str | None:
    alarm = context.alarm_service.find(alarm_id)
    return alarm.state(_now()) if alarm else None


def require_loaded(context: ApiContext) -> None:
    """Raises UnavailableError until the journal has been read."""
    if not context.alarm_service.loaded:
        raise UnavailableError(
            "the alarms are still being loaded from the store; retry shortly", reason="ALARMS_LOADING"
        )


def priority_of(context: ApiContext, alarm: Alarm) -> Priority:
    """Returns the priority with which the alarm was raised; that of its rule if an older version raised it."""
    if alarm.priority:
        return alarm.priority
    rule = context.alarm_service.rule(alarm.rule)
    return rule.priority if rule else "low"


def _alarm_out(
    context: ApiContext,
    caller: Identity,
    alarm: Alarm,
    now_us: int,
    members: Mapping[str, Sequence[Alarm]] | None = None,
) -> AlarmOut:
    """Returns an alarm. members: The alarms under each parent, if the caller has them already."""
    group: GroupOut | None = None
    if alarm.is_parent:
        inside = members_by_parent(context.alarm_service.alarms) if members is None else members
        under = inside.get(alarm.alarm_id, ())
        group = group_out(alarm, under, context.machine_cache, visibility_filter(context, caller))
    rule = context.alarm_service.rule(alarm.rule)
    text = group_text(alarm.gateway, alarm.site, group.count) if group else ""
    text = text or alarm.text or (rule.text if rule else f"({alarm.rule}: the rule was removed)")
    quantity = alarm.quantity or (rule.quantity if rule else "sensor")
    sensor = alarm.sensor if alarm.quantity else (rule.sensor_name if rule else "")
    shelved = alarm.shelved_until_us > now_us
    machine = context.machine_cache.get_machine(alarm.machine_id)
    return AlarmOut(
        id=alarm.alarm_id,
        machine_id=shown_machine(alarm.machine_id),
        rule=alarm.rule,
        text=text,
        priority=priority_of(context, alarm),
        state=alarm.state(now_us),
        active=alarm.active,
        value=alarm.value,
        quantity=quantity,
        sensor=sensor or None,
        limit=alarm.limit if alarm.quantity else (rule.limit if rule else None),
        present_value=context.alarm_service.present_value(alarm.machine_id, quantity, sensor),
        chatters=alarm.chatters,
        raised_at=to_optional_datetime(alarm.raised_us),
        cleared_at=to_optional_datetime(alarm.cleared_us),
        acknowledged_at=to_optional_datetime(alarm.acknowledged_us),
        acknowledged_by=alarm.acknowledged_by or None,
        shelved_until=to_optional_datetime(alarm.shelved_until_us) if shelved else None,
        shelved_by=alarm.shelved_by or None if shelved else None,
        reason=alarm.reason or None if shelved else None,
        count=alarm.count,
        parent=alarm.parent or None,
        group=group,
        site=machine.site if machine else alarm.site,
        line=context.accounting_plan.line_of(alarm.machine_id),
        comment=alarm.comment or None,
        commented_by=alarm.commented_by or None,
        commented_at=to_optional_datetime(alarm.commented_us),
    )


def _now() -> int:
    return int(time.time() * 1e6)
