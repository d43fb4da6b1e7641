"""Alarms by ISA-18.2: list, acknowledgement, shelving and journal."""

import time
from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Body, Query

from aurum.alarms.lifecycle import Alarm, State
from aurum.alarms.rules import PRIORITIES, Priority
from aurum.api.alarm_schemas import (
    AcknowledgeIn,
    AlarmOut,
    AlarmsOut,
    FloodOut,
    JournalOut,
    Order,
    ShelveIn,
    TransitionOut,
)
from aurum.api.context import ApiContext, Caller, Context
from aurum.api.convert import moment, optional_moment, query_time
from aurum.api.scope import of_callers, visible
from aurum.runtime.audit import Act
from aurum.runtime.errors import UnavailableError
from aurum.security.identity import Identity

router = APIRouter(prefix="/api/alarms", tags=["alarms"])

_LOUDEST = {
    state: place
    for place, state in enumerate(("unacknowledged", "returned", "acknowledged", "shelved", "suppressed", "normal"))
}
_URGENCY = {priority: place for place, priority in enumerate(PRIORITIES)}
_MINUTE_US = 60_000_000


@router.get("")
async def list_alarms(  # noqa: PLR0917 - query parameters
    context: Context,
    caller: Caller,
    state: Annotated[list[State] | None, Query(description="May be repeated; all but normal if absent.")] = None,
    priority: Annotated[list[Priority] | None, Query(description="Likewise; all if absent.")] = None,
    machine_id: str = "",
    order: Annotated[Order, Query(description="priority: unacknowledged and urgent first.")] = "priority",
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> AlarmsOut:
    """The alarms of the plant, with a flag when there are more than an operator can look at."""
    _loaded(context)
    now = _now()
    states, priorities = frozenset(state or ()), frozenset(priority or ())
    known = [(alarm, alarm.state(now)) for alarm in visible(context, caller, context.alarms.alarms)]
    wanted = [
        (alarm, at_present)
        for alarm, at_present in known
        if (at_present in states if states else at_present != "normal")
        and (not priorities or _priority(context, alarm) in priorities)
        and machine_id in ("", alarm.machine_id)
    ]
    if order == "priority":
        wanted.sort(key=lambda each: (_LOUDEST[each[1]], -_URGENCY[_priority(context, each[0])]))
    recent, since = context.alarms.flood(caller.sites)
    return AlarmsOut(
        items=[_out(context, alarm, now) for alarm, _ in wanted[:limit]],
        counts=dict(Counter(at_present for _, at_present in known)),
        flood=FloodOut(active=bool(since), since=optional_moment(since), last_ten_minutes=recent),
    )


@router.get("/journal")
async def journal(
    context: Context,
    caller: Caller,
    start: Annotated[str | None, Query(description="ISO 8601 or a number since 1970; inclusive.")] = None,
    end: Annotated[str | None, Query(description="Likewise; exclusive.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> JournalOut:
    """What has happened to alarms, and who did it."""
    found = await context.alarms.journal(
        query_time("start", start), query_time("end", end), limit, of_callers(context, caller)
    )
    return JournalOut(
        items=[
            TransitionOut(
                at=moment(each.at_us),
                id=each.alarm_id,
                machine_id=each.machine_id,
                rule=each.rule,
                transition=each.kind,
                by=each.by or None,
                until=optional_moment(each.until_us),
                value=each.value,
                reason=each.reason or None,
            )
            for each in found
        ]
    )


@router.post("/{alarm_id}/ack")
async def acknowledge_alarm(
    context: Context, caller: Caller, alarm_id: str, body: Annotated[AcknowledgeIn | None, Body()] = None
) -> AlarmOut:
    """Says that somebody has seen it. 409 if somebody had."""
    _loaded(context)

    async def acknowledge(act: Act) -> Alarm:
        alarm = await context.alarms.acknowledge(alarm_id, _who(caller, body))
        act.after = alarm.state(_now())
        return alarm

    alarm = await context.audit.perform(caller, "alarm.acknowledge", alarm_id, acknowledge, _state(context, alarm_id))
    return _out(context, alarm, _now())


@router.post("/{alarm_id}/shelve")
async def shelve_alarm(context: Context, caller: Caller, alarm_id: str, body: ShelveIn) -> AlarmOut:
    """Puts it away for a time; it comes back by itself."""
    _loaded(context)
    until = _now() + int(body.minutes * _MINUTE_US)

    async def shelve(act: Act) -> Alarm:
        alarm = await context.alarms.shelve(alarm_id, until, _who(caller, body), body.reason)
        act.after = f"shelved until {moment(until).isoformat()}"
        return alarm

    alarm = await context.audit.perform(caller, "alarm.shelve", alarm_id, shelve, _state(context, alarm_id))
    return _out(context, alarm, _now())


@router.post("/{alarm_id}/unshelve")
async def unshelve_alarm(
    context: Context, caller: Caller, alarm_id: str, body: Annotated[AcknowledgeIn | None, Body()] = None
) -> AlarmOut:
    """Brings it back before its time. 409 if it is not shelved."""
    _loaded(context)

    async def unshelve(act: Act) -> Alarm:
        alarm = await context.alarms.unshelve(alarm_id, _who(caller, body))
        act.after = alarm.state(_now())
        return alarm

    alarm = await context.audit.perform(caller, "alarm.unshelve", alarm_id, unshelve, _state(context, alarm_id))
    return _out(context, alarm, _now())


def _who(caller: Identity, body: AcknowledgeIn | ShelveIn | None) -> str:
    """Returns the operator's name for the journal: the authenticated user, else the name in the body."""
    return caller.user_id if caller.kind != "open" else body.by if body else ""


def _state(context: ApiContext, alarm_id: str) -> str | None:
    alarm = context.alarms.find(alarm_id)
    return alarm.state(_now()) if alarm else None


def _loaded(context: ApiContext) -> None:
    if not context.alarms.loaded:
        raise UnavailableError("the alarms are not read from the store yet; try again soon", reason="ALARMS_LOADING")


def _priority(context: ApiContext, alarm: Alarm) -> Priority:
    rule = context.alarms.rule(alarm.rule)
    return rule.priority if rule else "low"


def _out(context: ApiContext, alarm: Alarm, now_us: int) -> AlarmOut:
    rule = context.alarms.rule(alarm.rule)
    shelved = alarm.shelved_until_us > now_us
    return AlarmOut(
        id=alarm.alarm_id,
        machine_id=alarm.machine_id,
        rule=alarm.rule,
        text=rule.text if rule else "a rule that is no more",
        priority=_priority(context, alarm),
        state=alarm.state(now_us),
        active=alarm.active,
        value=alarm.value,
        raised_at=optional_moment(alarm.raised_us),
        cleared_at=optional_moment(alarm.cleared_us),
        acknowledged_at=optional_moment(alarm.acknowledged_us),
        acknowledged_by=alarm.acknowledged_by or None,
        shelved_until=optional_moment(alarm.shelved_until_us) if shelved else None,
        shelved_by=alarm.shelved_by or None if shelved else None,
        reason=alarm.reason or None if shelved else None,
        count=alarm.count,
    )


def _now() -> int:
    return int(time.time() * 1e6)
