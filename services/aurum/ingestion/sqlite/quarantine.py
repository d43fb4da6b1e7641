"""Unreadable segments: moved to a table of their own, so that the others can be merged and read."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from aurum.runtime import damage
from aurum.runtime.time_units import DAY_US
from aurum.storage.database import transaction
from aurum.storage.durable_file import write_file

_COLUMNS = "id, series, start_us, source, sequence, end_us, count, data"


def set_apart(connection: sqlite3.Connection, problems: Mapping[int, str]) -> None:
    """Moves segments to the table of damaged ones.

    Args:
        connection: A connection that may write.
        problems: What is wrong with each segment, by id.

    Raises:
        sqlite3.Error: If the tables cannot be written.
    """
    for id_, problem in problems.items():
        with transaction(connection):
            connection.execute(
                f"INSERT OR REPLACE INTO damaged_segments SELECT {_COLUMNS}, ? FROM segments WHERE id = ?",  # noqa: S608
                (problem, id_),
            )
            connection.execute("DELETE FROM segments WHERE id = ?", (id_,))
    report_damaged_segments(connection)


def report_damaged_segments(connection: sqlite3.Connection) -> None:
    """Updates the reported damaged segments from the table."""
    present = dict(damaged_segments(connection))
    for name, problem in present.items():
        damage.report("segment", name, problem, "it is set apart, and its readings are in no answer")
    for each in damage.latest():
        if each["kind"] == "segment" and each["name"] not in present:
            damage.withdraw("segment", each["name"])


def move_out(connection: sqlite3.Connection, folder: Path) -> int:
    """Writes the damaged segments to files and removes them from the tables. Returns how many.

    Raises:
        OSError: If a file cannot be written.
        sqlite3.Error: If the tables cannot be written.
    """
    count = 0
    for name, problem, id_ in list(_damaged_segments(connection)):
        row = connection.execute(f"SELECT {_COLUMNS} FROM damaged_segments WHERE id = ?", (id_,)).fetchone()  # noqa: S608
        folder.mkdir(parents=True, exist_ok=True)
        description = dict(zip(_COLUMNS.split(", ")[:-1], row[:-1], strict=True)) | {"name": name, "problem": problem}
        write_file(folder / f"segment-{id_}.bin", row[-1])
        write_file(folder / f"segment-{id_}.json", (json.dumps(description) + "\n").encode())
        with transaction(connection):
            connection.execute("DELETE FROM damaged_segments WHERE id = ?", (id_,))
        count += 1
    return count


def damaged_segments(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Returns the name of each damaged segment, and what is wrong with it."""
    return [(name, problem) for name, problem, _ in _damaged_segments(connection)]


def segment_name(id_: int, machine_id: str | None, sensor: str | None, start_us: int) -> str:
    """Returns the name of a segment for reports about it."""
    return f"{id_} of machine {machine_id}, sensor {sensor}, day {start_us // DAY_US}"


def _damaged_segments(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int]]:
    """Yields the name, problem and id of each damaged segment."""
    rows = connection.execute(
        "SELECT damaged_segments.id, machine_id, sensor, start_us, problem FROM damaged_segments "
        "LEFT JOIN series ON series.id = damaged_segments.series ORDER BY damaged_segments.id"
    )
    for id_, machine_id, sensor, start_us, problem in rows:
        yield segment_name(id_, machine_id, sensor, start_us), problem, id_
