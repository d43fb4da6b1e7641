"""Writes tables of hourly values as CSV and Parquet files, group by group, so that no whole table is in memory."""

import asyncio
import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from fastapi.responses import StreamingResponse

from aurum.runtime.errors import UnimplementedError
from aurum.sustainability.hourly import Floats

CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_GROUPS_PER_ROW_GROUP = 50  # of a Parquet file
_PART_BYTES = 65_536
DECIMALS_OF_METERS = 3

Columns = Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class HourlyTable:
    """A table with a row for each group and hour. It can be written once.

    Attributes:
        starts: The start of each hour.
        group_by: The name of the column that names the group.
        columns: The names of the further columns.
        groups: The name of each group and its columns, which have a number for each hour. It is consumed on threads.
        decimals: Decimals to which numbers are rounded. By default thousandths, which are more than meters can know: of
            kWh, litres, kgCO2e and seconds. None does not round.
    """

    starts: Sequence[datetime]
    group_by: str
    columns: Sequence[str]
    groups: Iterator[tuple[str, Columns]]
    decimals: int | None = DECIMALS_OF_METERS


async def table_response(table: HourlyTable, name: str, file_format: Literal["csv", "parquet"]) -> StreamingResponse:
    """Returns a table as a file to download.

    Args:
        table: The table.
        name: The file's name without extension.
        file_format: The format, which is also the extension.

    Raises:
        UnimplementedError: Parquet was requested and pyarrow is not installed.
    """
    if file_format == "csv":
        parts, media_type = encode_csv(table), CSV
    else:
        parts, media_type = _split(await asyncio.to_thread(_encode_parquet, table)), PARQUET
    headers = {"Content-Disposition": f'attachment; filename="{name}.{file_format}"'}
    return StreamingResponse(parts, media_type=media_type, headers=headers)


def encode_csv(table: HourlyTable) -> Iterator[bytes]:
    """Yields a table as CSV: the header, then the rows of each group.

    Text that begins like a formula gets an apostrophe, against CSV injection (OWASP).
    """
    starts = [csv_text(start) for start in table.starts]
    yield _encode_rows([("start", table.group_by, *table.columns)])
    for name, columns in table.groups:
        values = (_format_column(columns[column], table.decimals) for column in table.columns)
        yield _encode_rows(zip(starts, [csv_text(name)] * len(starts), *values, strict=True))


def _encode_rows(rows: Iterable[Sequence[Any]]) -> bytes:
    output = io.StringIO()
    csv.writer(output, lineterminator="\n").writerows(rows)
    return output.getvalue().encode()


def _format_column(values: Floats, decimals: int | None) -> list[Any]:
    """Returns the cells of a column; an unknown value is an empty one."""
    return ["" if value != value else value for value in _rounded(values, decimals).tolist()]  # noqa: PLR0124 - NaN


def _rounded(values: Floats, decimals: int | None) -> Floats:
    return values if decimals is None else np.round(values, decimals)


def csv_text(value: datetime | str) -> str:
    """Returns the cell for a time or a text. One that begins like a formula gets an apostrophe."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return f"'{value}" if value.startswith(_FORMULAS) else value


def _encode_parquet(table: HourlyTable) -> memoryview:
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional, since it would double the size of the API's image
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UnimplementedError(
            "Parquet is not available, because pyarrow is not installed in the API; request csv, or install "
            "aurumai[export]",
            reason="NO_PARQUET",
        ) from error
    time = pa.timestamp("us", tz="UTC")
    fields = [("start", time), (table.group_by, pa.string()), *((name, pa.float64()) for name in table.columns)]
    starts = pa.array(table.starts, time)
    output = io.BytesIO()
    with parquet.ParquetWriter(output, pa.schema(fields)) as writer:
        while groups := list(itertools.islice(table.groups, _GROUPS_PER_ROW_GROUP)):
            tables = [
                pa.Table.from_arrays(
                    [
                        starts,
                        pa.array([name] * len(starts)),
                        *(pa.array(_rounded(columns[column], table.decimals)) for column in table.columns),
                    ],
                    schema=writer.schema,
                )
                for name, columns in groups
            ]
            writer.write_table(pa.concat_tables(tables))
    return output.getbuffer()


def _split(content: memoryview) -> Iterator[bytes]:
    for start in range(0, len(content), _PART_BYTES):
        yield bytes(content[start : start + _PART_BYTES])
