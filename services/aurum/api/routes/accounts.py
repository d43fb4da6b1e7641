"""Common parts of the routes for energy, carbon and water: query parameters, grouping and export."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, Query, Response

from aurum.api.accounting import GroupBy, MachineUse, Range, Scope, range_of
from aurum.api.context import Caller, Context
from aurum.api.scope import require_machine, site_to_ask
from aurum.api.serializers import moment, query_time
from aurum.runtime.errors import InvalidArgumentError, UnimplementedError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.hourly import Floats, Hourly

Format = Literal["json", "csv", "parquet"]
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
EXPORTED: dict[int | str, dict[str, Any]] = {200: {"content": {CSV: {}, PARQUET: {}}}}

_MOST_NAMED = 100


@dataclass(frozen=True, slots=True)
class Asked:
    scope: Scope
    over: Range
    group_by: GroupBy
    format: Format


async def _asked(  # noqa: PLR0917 - query parameters
    context: Context,
    caller: Caller,
    machine_id: Annotated[str, Query(description="Only this machine.")] = "",
    site: Annotated[str, Query(description="Only this site's machines.")] = "",
    machine_type: Annotated[str, Query(description="Only machines of this type.")] = "",
    start: Annotated[
        str | None, Query(description="ISO 8601 or a number since 1970; by default 24 h before end.")
    ] = None,
    end: Annotated[str | None, Query(description="Likewise, exclusive; by default now.")] = None,
    group_by: Annotated[GroupBy, Query(description="Lines are those of the accounting plan.")] = "machine",
    format: Annotated[Format, Query(description="csv, parquet: a row for each group and hour.")] = "json",  # noqa: A002
) -> Asked:
    if machine_id and (site or machine_type):
        raise InvalidArgumentError.of("machine_id", "must not be given together with site or machine_type")
    if machine_id:
        await require_machine(context, caller, machine_id)
    else:
        site = site_to_ask(caller, site)
    over = range_of(query_time("start", start), query_time("end", end))
    return Asked(Scope(machine_id, site, machine_type), over, group_by, format)


AskedFor = Annotated[Asked, Depends(_asked)]


def groups_of(used: Sequence[MachineUse], by: GroupBy) -> dict[str, list[MachineUse]]:
    groups: dict[str, list[MachineUse]] = {}
    for use in used:
        groups.setdefault(use.group(by), []).append(use)
    return groups


def head(asked: Asked, not_metered: Sequence[str]) -> dict[str, Any]:
    """Returns the fields that all accounts begin with."""
    return {
        "start": moment(asked.over.start),
        "end": moment(asked.over.end),
        "group_by": asked.group_by,
        "not_metered": not_metered[:_MOST_NAMED],
        "not_metered_count": len(not_metered),
    }


def by_hour(hourly: Hourly) -> Iterator[tuple[datetime, float, float]]:
    """Yields start, amount and coverage of each hour."""
    for index, (amount, covered, wanted) in enumerate(
        zip(hourly.amount.tolist(), hourly.covered.tolist(), hourly.wanted.tolist(), strict=True)
    ):
        yield moment((hourly.first + index) * HOUR_US), amount, covered / wanted if wanted else 0.0


def export(asked: Asked, groups: Mapping[str, Mapping[str, Floats]], name: str) -> Response:
    """Returns a file with a row for each group and hour.

    Args:
        asked: The query, with the format of the file.
        groups: For each group, its columns by name, with a number for each hour.
        name: The file's name without extension.

    Raises:
        UnimplementedError: Parquet was requested and pyarrow is not installed.
    """
    starts = [moment((asked.over.first_hour + index) * HOUR_US) for index in range(asked.over.hours)]
    table: dict[str, list[Any]] = {"start": [], asked.group_by: []}
    for group, columns in groups.items():
        table["start"] += starts
        table[asked.group_by] += [group] * len(starts)
        for column, values in columns.items():
            table.setdefault(column, []).extend(np.asarray(values).tolist())
    content, kind = (_csv(table), CSV) if asked.format == "csv" else (_parquet(table), PARQUET)
    file = f"{name}.{asked.format}"
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{file}"'})


def _csv(table: Mapping[str, Sequence[Any]]) -> bytes:
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(table)
    for cells in zip(*table.values(), strict=True):
        rows.writerow([_cell(cell) for cell in cells])
    return written.getvalue().encode()


def _cell(value: Any) -> Any:
    """Formats a cell. Text that begins like a formula gets an apostrophe, against CSV injection (OWASP)."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _parquet(table: Mapping[str, Sequence[Any]]) -> bytes:
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional, since it would double the size of the API's image
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UnimplementedError(
            "this API has no pyarrow to write Parquet with; ask for csv, or install aurumai[export] beside it",
            reason="NO_PARQUET",
        ) from error
    written = io.BytesIO()
    parquet.write_table(pa.table(dict(table)), written)
    return written.getvalue()
