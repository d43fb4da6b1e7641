"""Files that are dropped in a folder. Each is stored completely and once, or refused if a cell is wrong.

The source id of a file's batches is a hash of its content and of the rules. Batches that are sent again after an
interruption are therefore recognised as duplicates. A file that is dropped again under other rules counts as a new
one.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from aurum.edge import metrics
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import FilesInput
from aurum.edge.inputs.common.connection_status import ConnectionStatus
from aurum.edge.inputs.common.tags import TagKind
from aurum.readings.batch import MAX_SERIES, Series
from aurum.readings.csv_table import read_csv
from aurum.readings.tables import TableError, to_series
from aurum.storage.durable_file import write_file

logger = logging.getLogger(__name__)

_SCAN_INTERVAL = 0.5  # seconds
_BLOCK_READINGS = 50_000  # readings in a batch, approximately
_MAX_BYTES = 1_000_000_000  # of one file
_MAX_FILES = 10_000  # checked in one round; the others wait
_DONE, _REFUSED = "done", "refused"

Item = TypeVar("Item")


class Files:
    """An input that stores the files that are dropped in a folder."""

    def __init__(self, options: FilesInput, builder: BatchBuilder, status: ConnectionStatus) -> None:
        self._builder = builder
        self._status = status
        self._options = options
        self._block = min(_BLOCK_READINGS, builder.max_readings)
        self._rules_key = f"{self._block} {[rule.model_dump_json() for rule in options.rules]}"
        self._seen: dict[Path, tuple[int, int, float]] = {}  # size, mtime, unchanged since
        self._thread = ThreadPoolExecutor(1, f"files-{options.name}")

    async def run(self) -> None:
        """Stores the files of the folder, and watches for new ones, until cancelled."""
        try:
            while True:
                try:
                    settled = await self._run_on_thread(self._settled_files)
                except OSError as error:
                    self._status.mark_lost(f"the folder {self._options.folder} cannot be read: {error.strerror}")
                    settled = []
                else:
                    self._status.mark_connected()
                for path in settled:
                    await self._store(path)
                await asyncio.sleep(_SCAN_INTERVAL)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _settled_files(self) -> list[Path]:
        """Returns the files that have not changed for a while, oldest first."""
        folder = self._options.folder
        folder.mkdir(parents=True, exist_ok=True)
        present_files, settled, now = {}, [], time.monotonic()
        for path in sorted(folder.glob(self._options.pattern))[:_MAX_FILES]:
            if path.name.startswith(".") or not path.is_file() or path.is_symlink():
                continue
            status = path.stat()
            seen = self._seen.get(path)
            version = (status.st_size, status.st_mtime_ns)
            since = seen[2] if seen is not None and seen[:2] == version else now
            present_files[path] = (*version, since)
            if now - since >= self._options.settled:
                settled.append((status.st_mtime_ns, path))
        self._seen = present_files
        return [path for _, path in sorted(settled)]

    async def _store(self, path: Path) -> None:
        try:
            digest = await self._run_on_thread(lambda: _validate_and_hash(path, self._rules_key))
        except (TableError, UnicodeDecodeError) as error:
            metrics.edge_input_messages_total.labels(self._options.name, "invalid").inc()
            logger.error("%s: %s is invalid and is moved to refused: %s", self._options.name, path.name, error)
            problem = str(error)
            await self._run_on_thread(lambda: self._move_to(path, _REFUSED, problem))
            return
        except OSError as error:
            logger.warning(
                "%s: %s cannot be read and is tried again: %s", self._options.name, path.name, error.strerror
            )
            return
        writings, readings = [], 0
        blocks = _read_blocks(path, self._block)
        sequence = 0
        while (block := await self._run_on_thread(lambda: next(blocks, None))) is not None:
            sequence += 1
            series = self._apply_rules(block)
            if series:
                writings.append(await self._builder.put(f"file-{digest}", sequence, series))
                readings += sum(len(part.values) for part in series)
        await asyncio.gather(*writings)
        metrics.edge_input_messages_total.labels(self._options.name, "read").inc()
        logger.info("%s: stored %d readings of %s", self._options.name, readings, path.name)
        await self._run_on_thread(lambda: self._move_to(path, _DONE, None))

    def _apply_rules(self, block: list[Series]) -> list[Series]:
        """Applies the rules, except for deadbands: a file is stored without thinning."""
        parts: dict[tuple[str, str], list[Series]] = {}
        for series in block:
            tag = self._builder.tags.tag_for(series.machine_id, series.sensor)
            if tag.kind is TagKind.DROPPED:
                continue
            with np.errstate(over="ignore"):
                values = series.values * tag.factor + tag.offset
            stored = ~np.isinf(values)
            if np.isnan(values[stored]).all():  # ingestion would refuse the whole batch
                stored[:] = False
            if not stored.all():
                self._builder.count_bad_values(int(np.count_nonzero(~stored)))
            if stored.any():
                converted = Series(tag.machine_id, tag.sensor, series.timestamps[stored], values[stored])
                parts.setdefault((tag.machine_id, tag.sensor), []).append(converted)
        return [
            series_parts[0]
            if len(series_parts) == 1
            else Series(
                *key,
                np.concatenate([part.timestamps for part in series_parts]),
                np.concatenate([part.values for part in series_parts]),
            )
            for key, series_parts in parts.items()
        ]

    def _move_to(self, path: Path, folder: str, problem: str | None) -> None:
        target = path.parent / folder
        target.mkdir(exist_ok=True)
        name = f"{time.time_ns() // 1_000_000}-{path.name}"
        if problem is not None:  # written before the file is moved, so that watchers of the folder find it complete
            write_file(target / f"{name}.problem.txt", (problem + "\n").encode(), sync=False)
        path.replace(target / name)
        if problem is None:
            for old in sorted(target.iterdir())[: -self._options.keep or None]:
                old.unlink()

    async def _run_on_thread(self, work: Callable[[], Item]) -> Item:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _validate_and_hash(path: Path, rules_key: str) -> str:
    """Reads a whole file, and returns a hash of its content and of `rules_key`. Raises TableError, OSError."""
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise TableError(1, "", f"has {size} bytes; at most {_MAX_BYTES} are allowed")
    digest = hashlib.sha256(rules_key.encode())
    with path.open("rb") as raw:
        while chunk := raw.read(1_000_000):
            digest.update(chunk)
    if sum(1 for _ in _read_blocks(path, _BLOCK_READINGS)) == 0:
        raise TableError(1, "", "has no readings")
    return digest.hexdigest()[:32]


def _read_blocks(path: Path, readings: int) -> Iterator[list[Series]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        for rows in read_csv(lines, readings):
            series = to_series(rows)
            for first in range(0, len(series), MAX_SERIES):
                yield series[first : first + MAX_SERIES]
