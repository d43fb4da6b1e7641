"""Writes tables as CSV and Parquet files."""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from fastapi import Response

from aurum.runtime.errors import UnimplementedError

CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def table_response(table: Mapping[str, Sequence[Any]], name: str, file_format: Literal["csv", "parquet"]) -> Response:
    """Returns a table as a file to download.

    Args:
        table: The columns by name, all of the same length.
        name: The file's name without extension.
        file_format: The format, which is also the extension.

    Raises:
        UnimplementedError: Parquet was requested and pyarrow is not installed.
    """
    content, media_type = (to_csv(table), CSV) if file_format == "csv" else (_to_parquet(table), PARQUET)
    headers = {"Content-Disposition": f'attachment; filename="{name}.{file_format}"'}
    return Response(content, media_type=media_type, headers=headers)


def to_csv(table: Mapping[str, Sequence[Any]]) -> bytes:
    """Returns a table as CSV. Text that begins like a formula gets an apostrophe, against CSV injection (OWASP)."""
    output = io.StringIO()
    rows = csv.writer(output, lineterminator="\n")
    rows.writerow(table)
    for cells in zip(*table.values(), strict=True):
        rows.writerow([_format_cell(cell) for cell in cells])
    return output.getvalue().encode()


def _format_cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _to_parquet(table: Mapping[str, Sequence[Any]]) -> bytes:
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional, since it would double the size of the API's image
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UnimplementedError(
            "Parquet is not available, because pyarrow is not installed in the API; request csv, or install "
            "aurumai[export]",
            reason="NO_PARQUET",
        ) from error
    output = io.BytesIO()
    parquet.write_table(pa.table(dict(table)), output)
    return output.getvalue()
