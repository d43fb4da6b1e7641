"""Energy, carbon and water of the present day, compared with the usual use by this hour.

Answers are cached, since dashboards that many people watch request them often.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, cast

from fastapi import APIRouter, Query

from aurum.api.accounting import Scope, range_of
from aurum.api.context import ApiContext, Caller, Context
from aurum.api.convert import moment, query_time
from aurum.api.routes.accounts import Asked
from aurum.api.routes.carbon import carbon
from aurum.api.routes.energy import energy
from aurum.api.routes.water import water
from aurum.api.scope import site_to_ask
from aurum.api.sustainability_schemas import CarbonOut, EnergyOut, TodayOut, UsedOut, WaterOut
from aurum.runtime.errors import AurumError, InvalidArgumentError
from aurum.sustainability.hourly import HOUR_US

router = APIRouter(tags=["sustainability"])

_DAYS = 7  # days before, whose mean is the usual use
_KEPT = 60.0  # seconds for which an answer is cached
_MOST_KEPT = 500  # cached answers, by midnight and site
_DAY_US = 24 * HOUR_US
_LONGEST_DAY_US = 25 * HOUR_US
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of an account, or the part of it that is within the account's range.

    Attributes:
        start_us: Start in µs since 1970.
        end_us: End in µs since 1970, exclusive.
        amount: What was used.
        coverage: Share of the hour for which readings exist.
    """

    start_us: int
    end_us: int
    amount: float
    coverage: float


@router.get("/api/today")
async def today(
    context: Context,
    caller: Caller,
    midnight: Annotated[str, Query(description="When the day began where the plant is; ISO 8601.")],
    site: Annotated[str, Query(description="Only this site; all that the caller sees if absent.")] = "",
) -> TodayOut:
    """Energy, carbon and water since midnight, each beside the mean of the same hours of the seven days before."""
    start = query_time("midnight", midnight)
    now = int(time.time() * 1e6)
    if not start <= now < start + _LONGEST_DAY_US:
        raise InvalidArgumentError.of("midnight", "must be within the last 25 hours")
    site = site_to_ask(caller, site)
    kept = context.today
    async with kept.asking:  # one account at a time, so that concurrent requests share its answer
        at, answer = kept.answers.get((start, site), (float("-inf"), None))
        if answer is None or time.monotonic() - at > _KEPT:
            answer = await _account(context, site, start, now)
            while len(kept.answers) >= _MOST_KEPT:
                kept.answers.pop(next(iter(kept.answers)))
            kept.answers[start, site] = (time.monotonic(), answer)
    return answer


async def _account(context: ApiContext, site: str, midnight: int, now: int) -> TodayOut:
    with context.accounts.reservation() as held:
        asked = Asked(Scope(site=site), range_of(midnight - _DAYS * _DAY_US, now), "site", "json", held)
        return await _account_of(context, asked, midnight, now)


async def _account_of(context: ApiContext, asked: Asked, midnight: int, now: int) -> TodayOut:
    accounts: dict[str, Callable[[ApiContext, Asked], Awaitable[list[Hour]]]] = {
        "energy": _energy,
        "carbon": _carbon,
        "water": _water,
    }
    used: dict[str, UsedOut] = {}
    notes = []
    for name, hours_of in accounts.items():
        if not getattr(context.settings, f"feature_{name}"):
            continue
        try:
            used[name] = used_today(await hours_of(context, asked), midnight, now)
        except AurumError as error:
            notes.append(f"{name}: {error.message}")
    return TodayOut(
        start=moment(midnight),
        end=moment(now),
        energy_kwh=used.get("energy"),
        carbon_kgco2e=used.get("carbon"),
        water_litres=used.get("water"),
        notes=notes,
    )


def used_today(hours: Sequence[Hour], midnight: int, now: int) -> UsedOut:
    """Returns the use since midnight, and the mean use by the same time of the days before.

    A day counts for the mean if its coverage is at least half.
    """
    earlier = []
    for back in range(1, _DAYS + 1):
        shift = back * _DAY_US
        amount, known = _sum(hours, midnight - shift, now - shift)
        if known >= _HALF:
            earlier.append(amount)
    return UsedOut(
        amount=_sum(hours, midnight, now)[0],
        usual=sum(earlier) / len(earlier) if earlier else None,
        days=len(earlier),
    )


def _sum(hours: Sequence[Hour], start: int, end: int) -> tuple[float, float]:
    """Returns amount and coverage of [start, end). Hours that are partly inside count proportionally."""
    amount = known = 0.0
    for hour in hours:
        within = max(0, min(end, hour.end_us) - max(start, hour.start_us))
        amount += within / (hour.end_us - hour.start_us) * hour.amount
        known += within * hour.coverage
    return amount, known / max(1, end - start)


async def _energy(context: ApiContext, asked: Asked) -> list[Hour]:
    found = cast("EnergyOut", await energy(context, asked))
    return [_hour(asked, each.start, each.energy_kwh, each.coverage) for each in found.hours]


async def _carbon(context: ApiContext, asked: Asked) -> list[Hour]:
    found = cast("CarbonOut", await carbon(context, asked))
    # The carbon account has no coverage by hour; an hour without energy is taken as unknown
    return [_hour(asked, each.start, each.location_kgco2e, float(each.energy_kwh > 0)) for each in found.hours]


async def _water(context: ApiContext, asked: Asked) -> list[Hour]:
    found = cast("WaterOut", await water(context, asked))
    return [_hour(asked, each.start, each.litres, each.coverage) for each in found.hours]


def _hour(asked: Asked, start: datetime, amount: float, coverage: float) -> Hour:
    begins = round(start.timestamp() * 1e6)
    return Hour(max(begins, asked.over.start), min(begins + HOUR_US, asked.over.end), amount, coverage)
