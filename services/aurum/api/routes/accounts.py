"""Common parts of the routes for energy, carbon and water: query parameters, common fields and export."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Response
from pydantic import BaseModel

from aurum.api.accounting.budget import AccountReservation
from aurum.api.accounting.group_measurement import GroupMeasurement, UseNotes
from aurum.api.accounting.measurement import MachineSelection, resolve_range
from aurum.api.context import ApiContext, Caller, Context
from aurum.api.scope import require_machine, resolve_site
from aurum.api.serializers import parse_query_time, to_datetime
from aurum.api.sustainability_schemas import CorrectionOut
from aurum.api.table_export import CSV, DECIMALS_OF_METERS, PARQUET, Columns, HourlyTable, table_response
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.corrections import MeterCorrection
from aurum.sustainability.hourly import HourlyAmounts, TimeRange
from aurum.sustainability.machine_use import GroupBy, MachineUse, Quantity, group_use

Format = Literal["json", "csv", "parquet"]
EXPORTED: dict[int | str, dict[str, Any]] = {200: {"content": {CSV: {}, PARQUET: {}}}}


@dataclass(frozen=True, slots=True)
class AccountQuery:
    """The query of an account.

    Attributes:
        selection: The machines.
        over: The time range.
        group_by: How to group them.
        format: The format of the answer.
        reservation: The memory of the account, until the answer is sent.
    """

    selection: MachineSelection
    over: TimeRange
    group_by: GroupBy
    format: Format
    reservation: AccountReservation


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
) -> AsyncIterator[AccountQuery]:
    if machine_id and (site or machine_type):
        raise InvalidArgumentError.for_field("machine_id", "must not be given together with site or machine_type")
    if machine_id:
        await require_machine(context, caller, machine_id)
    else:
        site = resolve_site(caller, site)
    over = resolve_range(parse_query_time("start", start), parse_query_time("end", end))
    with context.account_budget.reservation() as reservation:
        yield AccountQuery(MachineSelection(machine_id, site, machine_type), over, group_by, format, reservation)


AccountQueryParameters = Annotated[AccountQuery, Depends(_parse_query)]


def measurement_of(context: ApiContext, query: AccountQuery, quantities: Collection[Quantity]) -> GroupMeasurement:
    """Returns the measurement of the machines of a query.

    Args:
        context: The context of the API.
        query: The query.
        quantities: What to measure.
    """
    return GroupMeasurement(
        context.ingestion, context.accounting_plan, query.selection, query.over, quantities, query.reservation
    )


def common_fields(query: AccountQuery, notes: UseNotes) -> dict[str, Any]:
    """Returns the fields that all accounts begin with.

    Args:
        query: The query.
        notes: What is to be said about its machines.
    """
    return {
        "start": to_datetime(query.over.start),
        "end": to_datetime(query.over.end),
        "group_by": query.group_by,
        "not_metered": notes.not_metered,
        "not_metered_count": notes.not_metered_count,
        "corrections": [_correction_out(machine_id, each) for machine_id, each in notes.corrections],
        "corrections_count": notes.correction_counts.total(),
        "corrections_by_kind": dict(notes.correction_counts),
    }


def _correction_out(machine_id: str, correction: MeterCorrection) -> CorrectionOut:
    return CorrectionOut(
        kind=correction.kind,
        machine_id=machine_id,
        sensor=correction.sensor,
        start=to_datetime(correction.start_us),
        end=to_datetime(correction.end_us),
        amount=correction.amount,
        unit=correction.unit,
    )


def rows_by_hour(amounts: HourlyAmounts) -> Iterator[tuple[datetime, float, float]]:
    """Yields start, amount and coverage of each hour."""
    rows = zip(amounts.amount.tolist(), amounts.coverage_by_hour.tolist(), strict=True)
    for index, (amount, coverage) in enumerate(rows):
        yield to_datetime((amounts.first + index) * HOUR_US), amount, coverage


async def json_answer(build: Callable[[], BaseModel]) -> Response:
    """Returns an account as JSON. It is made on a thread, since it may have thousands of groups.

    Args:
        build: Returns the account.
    """
    content = await asyncio.to_thread(lambda: build().model_dump_json().encode())
    return Response(content, media_type="application/json")


async def export_groups(
    measurement: GroupMeasurement, by: GroupBy, is_metered: Callable[[MachineUse], bool]
) -> dict[str, list[MachineUse]]:
    """Measures the groups of a file: each machine by hour if they are machines, otherwise sums of machines.

    Args:
        measurement: The machines.
        by: How to group them.
        is_metered: Whether the file contains a machine.

    Raises:
        InvalidArgumentError: The machines have too many hours.
    """
    if by != "machine":
        return group_use((await measurement.measure(is_metered)).sums, by)
    return group_use((use for use in await measurement.measure_each() if is_metered(use)), by)


def columns_by_group(
    groups: dict[str, list[MachineUse]], compute_columns: Callable[[Sequence[MachineUse]], Columns]
) -> Iterator[tuple[str, Columns]]:
    """Yields the name and the columns of each group.

    Args:
        groups: The machines of each group. A group is removed when its columns are computed, which frees its memory
            if the caller keeps no other reference to its machines.
        compute_columns: Returns the columns of a group.
    """
    for name in list(groups):
        yield name, compute_columns(groups.pop(name))


async def export(
    query: AccountQuery,
    groups: Iterator[tuple[str, Columns]],
    columns: Sequence[str],
    name: str,
    decimals: int | None = DECIMALS_OF_METERS,
) -> Response:
    """Returns a file with a row for each group and hour. It is written group by group on a thread.

    Args:
        query: The query, whose format is csv or parquet.
        groups: The name and the columns of each group, with a number for each hour.
        columns: The names of the columns.
        name: The file's name without extension.
        decimals: See HourlyTable.

    Raises:
        UnimplementedError: Parquet was requested and pyarrow is not installed.
    """
    starts = [to_datetime((query.over.first_hour + index) * HOUR_US) for index in range(query.over.hours)]
    table = HourlyTable(starts, query.group_by, columns, groups, decimals)
    return await table_response(table, name, "csv" if query.format == "csv" else "parquet")
