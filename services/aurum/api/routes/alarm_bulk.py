"""Acknowledging and shelving many alarms with one request and one reason."""

import time
from collections.abc import Sequence
from datetime import UTC

from fastapi import APIRouter

from aurum.alarms.lifecycle import AlarmState
from aurum.api.alarm_schemas import AcknowledgeManyIn, BulkItemOut, BulkOut, ShelveManyIn
from aurum.api.bulk_actions import BulkAction, BulkResult, acknowledging, perform_on_all, shelving
from aurum.api.context import ApiContext, Caller, Context
from aurum.api.routes.alarms import operator, require_loaded
from aurum.api.scope import visibility_filter
from aurum.api.serializers import to_datetime
from aurum.runtime.audit import Act
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import DAY_US, MINUTE_US
from aurum.security.identity import Identity

router = APIRouter(prefix="/api/alarms", tags=["alarms"])

_LONGEST_US = 7 * DAY_US


@router.post("/ack")
async def acknowledge_alarms(context: Context, caller: Caller, body: AcknowledgeManyIn) -> BulkOut:
    """Acknowledges alarms, and says what became of each. Those that are acknowledged already stay unchanged."""
    now = int(time.time() * 1e6)
    action = acknowledging(operator(caller, body.by), body.reason, now)
    return await _perform(context, caller, "alarm.acknowledge", body.ids, action, now)


@router.post("/shelve")
async def shelve_alarms(context: Context, caller: Caller, body: ShelveManyIn) -> BulkOut:
    """Shelves alarms, and says what became of each. Those that are shelved until then already stay unchanged."""
    now = int(time.time() * 1e6)
    until = _end_of_shelving(body, now)
    action = shelving(until, operator(caller, body.by), body.reason, now)
    after = f"shelved until {to_datetime(until).isoformat()}"
    return await _perform(context, caller, "alarm.shelve", body.ids, action, now, after)


def _end_of_shelving(body: ShelveManyIn, now_us: int) -> int:
    """Returns the end of the shelving in µs since 1970. Raises InvalidArgumentError."""
    if (body.minutes is None) == (body.until is None):
        raise InvalidArgumentError.for_field("body.minutes", "either minutes or until must be given")
    if body.until is None:
        return now_us + int((body.minutes or 0.0) * MINUTE_US)
    if body.until.tzinfo is None:
        raise InvalidArgumentError.for_field("body.until", "needs a time zone, such as 2026-01-31T06:00:00Z")
    until = int(body.until.astimezone(UTC).timestamp() * 1e6)
    if not now_us < until <= now_us + _LONGEST_US:
        raise InvalidArgumentError.for_field("body.until", "must be in the future, at most a week from now")
    return until


async def _perform(  # noqa: PLR0917
    context: ApiContext,
    caller: Identity,
    name: str,
    alarm_ids: Sequence[str],
    action: BulkAction,
    now_us: int,
    after: str = "",
) -> BulkOut:
    """Performs an action on alarms. The audit log gets a line for the request and one for each alarm.

    Args:
        context: The shared objects.
        caller: The operator.
        name: Name of the action on one alarm, for the audit log.
        alarm_ids: The alarms.
        action: The action.
        now_us: The present time in µs since 1970.
        after: What an alarm is afterwards, for the audit log; its state if empty.
    """
    require_loaded(context)
    ids = list(dict.fromkeys(alarm_ids))

    async def perform(act: Act) -> BulkOut:
        results = await perform_on_all(context.alarm_service, ids, action, visibility_filter(context, caller), now_us)
        for result in results:
            outcome = "failed: ALARM_NOT_FOUND" if result.alarm is None else "done" if result.changed else "unchanged"
            state = result.alarm.state(now_us) if result.alarm else None
            context.audit.record(
                caller, name, result.alarm_id, before=result.before, after=(state and after) or state, outcome=outcome
            )
        act.after = f"{sum(result.changed for result in results)} changed"
        return BulkOut(items=[_item_out(result, now_us) for result in results])

    # The ids are in this line, too, for the case that the action fails before there are others
    return await context.audit.perform(caller, f"{name}_many", f"{len(ids)} alarms", perform, before=ids)


def _item_out(result: BulkResult, now_us: int) -> BulkItemOut:
    state: AlarmState | None = result.alarm.state(now_us) if result.alarm else None
    missing = result.alarm is None
    return BulkItemOut(
        id=result.alarm_id,
        done=not missing,
        changed=result.changed,
        state=state,
        problem="alarm-not-found" if missing else None,
        detail=f"there is no alarm {result.alarm_id!r}" if missing else None,
    )
