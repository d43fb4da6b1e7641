"""Energy, carbon and water of the present day, compared with the usual use by this time."""

import time
from typing import Annotated

from fastapi import APIRouter, Query

from aurum.api.context import Caller, Context
from aurum.api.scope import resolve_site
from aurum.api.serializers import parse_query_time, to_datetime
from aurum.api.sustainability_schemas import TodayOut, UsedOut
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.day_use import DayUse

router = APIRouter(tags=["sustainability"])

_LONGEST_DAY_US = 25 * HOUR_US


@router.get("/api/today")
async def today(
    context: Context,
    caller: Caller,
    midnight: Annotated[str, Query(description="Start of the day at the plant; ISO 8601.")],
    site: Annotated[str, Query(description="Only this site; by default all that the caller may see.")] = "",
) -> TodayOut:
    """Returns energy, carbon and water since midnight, each with the mean by this time of the seven days before."""
    start = parse_query_time("midnight", midnight)
    now = int(time.time() * 1e6)
    if not start <= now < start + _LONGEST_DAY_US:
        raise InvalidArgumentError.for_field("midnight", "must be within the last 25 hours")
    account = await context.today_accounts.account(resolve_site(caller, site), start, now)
    return TodayOut(
        start=to_datetime(start),
        end=to_datetime(account.now_us),
        energy_kwh=_used_out(account.used.get("energy")),
        carbon_kgco2e=_used_out(account.used.get("carbon")),
        water_litres=_used_out(account.used.get("water")),
        notes=account.notes,
    )


def _used_out(used: DayUse | None) -> UsedOut | None:
    return None if used is None else UsedOut.model_validate(used, from_attributes=True)
