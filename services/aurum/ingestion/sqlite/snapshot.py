"""Access to a store's files without its service, for training, exports, checks and backups.

The service may write meanwhile.
"""

import contextlib
import logging
import shutil
import sqlite3
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aurum.ingestion.downsample import merge_parts
from aurum.ingestion.memtable import Memtable
from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.series_reader import read_merged
from aurum.ingestion.sqlite import reads, schema
from aurum.ingestion.sqlite.blocks import BlockReader, DamagedPart, read_block
from aurum.ingestion.sqlite.quarantine import block_name, damaged_parts, move_out, segment_name, set_apart
from aurum.ingestion.sqlite.schema import log_folder
from aurum.ingestion.sqlite.sources import Sources
from aurum.ingestion.store import Event, MachineRecord
from aurum.readings.batch import SeriesKey, Timestamps, Values
from aurum.readings.batch_decoding import decode
from aurum.runtime.time_units import DAY_US
from aurum.storage import segment_log
from aurum.storage.database import NewerDatabaseError, close, connect, read_version
from aurum.storage.segment import CorruptSegmentError, unpack

logger = logging.getLogger(__name__)

_ATTEMPTS = 10  # attempts to find the log and the tables in one state while the service flushes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of a store.

    Attributes:
        connection: Reads the tables in one transaction.
        numbers: The numbers of the series.
        recent: The readings of the log that the tables lack.
        damaged: The segments and blocks that were left out of answers, with what is wrong with each.
        blocks: Reads the blocks.
    """

    connection: sqlite3.Connection
    numbers: SeriesIndex
    recent: Memtable
    damaged: dict[DamagedPart, str] = field(default_factory=dict)
    blocks: BlockReader = field(init=False)

    def __post_init__(self) -> None:
        """Creates the reader of blocks."""
        object.__setattr__(self, "blocks", BlockReader(self.connection, self.damaged))

    def list_machines(self) -> list[MachineRecord]:
        """Returns all machines, ordered by id, including those that only the log has."""
        machines = {machine.machine_id: machine for machine in reads.read_machines(self.connection)}
        for number in self.recent.numbers().tolist():
            machine_id, _ = self.numbers.key_of(number)
            machines.setdefault(machine_id, MachineRecord(machine_id, "", "", 0, ""))
        return [machines[machine_id] for machine_id in sorted(machines)]

    def sensors(self, machine_id: str) -> list[str]:
        """Returns the sensors of a machine, sorted."""
        return sorted(self.numbers.key_of(number)[1] for number in self.numbers.series_of(machine_id))

    def days(self, key: SeriesKey) -> list[int]:
        """Returns the days since the epoch on which a series has readings."""
        number = self.numbers.number_of(key)
        if number is None:
            return []
        rows = self.connection.execute("SELECT DISTINCT start_us / ? FROM segments WHERE series = ?", (DAY_US, number))
        days = {row[0] for row in rows} | self.blocks.days(number)
        for part in self.recent.parts(key):
            days.update((part.timestamps // DAY_US).tolist())
        return sorted(days)

    def day(self, key: SeriesKey, day: int) -> tuple[Timestamps, Values]:
        """Returns the readings of a series on one day."""
        number, recent = self.numbers.number_of(key), self.recent.parts(key)
        series = reads.SqliteSeries(self.connection, number, recent, self.blocks, self.damaged)
        start, end = day * DAY_US, (day + 1) * DAY_US
        return read_merged(series, series.pieces(start, end), start, end)

    def series(self, key: SeriesKey) -> tuple[Timestamps, Values]:
        """Returns all readings of a series."""
        return merge_parts([self.day(key, day) for day in self.days(key)])

    def events(self) -> Iterator[Event]:
        """Yields all events. Those of the plant as a whole come last, in the order of their numbers."""
        columns = "kind, machine_id, at_us, id, data, number"
        for which in ("machine_id != ''", "machine_id = '' ORDER BY number"):
            for row in self.connection.execute(f"SELECT {columns} FROM events WHERE {which}"):  # noqa: S608
                yield Event(*row)


@contextlib.contextmanager
def open_snapshot(path: Path) -> Iterator[Snapshot]:
    """Opens the present state of the store at `path`.

    Raises:
        FileNotFoundError: If there is no store.
        NewerDatabaseError: If the store has another format version, older or newer.
        sqlite3.DatabaseError: If the file cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the path of a store, such as .aurum/store.db")
    version = read_version(path, schema.APPLICATION)
    if version != schema.VERSION:
        raise NewerDatabaseError(
            f"{path} has format {version}, but this version reads format {schema.VERSION}; "
            + ("start ingestion once, which converts it" if version < schema.VERSION else "use a newer version")
        )
    connection = connect(path, read_only=True)
    try:
        numbers, recent = _read_recent(connection, path)
        yield Snapshot(connection, numbers, recent)
    finally:
        close(connection)


