"""Common parts of the routes for energy, carbon and water: query parameters, common fields and export."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, Query, Response

from aurum.api.accounting.measurement import MachineSelection, resolve_range
from aurum.api.context import Caller, Context
from aurum.api.scope import require_machine, resolve_site
from aurum.api.serializers import parse_query_time, to_datetime
from aurum.api.table_export import CSV, PARQUET, table_response
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.hourly import Floats, HourlyAmounts, TimeRange
from aurum.sustainability.machine_use import GroupBy

Format = Literal["json", "csv", "parquet"]
EXPORTED: dict[int | str, dict[str, Any]] = {200: {"content": {CSV: {}, PARQUET: {}}}}

_MAX_NAMED = 100  # machines in `not_metered`


@dataclass(frozen=True, slots=True)
class AccountQuery:
    """The query of an account.

    Attributes:
        selection: The machines.
        over: The time range.
        group_by: How to group them.
        format: The format of the answer.
    """

    selection: MachineSelection
    over: TimeRange
    group_by: GroupBy
    format: Format


async def _parse_query(  # noqa: PLR0917 - query parameters
    context: Context,
    caller: Caller,
    machine_id: Annotated[str, Query(description="Only this machine.")] = "",
    site: Annotated[str, Query(description="Only machines of this site.")] = "",
    machine_type: Annotated[str, Query(description="Only machines of this type.")] = "",
    start: Annotated[
        str | None, Query(description="Start, ISO 8601 or a number since 1970; by default 24 h before end.")
    ] = None,
    end: Annotated[
        str | None, Query(description="End, exclusive, ISO 8601 or a number since 1970; by default now.")
    ] = None,
    group_by: Annotated[
        GroupBy, Query(description="How to group machines; lines are in the accounting plan.")
    ] = "machine",
    format: Annotated[  # noqa: A002
        Format, Query(description="Format of the answer; csv and parquet have a row for each group and hour.")
    ] = "json",
) -> AccountQuery:
    if machine_id and (site or machine_type):
        raise InvalidArgumentError.for_field("machine_id", "must not be given together with site or machine_type")
    if machine_id:
        await require_machine(context, caller, machine_id)
    else:
        site = resolve_site(caller, site)
    over = resolve_range(parse_query_time("start", start), parse_query_time("end", end))
    return AccountQuery(MachineSelection(machine_id, site, machine_type), over, group_by, format)


AccountQueryParameters = Annotated[AccountQuery, Depends(_parse_query)]


def common_fields(query: AccountQuery, not_metered: Sequence[str]) -> dict[str, Any]:
    """Returns the fields that all accounts begin with. not_metered: Ids of the machines without a meter."""
    return {
        "start": to_datetime(query.over.start),
        "end": to_datetime(query.over.end),
        "group_by": query.group_by,
        "not_metered": not_metered[:_MAX_NAMED],
        "not_metered_count": len(not_metered),
    }


def rows_by_hour(amounts: HourlyAmounts) -> Iterator[tuple[datetime, float, float]]:
    """Yields start, amount and coverage of each hour."""
    rows = zip(amounts.amount.tolist(), amounts.coverage_by_hour.tolist(), strict=True)
    for index, (amount, coverage) in enumerate(rows):
        yield to_datetime((amounts.first + index) * HOUR_US), amount, coverage


def export(query: AccountQuery, groups: Mapping[str, Mapping[str, Floats]], name: str) -> Response:
    """Returns a file with a row for each group and hour.

    Args:
        query: The query, whose format is csv or parquet.
        groups: For each group, its columns by name, with a number for each hour.
        name: The file's name without extension.

    Raises:
        UnimplementedError: Parquet was requested and pyarrow is not installed.
    """
    starts = [to_datetime((query.over.first_hour + index) * HOUR_US) for index in range(query.over.hours)]
    table: dict[str, list[Any]] = {"start": [], query.group_by: []}
    for group, columns in groups.items():
        table["start"] += starts
        table[query.group_by] += [group] * len(starts)
        for column, values in columns.items():
            table.setdefault(column, []).extend(np.asarray(values).tolist())
    return table_response(table, name, "csv" if query.format == "csv" else "parquet")
