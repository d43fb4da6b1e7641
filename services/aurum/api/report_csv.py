"""The handover report as a CSV file."""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import datetime

from aurum.api.report_schemas import HandoverOut
from aurum.api.table_export import csv_text

_COLUMNS = ("section", "time", "machine_id", "rule", "text", "priority", "state", "count", "by", "until", "remark")
_Cell = str | int | datetime | None
_Row = dict[str, _Cell]


def handover_csv(report: HandoverOut) -> bytes:
    """Returns a report as one table, whose column `section` says what a row is.

    Text that begins like a formula gets an apostrophe, against CSV injection (OWASP).
    """
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_cells(row) for row in _rows(report))
    return output.getvalue().encode()


def _cells(row: _Row) -> Sequence[str | int]:
    return [_cell(row.get(column)) for column in _COLUMNS]


def _cell(value: _Cell) -> str | int:
    if isinstance(value, int):
        return value
    return "" if value is None else csv_text(value)


def _rows(report: HandoverOut) -> Iterator[_Row]:
    for name in ("raised", "cleared", "acknowledged", "open_count", "shelved_count", "comment_count"):
        yield {"section": "total", "text": name, "count": getattr(report, name)}
    for alarm in report.open:
        about: _Row = {"machine_id": alarm.machine_id, "rule": alarm.rule, "text": alarm.text}
        yield {
            "section": "open",
            "time": alarm.raised_at,
            "priority": alarm.priority,
            "state": alarm.state,
            **about,
        }
    for raised in report.raised_alarms:
        about = {"machine_id": raised.machine_id, "rule": raised.rule, "text": raised.text}
        yield {"section": "raised", "priority": raised.priority, "count": raised.count, **about}
    for shelved in report.shelved:
        about = {"machine_id": shelved.machine_id, "rule": shelved.rule, "text": shelved.text}
        yield {"section": "shelved", "by": shelved.by, "until": shelved.until, "remark": shelved.reason, **about}
    for comment in report.comments:
        about = {"machine_id": comment.machine_id, "rule": comment.rule, "text": comment.text}
        yield {"section": "comment", "time": comment.at, "by": comment.by, "remark": comment.comment, **about}
    for worst in report.worst:
        yield {
            "section": "machine",
            "machine_id": worst.machine_id,
            "count": worst.raised,
            "remark": f"{worst.open} open",
        }
