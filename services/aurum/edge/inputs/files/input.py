"""Files that are dropped in a folder. Each is stored completely and once, or refused if a cell is wrong.

The source id of a file's batches is a hash of its content and of the rules. Batches that are sent again after an
interruption are therefore recognised as duplicates. A file that is dropped again under other rules counts as a new
one.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import FilesInput
from aurum.edge.inputs.common.connection_status import ConnectionStatus
from aurum.edge.inputs.common.reading_times import shown_time
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.common.tag import TagKind
from aurum.edge.inputs.files.folder import DropFolder, Version
from aurum.readings.batch import MAX_SERIES, Series
from aurum.readings.csv_table import TableNotes, read_csv
from aurum.readings.table_text import open_table
from aurum.readings.tables import TableError, to_series

logger = logging.getLogger(__name__)

_SCAN_INTERVAL = 0.5  # seconds
_BLOCK_READINGS = 50_000  # readings in a batch, approximately
_MAX_BYTES = 1_000_000_000  # of one file, also of what is compressed in it

Item = TypeVar("Item")


@dataclass(slots=True)
class _Checked:
    """A file that was read as a whole and is valid.

    Attributes:
        digest: A hash of its content and of how it is read.
        notes: What was recognised, and which cells are not readings.
    """

    digest: str
    notes: TableNotes


class Files:
    """An input that stores the files that are dropped in a folder."""

    def __init__(self, options: FilesInput, builder: BatchBuilder, status: ConnectionStatus) -> None:
        self._builder = builder
        self._status = status
        self._options = options
        self._block = min(_BLOCK_READINGS, builder.max_readings)
        self._table = options.table_options
        self._earliest_us = int(options.earliest.timestamp() * 1_000_000)
        self._key = f"{self._block} {[rule.model_dump_json() for rule in options.rules]}{options.table_key}"
        self._folder = DropFolder(options.folder, options.pattern, options.settled, options.keep)
        self._thread = ThreadPoolExecutor(1, f"files-{options.name}")

    async def run(self) -> None:
        """Stores the files of the folder, and watches for new ones, until cancelled."""
        try:
            while True:
                try:
                    complete = await self._run_on_thread(self._folder.complete_files)
                except OSError as error:
                    self._status.mark_lost(f"the folder {self._options.folder} cannot be read: {error.strerror}")
                    complete = []
                else:
                    self._status.mark_connected()
                for path in complete:
                    await self._store(path)
                await asyncio.sleep(_SCAN_INTERVAL)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _store(self, path: Path) -> None:
        """Stores a file and puts it away, unless it changes meanwhile; then it is read again later."""
        again = self._folder.was_put_away(path)
        version = await self._run_on_thread(lambda: self._folder.version(path))
        if version is None:
            return
        problem, readings = None, 0
        try:
            checked = await self._run_on_thread(lambda: self._check(path, version))
            if await self._is_unchanged(path, version):
                readings = await self._write(path, checked.digest)
        except TableError as error:
            problem = str(error)
        except OSError as error:
            logger.warning(
                "%s: %s cannot be read and is tried again: %s", self._options.name, path.name, error.strerror
            )
            return
        if not await self._is_unchanged(path, version):
            self._builder.refusals.correct(
                Reason.INCOMPLETE, f"{path.name} changed while it was read; it is read again"
            )
            return
        if problem is not None:
            await self._refuse(path, version, problem)
            return
        if again:
            example = f"{path.name} changed after it had been read; it was read again"
            self._builder.refusals.correct(Reason.INCOMPLETE, example)
        metrics.edge_input_messages_total.labels(self._options.name, "read").inc()
        self._report_file(path, checked, readings)
        await self._run_on_thread(lambda: self._folder.put_away(path, version, None))

    async def _write(self, path: Path, digest: str) -> int:
        """Stores the readings of a file. Returns their number when they are durable."""
        writings, readings = [], 0
        blocks = self._read_blocks(path, self._block, TableNotes())
        sequence = 0
        while (block := await self._run_on_thread(lambda: next(blocks, None))) is not None:
            sequence += 1
            series = self._apply_rules(block)
            if series:
                writings.append(await self._builder.put(f"file-{digest}", sequence, series))
                readings += sum(len(part.values) for part in series)
        await asyncio.gather(*writings)
        return readings

    async def _refuse(self, path: Path, version: Version, problem: str) -> None:
        metrics.edge_input_messages_total.labels(self._options.name, "invalid").inc()
        logger.error("%s: %s is invalid and is moved to refused: %s", self._options.name, path.name, problem)
        self._builder.refusals.refuse(Reason.UNREADABLE, f"{path.name}: {problem}")
        await self._run_on_thread(lambda: self._folder.put_away(path, version, problem))

    def _report_file(self, path: Path, checked: _Checked, readings: int) -> None:
        """Logs what was stored, and counts what was not."""
        notes, refusals = checked.notes, self._builder.refusals
        more = f" ({'; '.join(texts)})" if (texts := notes.describe()) else ""
        logger.info("%s: stored %d readings of %s%s", self._options.name, readings, path.name, more)
        if notes.absent:
            silent = [f"{machine_id} {sensor}" for machine_id, sensor in notes.silent()[:1]]
            more = f"; {silent[0]} has no number at all" if silent else ""
            refusals.refuse(Reason.ABSENT, f"{path.name}, {notes.absent_example}{more}", notes.absent)
        if same := notes.same_time.count:
            problem = "replaced by a later row with the same time, at the latest"
            refusals.correct(Reason.WRONG_TIME, f"{path.name}: {problem} {notes.same_time.example}", same)
        if notes.repeated:
            example = f"{path.name}: repeated hour, {notes.repeated_example}"
            refusals.correct(Reason.WRONG_TIME, example, notes.repeated)

    def _apply_rules(self, block: list[Series]) -> list[Series]:
        """Applies the rules, except for deadbands: a file is stored without thinning."""
        converted: list[Series] = []
        for series in block:
            tag = self._builder.tags.tag_for(series.machine_id, series.sensor)
            if tag.kind is TagKind.DROPPED:
                continue
            timed = self._with_valid_times(series)
            stored = None if timed is None else self._builder.convert_series(self._options.name, tag, timed)
            if stored is not None:
                converted.append(stored)
        return converted

    def _with_valid_times(self, series: Series) -> Series | None:
        """Returns the readings whose time a device can mean, or None. The time of arrival is no time for the others."""
        valid = series.timestamps >= self._earliest_us
        if valid.all():
            return series
        first = int(np.argmin(valid))
        example = f"{series.machine_id} {series.sensor}: {shown_time(int(series.timestamps[first]))}"
        count = int(np.count_nonzero(~valid))
        self._builder.refuse(self._options.name, Reason.WRONG_TIME, example, count)
        if count == len(valid):
            return None
        return Series(series.machine_id, series.sensor, series.timestamps[valid], series.values[valid])

    async def _is_unchanged(self, path: Path, version: Version) -> bool:
        return await self._run_on_thread(lambda: self._folder.version(path)) == version

    def _check(self, path: Path, version: Version) -> _Checked:
        """Reads a whole file. Raises TableError, OSError."""
        if version.size > _MAX_BYTES:
            raise TableError(1, "", f"has {version.size} bytes; at most {_MAX_BYTES} are allowed")
        digest = hashlib.sha256(self._key.encode())
        with path.open("rb") as raw:
            while chunk := raw.read(1_000_000):
                digest.update(chunk)
        notes = TableNotes()
        readings = sum(1 for _ in self._read_blocks(path, _BLOCK_READINGS, notes))
        if readings == 0:
            more = f", only words such as {notes.absent_example}" if notes.absent else ""
            raise TableError(1, "", f"has no readings{more}")
        return _Checked(digest.hexdigest()[:32], notes)

    def _read_blocks(self, path: Path, readings: int, notes: TableNotes) -> Iterator[list[Series]]:
        with open_table(path, self._options.encoding, _MAX_BYTES) as text:
            for rows in read_csv(text, readings, options=self._table, notes=notes):
                series = to_series(rows, device_names=True)
                notes.record_times(series)
                notes.record_numbers((each.machine_id, each.sensor) for each in series)
                for first in range(0, len(series), MAX_SERIES):
                    yield series[first : first + MAX_SERIES]
            notes.encoding = text.encoding

    async def _run_on_thread(self, work: Callable[[], Item]) -> Item:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
