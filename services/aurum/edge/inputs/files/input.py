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
from aurum.edge.inputs.common.tags import Kind
from aurum.readings.batch import MAX_SERIES, Series
from aurum.readings.tables import TableError, read_csv, to_series
from aurum.storage.durable_file import write_file

logger = logging.getLogger(__name__)

_LOOK_EVERY = 0.5  # seconds
_BLOCK = 50_000  # readings in a batch, approximately
_MOST_BYTES = 1_000_000_000  # of one file
_MOST_FILES = 10_000  # checked in one round; the others wait
_DONE, _REFUSED = "done", "refused"

Item = TypeVar("Item")


class Files:
    def __init__(self, options: FilesInput, collector: BatchBuilder, reach: ConnectionStatus) -> None:
        self._collector = collector
        self._reach = reach
        self._options = options
        self._block = min(_BLOCK, collector.most)
        self._how = f"{self._block} {[rule.model_dump_json() for rule in options.rules]}"
        self._seen: dict[Path, tuple[int, int, float]] = {}  # size, mtime, unchanged since
        self._thread = ThreadPoolExecutor(1, f"files-{options.name}")

    async def run(self) -> None:
        try:
            while True:
                try:
                    whole = await self._on_thread(self._whole_files)
                except OSError as error:
                    self._reach.lost(f"the folder {self._options.folder} cannot be read: {error.strerror}")
                    whole = []
                else:
                    self._reach.found()
                for path in whole:
                    await self._store(path)
                await asyncio.sleep(_LOOK_EVERY)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _whole_files(self) -> list[Path]:
        """Returns the files that have not changed for a while, oldest first."""
        folder = self._options.folder
        folder.mkdir(parents=True, exist_ok=True)
        found, whole, now = {}, [], time.monotonic()
        for path in sorted(folder.glob(self._options.pattern))[:_MOST_FILES]:
            if path.name.startswith(".") or not path.is_file() or path.is_symlink():
                continue
            status = path.stat()
            seen = self._seen.get(path)
            present = (status.st_size, status.st_mtime_ns)
            since = seen[2] if seen is not None and seen[:2] == present else now
            found[path] = (*present, since)
            if now - since >= self._options.settled:
                whole.append((status.st_mtime_ns, path))
        self._seen = found
        return [path for _, path in sorted(whole)]

    async def _store(self, path: Path) -> None:
        try:
            digest = await self._on_thread(lambda: _checked(path, self._how))
        except (TableError, UnicodeDecodeError) as error:
            metrics.edge_input_messages_total.labels(self._options.name, "invalid").inc()
            logger.error("%s: %s is refused: %s", self._options.name, path.name, error)
            sentence = str(error)
            await self._on_thread(lambda: self._put_aside(path, _REFUSED, sentence))
            return
        except OSError as error:
            logger.warning("%s: %s cannot be read: %s", self._options.name, path.name, error.strerror)
            return
        writings, readings = [], 0
        blocks = _blocks(path, self._block)
        sequence = 0
        while (block := await self._on_thread(lambda: next(blocks, None))) is not None:
            sequence += 1
            series = self._mapped(block)
            if series:
                writings.append(await self._collector.put(f"file-{digest}", sequence, series))
                readings += sum(len(each.values) for each in series)
        await asyncio.gather(*writings)
        metrics.edge_input_messages_total.labels(self._options.name, "read").inc()
        logger.info("%s: %s is stored, %d readings", self._options.name, path.name, readings)
        await self._on_thread(lambda: self._put_aside(path, _DONE, None))

    def _mapped(self, block: list[Series]) -> list[Series]:
        """Applies the rules, except for deadbands: a file is stored without thinning."""
        parts: dict[tuple[str, str], list[Series]] = {}
        for each in block:
            tag = self._collector.tags.of(each.machine_id, each.sensor)
            if tag.kind is Kind.DROPPED:
                continue
            with np.errstate(over="ignore"):
                values = each.values * tag.factor + tag.offset
            stored = ~np.isinf(values)
            if np.isnan(values[stored]).all():  # ingestion would refuse it with the whole batch
                stored[:] = False
            if not stored.all():
                self._collector.leave_out(int(np.count_nonzero(~stored)))
            if stored.any():
                converted = Series(tag.machine_id, tag.sensor, each.timestamps[stored], values[stored])
                parts.setdefault((tag.machine_id, tag.sensor), []).append(converted)
        return [
            found[0]
            if len(found) == 1
            else Series(*key, np.concatenate([s.timestamps for s in found]), np.concatenate([s.values for s in found]))
            for key, found in parts.items()
        ]

    def _put_aside(self, path: Path, folder: str, problem: str | None) -> None:
        target = path.parent / folder
        target.mkdir(exist_ok=True)
        name = f"{time.time_ns() // 1_000_000}-{path.name}"
        if problem is not None:  # written before the file is moved, so that watchers of the folder find it complete
            write_file(target / f"{name}.problem.txt", (problem + "\n").encode(), sync=False)
        path.replace(target / name)
        if problem is None:
            for old in sorted(target.iterdir())[: -self._options.keep or None]:
                old.unlink()

    async def _on_thread(self, work: Callable[[], Item]) -> Item:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _checked(path: Path, how: str) -> str:
    """Reads a whole file, and returns a hash of its content and of `how`. Raises TableError, OSError."""
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise TableError(1, "", f"has {size} bytes; {_MOST_BYTES} are allowed")
    digest = hashlib.sha256(how.encode())
    with path.open("rb") as raw:
        while chunk := raw.read(1_000_000):
            digest.update(chunk)
    if sum(1 for _ in _blocks(path, _BLOCK)) == 0:
        raise TableError(1, "", "has no readings")
    return digest.hexdigest()[:32]


def _blocks(path: Path, readings: int) -> Iterator[list[Series]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        for rows in read_csv(lines, readings):
            series = to_series(rows)
            for first in range(0, len(series), MAX_SERIES):
                yield series[first : first + MAX_SERIES]
