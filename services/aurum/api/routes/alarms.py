"""Alarms by ISA-18.2: list, acknowledgement, shelving and journal."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Query

from aurum.alarms.lifecycle import Alarm, AlarmState, Priority, Transition
from aurum.alarms.rules import PRIORITIES
from aurum.api.alarm_groups import group_out, group_text, is_group, members_by_parent, shown_machine
from aurum.api.alarm_schemas import (
    AcknowledgeIn,
    AlarmOut,
    AlarmsOut,
    FloodOut,
    GroupOut,
    JournalOut,
    Order,
    ShelveIn,
    TransitionOut,
)
from aurum.api.context import ApiContext, Caller, Context
from aurum.api.scope import visibility_filter, visible_items
from aurum.api.serializers import parse_query_time, to_datetime, to_optional_datetime
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
    _require_loaded(context)
    now = _now()
    states, priorities = frozenset(state or ()), frozenset(priority or ())
    # Answers are built only for the alarms that are returned, since a plant may have many
    alarms = [(alarm, alarm.state(now)) for alarm in visible_items(context, caller, context.alarm_service.alarms)]
    selected = [
        (alarm, present_state)
        for alarm, present_state in alarms
        if (present_state in states if states else present_state != "normal")
        and (not priorities or _priority_of(context, alarm) in priorities)
        and machine_id in ("", alarm.machine_id)
        and (alarm.is_parent or not groups)
    ]
    if order == "priority":
        selected.sort(key=lambda pair: (_STATE_RANK[pair[1]], -_PRIORITY_RANK[_priority_of(context, pair[0])]))
    members = members_by_parent(alarm for alarm, _ in alarms)
    recent, since = context.alarm_service.flood(caller.sites)
    return AlarmsOut(
        items=[_alarm_out(context, caller, alarm, now, members) for alarm, _ in selected[:limit]],
        counts=dict(Counter(present_state for _, present_state in alarms)),
        flood=FloodOut(active=bool(since), since=to_optional_datetime(since), last_ten_minutes=recent),
    )


@router.get("/journal")
async def journal(
    context: Context,
    caller: Caller,
    start: Annotated[str | None, Query(description="Start, inclusive; ISO 8601 or a number since 1970.")] = None,
    end: Annotated[str | None, Query(description="End, exclusive; ISO 8601 or a number since 1970.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> JournalOut:
    """Returns the transitions of alarms, the newest first, with the operators who caused them."""
    transitions = await context.alarm_service.journal(
        parse_query_time("start", start), parse_query_time("end", end), limit, visibility_filter(context, caller)
    )
    return JournalOut(
        items=[
            TransitionOut(
                at=to_datetime(transition.at_us),
                id=transition.alarm_id,
                machine_id=shown_machine(transition.machine_id),
                rule=transition.rule,
                text=_text_of(context, transition),
                transition=transition.kind,
                by=transition.by or None,
                until=to_optional_datetime(transition.until_us),
                value=transition.value,
                reason=transition.reason or None,
                parent=transition.parent or None,
                **_group_of(context, transition),
            )
            for transition in transitions
        ]
    )


@router.post("/{alarm_id}/ack")
async def acknowledge_alarm(
    context: Context, caller: Caller, alarm_id: str, body: Annotated[AcknowledgeIn | None, Body()] = None
) -> AlarmOut:
    """Acknowledges an alarm. Answers 409 if it is already acknowledged."""
    _require_loaded(context)

    async def acknowledge(act: Act) -> Alarm:
        alarm = await context.alarm_service.acknowledge(alarm_id, _operator(caller, body))
        act.after = alarm.state(_now())
        return alarm

    alarm = await context.audit.perform(
        caller, "alarm.acknowledge", alarm_id, acknowledge, _current_state(context, alarm_id)
    )
    return _alarm_out(context, caller, alarm, _now())


@router.post("/{alarm_id}/shelve")
async def shelve_alarm(context: Context, caller: Caller, alarm_id: str, body: ShelveIn) -> AlarmOut:
    """Shelves an alarm for a limited time."""
    _require_loaded(context)
    until = _now() + int(body.minutes * MINUTE_US)

    async def shelve(act: Act) -> Alarm:
        alarm = await context.alarm_service.shelve(alarm_id, until, _operator(caller, body), body.reason)
        act.after = f"shelved until {to_datetime(until).isoformat()}"
        return alarm

    alarm = await context.audit.perform(caller, "alarm.shelve", alarm_id, shelve, _current_state(context, alarm_id))
    return _alarm_out(context, caller, alarm, _now())


@router.post("/{alarm_id}/unshelve")
async def unshelve_alarm(
    context: Context, caller: Caller, alarm_id: str, body: Annotated[AcknowledgeIn | None, Body()] = None
) -> AlarmOut:
    """Ends the shelving of an alarm. Answers 409 if it is not shelved."""
    _require_loaded(context)

    async def unshelve(act: Act) -> Alarm:
        alarm = await context.alarm_service.unshelve(alarm_id, _operator(caller, body))
        act.after = alarm.state(_now())
        return alarm

    alarm = await context.audit.perform(caller, "alarm.unshelve", alarm_id, unshelve, _current_state(context, alarm_id))
    return _alarm_out(context, caller, alarm, _now())


def _operator(caller: Identity, body: AcknowledgeIn | ShelveIn | None) -> str:
    """Returns the operator's name for the journal: the authenticated user, else the name in the body."""
    return caller.user_id if caller.kind != "open" else body.by if body else ""


def _current_state(context: ApiContext, alarm_id: str) -> str | None:
    alarm = context.alarm_service.find(alarm_id)
    return alarm.state(_now()) if alarm else None


def _require_loaded(context: ApiContext) -> None:
    if not context.alarm_service.loaded:
        raise UnavailableError(
            "the alarms are still being loaded from the store; retry shortly", reason="ALARMS_LOADING"
        )


def _priority_of(context: ApiContext, alarm: Alarm) -> Priority:
    """Returns the priority with which the alarm was raised; that of its rule if an older version raised it."""
    if alarm.priority:
        return alarm.priority
    rule = context.alarm_service.rule(alarm.rule)
    return rule.priority if rule else "low"


def _group_of(context: ApiContext, transition: Transition) -> dict[str, str | None]:
    """Returns the group of an alarm that stands for one; the cause only where it was raised."""
    if not is_group(transition.machine_id):
        return {}
    alarm = context.alarm_service.find(transition.alarm_id)
    group = transition if transition.kind == "raised" or alarm is None else alarm
    return {"gateway": group.gateway or None, "site": group.site or None, "cause": transition.cause or None}


def _text_of(context: ApiContext, transition: Transition) -> str:
    """Returns the text of an alarm in the journal: that of its last raise, or that of its rule."""
    alarm = context.alarm_service.find(transition.alarm_id)
    group = transition if transition.kind == "raised" else alarm
    if is_group(transition.machine_id) and group is not None:
        return group_text(group.gateway, group.site)
    rule = context.alarm_service.rule(transition.rule)
    return transition.text or (alarm.text if alarm else "") or (rule.text if rule else transition.rule)


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
    return AlarmOut(
        id=alarm.alarm_id,
        machine_id=shown_machine(alarm.machine_id),
        rule=alarm.rule,
        text=text,
        priority=_priority_of(context, alarm),
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
    )


def _now() -> int:
    return int(time.time() * 1e6)