def _read_recent(connection: sqlite3.Connection, path: Path) -> tuple[SeriesIndex, Memtable]:
    """Begins reading one state of the tables. Returns their series, and the readings of the log that they lack."""
    for attempt in range(_ATTEMPTS):
        connection.execute("BEGIN")
        position = connection.execute("SELECT id FROM log_position").fetchone()[0]
        sources = Sources(connection)  # gives the same ranks as in the service
        numbers = SeriesIndex()
        numbers.load(reads.read_series(connection))
        recent = Memtable(numbers)
        try:
            for record in segment_log.scan(log_folder(path), position):
                batch = decode(record.payload, now=2**62)
                recent.add_batch(batch, sources.record_batch(batch))
            return numbers, recent
        except FileNotFoundError:  # flushed and trimmed at this moment, so the tables must be read again
            connection.execute("ROLLBACK")
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("not reached")


def read_histories(
    path: Path, machine_ids: Container[str] | None = None
) -> Iterator[tuple[MachineRecord, dict[str, tuple[Timestamps, Values]]]]:
    """Yields every machine of a store, or those named, with all readings, for training. Raises as open_snapshot."""
    with open_snapshot(path) as snapshot:
        for machine in snapshot.list_machines():
            if machine_ids is not None and machine.machine_id not in machine_ids:
                continue
            columns = {
                sensor: snapshot.series((machine.machine_id, sensor)) for sensor in snapshot.sensors(machine.machine_id)
            }
            columns = {sensor: column for sensor, column in columns.items() if len(column[0])}
            if columns:
                yield machine, columns
        for part, problem in snapshot.damaged.items():
            logger.warning("%s of %s is damaged and left out: %s", part, path, problem)


