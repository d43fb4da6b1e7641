"""Migrates the spool of an earlier version, which was a SQLite file."""

import asyncio
import logging
import sqlite3
from pathlib import Path

from aurum.edge.spool import Spool
from aurum.readings.batch import decode

logger = logging.getLogger(__name__)


async def adopt(folder: Path, spool: Spool) -> None:
    """Puts the batches of `folder`.db into the spool, then renames the file.

    Raises:
        sqlite3.DatabaseError: If the file cannot be read.
        AurumError: If a batch cannot be put.
    """
    path = folder.with_name(folder.name + ".db")
    if not path.exists():
        return
    rows = await asyncio.to_thread(_read, path)
    for data, traceparent in rows:
        batch = await asyncio.to_thread(decode, data, 2**62)
        await (await spool.put(batch, traceparent, wait=True))
    path.rename(path.with_name(path.name + ".adopted"))
    logger.info("imported %d batches of %s", len(rows), path)


def _read(path: Path) -> list[tuple[bytes, str]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT data, traceparent FROM batches ORDER BY id").fetchall()
    finally:
        connection.close()
