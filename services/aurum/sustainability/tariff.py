"""Tariffs of electricity as the accounting plan states them: prices by time of use, charges and the feed-in price."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday"]

STEP_MINUTES = 15  # to which prices change; the offset of every zone from UTC is a multiple of it
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)
_SEASON = re.compile(r"(\d\d-\d\d)/(\d\d-\d\d)", re.ASCII)
_MINUTES_PER_DAY = 24 * 60


def _check_hours(text: str) -> str:
    parse_hours(text)
    return text


def _check_season(text: str) -> str:
    parse_season(text)
    return text


class _TariffModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PriceSpec(_TariffModel):
    """A price of energy, and when it applies in the local time of the site. A field that is empty restricts nothing."""

    name: str = Field(min_length=1, max_length=100)
    per_kwh: float = Field(description="Price in the tariff's currency per kWh.")
    days: tuple[Day, ...] = Field((), description="Days of the week, and holiday; a holiday is no day of the week.")
    hours: tuple[Annotated[str, AfterValidator(_check_hours)], ...] = Field(
        (), description="Times of day such as 08:00-12:00 or 22:00-06:00; the end is exclusive."
    )
    season: str = Field("", description="One of the tariff's seasons.")

    @property
    def is_always(self) -> bool:
        """Whether the price applies at all times."""
        return not (self.days or self.hours or self.season)


class TariffSpec(_TariffModel):
    """What a site pays for electricity, and gets for what it feeds in.

    The first price applies whose days, hours and season include the time.
    """

    begins: date | None = Field(
        None, description="First day of the tariff, in the site's time zone. Only the first tariff of a site has none."
    )
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="Currency by ISO 4217, such as EUR.")
    prices: tuple[PriceSpec, ...] = Field(
        min_length=1, max_length=50, description="Prices; the last one must have neither days, hours nor season."
    )
    seasons: dict[str, Annotated[str, AfterValidator(_check_season)]] = Field(
        default_factory=dict, description="First and last day of each season, such as winter: 11-01/03-31."
    )
    holidays: frozenset[date] = Field(frozenset(), description="Dates that are holidays.")
    fixed_per_day: float = Field(0.0, ge=0, description="Fixed charge per day of the site's time zone.")
    fixed_per_month: float = Field(0.0, ge=0, description="Fixed charge per month.")
    demand_per_kw: float = Field(
        0.0, ge=0, description="Demand charge per month and kW of the highest mean power of an hour."
    )
    feed_in_per_kwh: float = Field(0.0, description="Price of energy that is fed in.")

    @model_validator(mode="after")
    def _check_prices(self) -> Self:
        if not self.prices[-1].is_always:
            raise ValueError(
                f"prices: the last one, {self.prices[-1].name}, must have neither days, hours nor season, so that each "
                f"hour has a price"
            )
        for price in self.prices[:-1]:
            if price.is_always:
                raise ValueError(f"prices: {price.name} applies always, so that those after it never do; list it last")
        for price in self.prices:
            if price.season and price.season not in self.seasons:
                raise ValueError(f"prices: {price.name} has the season {price.season!r}, which seasons does not define")
        names = [price.name for price in self.prices]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"prices: two have the name {twice!r}; name each differently")
        return self

    @cached_property
    def rules(self) -> "PriceRules":
        """The prices in the form in which they are looked up."""
        return PriceRules.of(self)


@dataclass(frozen=True, slots=True)
class PriceRules:
    """When each price applies.

    Attributes:
        conditions: For each price, its days, ranges of minutes of the day, and season. None is any.
        holidays: The dates that are holidays.
    """

    conditions: tuple[
        tuple[
            frozenset[Day] | None, tuple[tuple[int, int], ...] | None, tuple[tuple[int, int], tuple[int, int]] | None
        ],
        ...,
    ]
    holidays: frozenset[date]

    @classmethod
    def of(cls, tariff: TariffSpec) -> "PriceRules":
        """Returns the rules of a tariff."""
        return cls(
            tuple(
                (
                    frozenset(price.days) or None,
                    tuple(parse_hours(text) for text in price.hours) or None,
                    parse_season(tariff.seasons[price.season]) if price.season else None,
                )
                for price in tariff.prices
            ),
            tariff.holidays,
        )

    def price_at(self, local: datetime) -> int:
        """Returns the index of the price that applies at a local time."""
        today = local.date()
        day: Day = "holiday" if today in self.holidays else _DAYS[today.weekday()]
        minute = local.hour * 60 + local.minute
        in_year = (today.month, today.day)
        return next(
            index
            for index, (days, hours, season) in enumerate(self.conditions)
            if (days is None or day in days)
            and (hours is None or _is_within(minute, hours))
            and (season is None or _is_in_season(in_year, season))
        )


def parse_hours(text: str) -> tuple[int, int]:
    """Returns the first minute of the day and the end of a range such as 22:00-06:00.

    Raises:
        ValueError: It is no such range.
    """
    found = _HOURS.fullmatch(text)
    problem = f"{text!r} is not a range of hours such as 08:00-12:00, in steps of {STEP_MINUTES} minutes"
    if found is None:
        raise ValueError(problem)
    hour, minute, end_hour, end_minute = map(int, found.groups())
    start, end = hour * 60 + minute, end_hour * 60 + end_minute
    valid = minute < 60 and end_minute < 60 and start < _MINUTES_PER_DAY and end <= _MINUTES_PER_DAY and start != end
    if not valid or start % STEP_MINUTES or end % STEP_MINUTES:
        raise ValueError(problem)
    return start, end


def parse_season(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns month and day of the first and the last day of a season such as 11-01/03-31.

    Raises:
        ValueError: It is no such season.
    """
    found = _SEASON.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        first, last = (datetime.strptime(f"2000-{day}", "%Y-%m-%d") for day in found.groups())
    except ValueError:
        raise ValueError(f"{text!r} is not a season such as 11-01/03-31, its first and last month and day") from None
    return (first.month, first.day), (last.month, last.day)


def _is_within(minute: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(start <= minute < end if start < end else minute >= start or minute < end for start, end in ranges)


def _is_in_season(day: tuple[int, int], season: tuple[tuple[int, int], tuple[int, int]]) -> bool:
    first, last = season
    return first <= day <= last if first <= last else day >= first or day <= last
