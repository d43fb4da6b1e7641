"""What is known of the sequences of sources when readings are merged."""

import contextlib
import sqlite3
from collections.abc import Generator, Iterable

from aurum.storage import sequence_ranges
from aurum.storage.ranks import Rank


@contextlib.contextmanager
def one_state(connection: sqlite3.Connection) -> Generator[None]:
    """Reads one state of the tables in the block, so that a sequence that is recorded as stored has its readings."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def received_in(
    connection: sqlite3.Connection, spans: Iterable[tuple[Rank, tuple[int, int]]]
) -> dict[Rank, list[sequence_ranges.Range]]:
    """Returns for each source the sequences within its span that were stored or never will be."""
    return {source: _received(connection, source[0], *span) for source, span in spans}


def _received(connection: sqlite3.Connection, source: int, low: int, high: int) -> list[sequence_ranges.Range]:
    if connection.execute("SELECT 1 FROM sources WHERE id = ?", (source,)).fetchone() is None:
        return [(low, high)]  # the source is forgotten, and its number is never reused
    return connection.execute(
        "SELECT first, last FROM received WHERE source = ? AND first <= ? AND last >= ? ORDER BY first",
        (source, high, low),
    ).fetchall()
