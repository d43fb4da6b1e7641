"""Suggestions of new lives of machines, which a person confirms or rejects with a maintenance record."""

from fastapi import APIRouter

from aurum.api.context import Context
from aurum.api.life_suggestions import life_suggestions
from aurum.api.maintenance_schemas import LifeSuggestionOut, LifeSuggestionsOut, SensorLevelsOut
from aurum.api.serializers import to_datetime
from aurum.maintenance.renewal_signs import RenewalSign
from aurum.runtime.telemetry.logging import set_request_context

router = APIRouter(tags=["machines"])


@router.get("/api/machines/{machine_id}/life-suggestions")
async def list_life_suggestions(context: Context, machine_id: str) -> LifeSuggestionsOut:
    """Returns the stops after which a machine reads as at the beginning of its life, the newest first.

    Nothing is concluded from them. A maintenance record that begins or ends at the stop answers one: an overhaul or a
    replacement confirms it, so that a new life begins there; an inspection or a repair rejects it.
    """
    set_request_context(machine_id=machine_id)
    found = await life_suggestions(context.ingestion, machine_id)
    return LifeSuggestionsOut(
        machine_id=machine_id,
        since=to_datetime(found.since_us),
        sensors=len(found.sensors),
        sensors_left_out=found.left_out,
        items=[_suggestion_out(sign) for sign in found.signs],
    )


def _suggestion_out(sign: RenewalSign) -> LifeSuggestionOut:
    levels = [
        SensorLevelsOut(sensor=each.sensor, begin=each.begin, before=each.before, after=each.after)
        for each in sign.levels
    ]
    return LifeSuggestionOut(
        stopped_at=to_datetime(sign.from_us),
        resumed_at=to_datetime(sign.to_us),
        levels=levels,
        staying=list(sign.staying),
    )
