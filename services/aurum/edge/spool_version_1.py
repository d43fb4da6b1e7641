"""What a gateway of before kept: its spool was a SQLite file. Its batches are taken over once."""

import asyncio
import logging
import sqlite3
from pathlib import Path

from aurum.edge.spool import Spool
from aurum.readings.batch import decode

logger = logging.getLogger(__name__)


async def adopt(folder: Path, spool: Spool) -> None:
    """Takes over the batches of `folder`.db, and then puts the file aside. Raises sqlite3.DatabaseError, AurumError."""
    path = folder.with_name(folder.name + ".db")
    if not path.exists():
        return
    rows = await asyncio.to_thread(_read, path)
    for data, traceparent in rows:
        batch = await asyncio.to_thread(decode, data, 2**62)
        await (await spool.put(batch, traceparent, wait=True))
    path.rename(path.with_name(path.name + ".adopted"))
    logger.info("%d batches of %s were taken over", len(rows), path)


def _read(path: Path) -> list[tuple[bytes, str]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT data, traceparent FROM batches ORDER BY id").fetchall()
    finally:
        connection.close()
