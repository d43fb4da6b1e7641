"""Unreadable segments and blocks: moved to tables of their own, so that the others can be merged and read.

The readable frames of a damaged block are kept as a new block.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aurum.ingestion.sqlite.blocks import DamagedPart, read_block
from aurum.ingestion.sqlite.packing import insert_blocks
from aurum.runtime import damage
from aurum.runtime.time_units import DAY_US
from aurum.storage.block import BLOCK_SERIES, pack_blocks
from aurum.storage.database import transaction
from aurum.storage.durable_file import write_file

_SEGMENT_COLUMNS = "id, series, start_us, source, sequence, end_us, count, data"
_BLOCK_COLUMNS = "id, bucket, level, start_us, end_us, count, head, data"
_ABSENT = {
    "segment": "it is set apart, and its readings are in no answer",
    "block": "it is set apart, and its unreadable readings are in no answer",
}


@dataclass(frozen=True, slots=True)
class SetApart:
    """A damaged part that is set apart, with its name for reports and what is wrong with it."""

    part: DamagedPart
    name: str
    problem: str


def set_apart(connection: sqlite3.Connection, problems: Mapping[DamagedPart, str]) -> None:
    """Moves damaged segments and blocks to the tables of damaged ones.

    Args:
        connection: A connection that may write.
        problems: What is wrong with each.

    Raises:
        sqlite3.Error: If the tables cannot be written.
    """
    for part, problem in problems.items():
        if part.kind == "segment":
            _move_segment(connection, part.id, problem)
        else:
            _move_block(connection, part.id, problem)
    report_damaged_parts(connection)


def _move_segment(connection: sqlite3.Connection, id_: int, problem: str) -> None:
    with transaction(connection):
        connection.execute(
            f"INSERT OR REPLACE INTO damaged_segments SELECT {_SEGMENT_COLUMNS}, ? FROM segments WHERE id = ?",  # noqa: S608
            (problem, id_),
        )
        connection.execute("DELETE FROM segments WHERE id = ?", (id_,))


def _move_block(connection: sqlite3.Connection, id_: int, problem: str) -> None:
    with transaction(connection):
        row = connection.execute("SELECT level FROM blocks WHERE id = ?", (id_,)).fetchone()
        if row is None:  # set apart by another thread
            return
        readable, found = read_block(connection, id_)
        if not found:  # it was merged, and its id was given to another block
            return
        connection.execute(
            f"INSERT OR REPLACE INTO damaged_blocks SELECT {_BLOCK_COLUMNS}, ? FROM blocks WHERE id = ?",  # noqa: S608
            (found or problem, id_),
        )
        connection.execute("DELETE FROM blocks WHERE id = ?", (id_,))
        if readable is not None:
            insert_blocks(connection, pack_blocks(readable), row[0])


def report_damaged_parts(connection: sqlite3.Connection) -> None:
    """Updates the reported damaged segments and blocks from the tables."""
    present = {(each.part.kind, each.name): each.problem for each in damaged_parts(connection)}
    for (kind, name), problem in present.items():
        damage.report(kind, name, problem, _ABSENT[kind])
    for item in damage.latest():
        kind, name = item["kind"], item["name"]
        if kind in {"segment", "block"} and (kind, name) not in present:
            damage.withdraw(kind, name)


def move_out(connection: sqlite3.Connection, folder: Path) -> int:
    """Writes the damaged segments and blocks to files and removes them from the tables. Returns how many.

    Raises:
        OSError: If a file cannot be written.
        sqlite3.Error: If the tables cannot be written.
    """
    moved = list(damaged_parts(connection))
    for each in moved:
        kind, id_ = each.part
        table, columns = f"damaged_{kind}s", _SEGMENT_COLUMNS if kind == "segment" else _BLOCK_COLUMNS
        row = connection.execute(f"SELECT {columns} FROM {table} WHERE id = ?", (id_,)).fetchone()  # noqa: S608
        folder.mkdir(parents=True, exist_ok=True)
        content = dict(zip(columns.split(", "), row, strict=True))
        written = content.pop("head", b"") + content.pop("data")
        write_file(folder / f"{kind}-{id_}.bin", written)
        described = content | {"name": each.name, "problem": each.problem}
        write_file(folder / f"{kind}-{id_}.json", (json.dumps(described) + "\n").encode())
        with transaction(connection):
            connection.execute(f"DELETE FROM {table} WHERE id = ?", (id_,))  # noqa: S608
    return len(moved)


def damaged_parts(connection: sqlite3.Connection) -> Iterator[SetApart]:
    """Yields the segments and blocks that are set apart."""
    segments = connection.execute(
        "SELECT damaged_segments.id, machine_id, sensor, start_us, problem FROM damaged_segments "
        "LEFT JOIN series ON series.id = damaged_segments.series ORDER BY damaged_segments.id"
    ).fetchall()
    for id_, machine_id, sensor, start_us, problem in segments:
        yield SetApart(DamagedPart("segment", id_), segment_name(id_, machine_id, sensor, start_us), problem)
    blocks = connection.execute("SELECT id, bucket, start_us, problem FROM damaged_blocks ORDER BY id").fetchall()
    for id_, bucket, start_us, problem in blocks:
        yield SetApart(DamagedPart("block", id_), block_name(connection, id_, bucket, start_us), problem)


def segment_name(id_: int, machine_id: str | None, sensor: str | None, start_us: int) -> str:
    """Returns the name of a segment for reports about it."""
    return f"{id_} of machine {machine_id}, sensor {sensor}, day {start_us // DAY_US}"


def block_name(connection: sqlite3.Connection, id_: int, bucket: int, start_us: int) -> str:
    """Returns the name of a block for reports about it."""
    first, last = connection.execute(
        "SELECT min(machine_id), max(machine_id) FROM series WHERE id >= ? AND id < ?",
        (bucket * BLOCK_SERIES, (bucket + 1) * BLOCK_SERIES),
    ).fetchone()
    machines = f"machine {first}" if first == last else f"machines {first} to {last}"
    return f"{id_} of {machines}, day {start_us // DAY_US}"
