"""Common parts of the routes for energy, carbon and water: query parameters, grouping and export."""

import asyncio
import csv
import io
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, Query, Response
from fastapi.responses import StreamingResponse

from aurum.api.accounting import GroupBy, MachineUse, Range, Reservation, Scope, range_of
from aurum.api.context import Caller, Context
from aurum.api.convert import moment, query_time
from aurum.api.scope import require_machine, site_to_ask
from aurum.runtime.errors import InvalidArgumentError, UnimplementedError
from aurum.sustainability.hourly import HOUR_US, Floats, Hourly

Format = Literal["json", "csv", "parquet"]
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
EXPORTED: dict[int | str, dict[str, Any]] = {200: {"content": {CSV: {}, PARQUET: {}}}}

Columns = Mapping[str, Floats]

_MOST_NAMED = 100
_GROUPS_AT_ONCE = 50  # in one row group of a Parquet file
_PART = 65_536  # bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """What an account is asked for. `held` reserves its bytes until the answer is sent."""

    scope: Scope
    over: Range
    group_by: GroupBy
    format: Format
    held: Reservation


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
) -> AsyncIterator[Asked]:
    if machine_id and (site or machine_type):
        raise InvalidArgumentError.of("machine_id", "must not be given together with site or machine_type")
    if machine_id:
        await require_machine(context, caller, machine_id)
    else:
        site = site_to_ask(caller, site)
    over = range_of(query_time("start", start), query_time("end", end))
    with context.accounts.reservation() as held:
        yield Asked(Scope(machine_id, site, machine_type), over, group_by, format, held)


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


def by_group(
    groups: dict[str, list[MachineUse]], columns: Callable[[Sequence[MachineUse]], Columns]
) -> Iterator[tuple[str, Columns]]:
    """Yields each group with its columns, and forgets it."""
    for name in list(groups):
        yield name, columns(groups.pop(name))


async def export(asked: Asked, groups: Iterator[tuple[str, Columns]], columns: Sequence[str], name: str) -> Response:
    """Returns a file with a row for each group and hour. It is made group by group, on a thread.

    Args:
        asked: The query, with the format of the file.
        groups: The groups with their columns, which have a number for each hour.
        columns: The names of these columns.
        name: The file's name without extension.

    Raises:
        UnimplementedError: Parquet was requested and pyarrow is not installed.
    """
    if asked.format == "csv":
        content, kind = _csv(asked, groups, columns), CSV
    else:
        content, kind = _parts(await asyncio.to_thread(_parquet, asked, groups, columns)), PARQUET
    file = f"{name}.{asked.format}"
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    return StreamingResponse(content, media_type=kind, headers=headers)


def _csv(asked: Asked, groups: Iterator[tuple[str, Columns]], columns: Sequence[str]) -> Iterator[bytes]:
    starts = [_cell(moment(us)) for us in _starts(asked)]
    yield _rows([("start", asked.group_by, *columns)])
    for name, found in groups:
        cells = (np.asarray(found[column]).tolist() for column in columns)
        yield _rows(zip(starts, itertools.repeat(_cell(name)), *cells, strict=False))


def _rows(rows: Iterable[Sequence[Any]]) -> bytes:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue().encode()


def _cell(value: Any) -> Any:
    """Formats a cell. Text that begins like a formula gets an apostrophe, against CSV injection (OWASP)."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _starts(asked: Asked) -> list[int]:
    """Returns the start of each hour in µs since 1970."""
    return [(asked.over.first_hour + index) * HOUR_US for index in range(asked.over.hours)]


def _parquet(asked: Asked, groups: Iterator[tuple[str, Columns]], columns: Sequence[str]) -> memoryview:
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional, since it would double the size of the API's image
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UnimplementedError(
            "this API has no pyarrow to write Parquet with; ask for csv, or install aurumai[export] beside it",
            reason="NO_PARQUET",
        ) from error
    time = pa.timestamp("us", tz="UTC")
    fields = [("start", time), (asked.group_by, pa.string()), *((column, pa.float64()) for column in columns)]
    starts = pa.array(_starts(asked), time)
    written = io.BytesIO()
    with parquet.ParquetWriter(written, pa.schema(fields)) as writer:
        for part in iter(lambda: list(itertools.islice(groups, _GROUPS_AT_ONCE)), []):
            tables = (
                pa.Table.from_arrays(
                    [starts, pa.array([name] * len(starts)), *(pa.array(found[column]) for column in columns)],
                    schema=writer.schema,
                )
                for name, found in part
            )
            writer.write_table(pa.concat_tables(tables))
    return written.getbuffer()


def _parts(content: memoryview) -> Iterator[bytes]:
    for start in range(0, len(content), _PART):
        yield bytes(content[start : start + _PART])
