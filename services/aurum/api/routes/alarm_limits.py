"""The limits at which a machine's alarms are raised, for the charts of its values."""

from fastapi import APIRouter

from aurum.alarms.rules import AlarmRule
from aurum.api.alarm_schemas import AlarmLimitOut, AlarmLimits
from aurum.api.context import Context
from aurum.runtime.telemetry.logging import set_request_context

router = APIRouter(prefix="/api/machines/{machine_id}/alarm-limits", tags=["alarms"])


@router.get("")
async def list_alarm_limits(context: Context, machine_id: str) -> AlarmLimits:
    """Returns the limits of the alarm rules in force for a machine's type, in the order of the rules."""
    set_request_context(machine_id=machine_id)
    machine = await context.ingestion.get_machine(machine_id)
    rules = context.alarm_service.rules_for(machine.machine_type)
    return AlarmLimits(machine_id=machine_id, items=[_limit_out(rule) for rule in rules])


def _limit_out(rule: AlarmRule) -> AlarmLimitOut:
    return AlarmLimitOut(
        rule=rule.name,
        text=rule.text,
        priority=rule.priority,
        quantity=rule.quantity,
        sensor=rule.sensor_name or None,
        limit=rule.limit,
        above=rule.is_upper,
    )
