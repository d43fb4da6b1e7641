"""Rows of blocks in memory, shared by the queries of a replica. A row never changes once it is written."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from aurum.ingestion.cassandra.blocks import BlockKey
from aurum.ingestion.cassandra.session import CassandraSession

_MOST_BYTES = 16_000_000


class BlockCache:
    """The rows of blocks that were read last. May be used by several threads."""

    def __init__(self, session: CassandraSession, most_bytes: int = _MOST_BYTES) -> None:
        self._session = session
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._rows: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._nbytes = 0

    def load(self, keys: Sequence[BlockKey]) -> list[Any]:
        """Returns the row of each block; None for those that do not exist any more. Raises UnavailableError."""
        found: dict[tuple[Any, ...], Any] = {}
        with self._lock:
            for key in keys:
                if key.row in self._rows:
                    self._rows.move_to_end(key.row)
                    found[key.row] = self._rows[key.row]
        missing = [key for key in keys if key.row not in found]
        for key, rows in zip(missing, self._session.rows_for_each("block", [key.row for key in missing]), strict=True):
            if rows:
                found[key.row] = rows[0]
                self._keep(key.row, rows[0])
        return [found.get(key.row) for key in keys]

    def _keep(self, place: tuple[Any, ...], row: Any) -> None:
        with self._lock:
            if place not in self._rows:
                self._rows[place] = row
                self._nbytes += _nbytes(row)
            while self._nbytes > self._most_bytes:
                self._nbytes -= _nbytes(self._rows.popitem(last=False)[1])


def _nbytes(row: Any) -> int:
    return 500 + len(row.names) + len(row.head) + len(row.data)