def read_events(path: Path, kind: str) -> dict[str, list[Event]]:
    """Returns the events of one kind by machine, ordered by time. Raises as open_snapshot does."""
    by_machine: dict[str, list[Event]] = {}
    with open_snapshot(path) as snapshot:
        rows = snapshot.connection.execute(
            "SELECT kind, machine_id, at_us, id, data, number FROM events WHERE kind = ? ORDER BY at_us", (kind,)
        )
        for row in rows:
            event = Event(*row)
            by_machine.setdefault(event.machine_id, []).append(event)
    return by_machine


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check. `problems` has a sentence for each damage."""

    segments: int
    blocks: int
    readings: int
    log_records: int
    problems: list[str]


def check(path: Path) -> CheckResult:
    """Verifies the tables' pages, the checksum and content of segments and blocks, and every record of the log."""
    problems: list[str] = []
    segments = blocks = readings = 0
    with open_snapshot(path) as snapshot:
        problems += [
            f"tables: {row[0]}" for row in snapshot.connection.execute("PRAGMA integrity_check(20)") if row[0] != "ok"
        ]
        rows = snapshot.connection.execute(
            "SELECT segments.id, machine_id, sensor, start_us, end_us, count, data FROM segments "
            "LEFT JOIN series ON series.id = segments.series"
        )
        for id_, machine_id, sensor, start, end, count, data in rows:
            segments += 1
            try:
                timestamps, _ = unpack(data)
                if (int(timestamps[0]), int(timestamps[-1]), len(timestamps)) != (start, end, count):
                    raise CorruptSegmentError("its content differs from its row in the tables")
                readings += count
            except CorruptSegmentError as error:
                problems.append(f"segment {segment_name(id_, machine_id, sensor, start)}: {error}")
        for id_, bucket, start, end, count in snapshot.connection.execute(
            "SELECT id, bucket, start_us, end_us, count FROM blocks"
        ).fetchall():
            blocks += 1
            found, problem = read_block(snapshot.connection, id_)
            if found is not None and not problem:
                times = found.timestamps
                if (int(times.min()), int(times.max()), len(times)) != (start, end, count):
                    problem = "its content differs from its row in the tables"
            if problem:
                problems.append(f"block {block_name(snapshot.connection, id_, bucket, start)}: {problem}")
            readings += 0 if found is None else len(found.values)
        problems += [
            f"{each.part.kind} {each.name}: {each.problem} (set apart)" for each in damaged_parts(snapshot.connection)
        ]
    log_records, damage = segment_log.find_damage(log_folder(path))
    for each in damage:
        kind = "an unfinished, unacknowledged write, which the next start removes" if each.at_end else "damaged"
        problems.append(f"{each.path}: {each.bytes} bytes at {each.offset} are {kind}")
    return CheckResult(segments, blocks, readings, log_records, problems)


def repair(path: Path) -> int:
    """Moves damaged segments and blocks from the tables into files beside the store.

    Returns how many. The service may run meanwhile.

    Raises:
        OSError: If a file cannot be written.
        FileNotFoundError, NewerDatabaseError, sqlite3.DatabaseError: As open_snapshot.
    """
    problems: dict[DamagedPart, str] = {}
    with open_snapshot(path) as snapshot:
        for id_, data in snapshot.connection.execute("SELECT id, data FROM segments"):
            try:
                unpack(data)
            except CorruptSegmentError as error:
                problems[DamagedPart("segment", id_)] = str(error)
        for (id_,) in snapshot.connection.execute("SELECT id FROM blocks").fetchall():
            if problem := read_block(snapshot.connection, id_)[1]:
                problems[DamagedPart("block", id_)] = problem
    tables = connect(path)
    try:
        set_apart(tables, problems)
        return move_out(tables, schema.damaged_folder(path))
    finally:
        close(tables)


def backup(path: Path, target: Path) -> int:
    """Copies a store, even while its service runs. Returns the number of bytes.

    The copy contains everything that was acknowledged before the start. It is written completely or not at all; the
    remains of a killed backup are removed by the next.

    Raises:
        FileExistsError: If the target exists.
        FileNotFoundError, NewerDatabaseError, sqlite3.DatabaseError: As open_snapshot.
    """
    if target.exists() or log_folder(target).exists():
        raise FileExistsError(f"{target} exists already; give a path that does not exist")
    with open_snapshot(path):
        pass  # checks that it is a store
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        copied = partial / target.name
        # The log is copied first: records that are flushed and trimmed meanwhile are then in the tables.
        log_folder(copied).mkdir()
        for file in sorted(log_folder(path).glob("*.log")):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(file, log_folder(copied) / file.name)
        _copy_tables(path, copied)
        nbytes = sum(file.stat().st_size for file in (copied, *log_folder(copied).iterdir()))
        log_folder(copied).replace(log_folder(target))
        copied.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return nbytes


def _copy_tables(path: Path, target: Path) -> None:
    """Copies the tables in one read transaction. A copy in steps would start again at each commit of the service."""
    source = connect(path, read_only=True)
    copy = sqlite3.connect(target)
    try:
        source.backup(copy)
    finally:
        copy.close()
        close(source)
