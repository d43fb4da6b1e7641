"""Crash-safe SQLite databases: write-ahead log, a sync at each commit, versioned schemas."""

import contextlib
import sqlite3
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from aurum.storage import metrics

Migration = Callable[[sqlite3.Connection], None]


class NewerDatabaseError(Exception):
    """The file was written by a newer version of this software. It is left unchanged."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Opens a connection for one thread at a time, with explicit transactions.

    Args:
        path: The database file. It is created if it is missing, unless `read_only`.
        read_only: Whether writes are refused.

    Raises:
        sqlite3.DatabaseError: If the file cannot be opened. The message names the file.
    """
    uri = f"file:{path}?mode={'ro' if read_only else 'rwc'}"
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10.0)
    except sqlite3.DatabaseError as error:
        raise _explain(path, error) from error
    try:
        connection.execute("PRAGMA busy_timeout = 10000")
        connection.execute(f"PRAGMA cache_size = {-2000 if read_only else -8000}")  # kB
        if not read_only:
            connection.execute("PRAGMA page_size = 16384")  # like auto_vacuum, takes effect only in an empty file
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 1000")
            connection.execute("PRAGMA journal_size_limit = 64000000")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _explain(path, error) from error
    metrics.track_db_connections(+1)
    return connection


def close(connection: sqlite3.Connection) -> None:
    """Closes a connection that `connect` opened."""
    connection.close()
    metrics.track_db_connections(-1)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Commits everything in the block together, or rolls it back after an error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def prepare(
    path: Path, application: str, version: int, schema: str, migrations: Mapping[int, Migration] | None = None
) -> None:
    """Creates a database, checks that this version can read it, or migrates it to this version.

    Args:
        path: The database file.
        application: The name by which the database is recognised.
        version: The version of the schema.
        schema: The SQL statements that create the tables.
        migrations: The migration steps, by the version that each starts from.

    Raises:
        NewerDatabaseError: If a newer version wrote the file.
        sqlite3.DatabaseError: If the file is not this database or cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stored_version = read_version(path, application) if path.exists() else 0
    if stored_version > version:
        raise NewerDatabaseError(
            f"{path} was written by a newer version (format {stored_version}; this version supports up to {version}); "
            f"the file is unchanged: start the newer version, or set another path"
        )
    if stored_version == version:
        return
    connection = connect(path)
    try:
        if stored_version == 0:
            connection.executescript(f"BEGIN; CREATE TABLE application (name TEXT NOT NULL); {schema}")
            connection.execute("INSERT INTO application VALUES (?)", (application,))
        else:
            connection.execute("BEGIN IMMEDIATE")
            for step in range(stored_version, version):
                (migrations or {})[step](connection)
        connection.execute(f"PRAGMA user_version = {int(version)}")
        connection.execute("COMMIT")
    finally:
        close(connection)


def read_version(path: Path, application: str) -> int:
    """Returns the schema version of a database; 0 if it is empty.

    Raises:
        sqlite3.DatabaseError: If the file cannot be opened or is not this database. The message names the path.
    """
    connection = connect(path, read_only=True)
    try:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        marked = connection.execute("SELECT name FROM application").fetchone() if "application" in tables else None
        _check_length(connection, path)
    except sqlite3.DatabaseError as error:
        raise _explain(path, error) from error
    finally:
        close(connection)
    if tables and (marked is None or marked[0] != application):
        raise sqlite3.DatabaseError(
            f"{path} is a SQLite database, but not an AurumAI {application} database; set another path"
        )
    return version


def _check_length(connection: sqlite3.Connection, path: Path) -> None:
    """Raises sqlite3.DatabaseError if the file is truncated.

    SQLite reads a truncated last page as if it ended in zeros.
    """
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size > 0:
        return  # the write-ahead log may contain the missing pages
    if (actual := path.stat().st_size) < pages * size:
        raise sqlite3.DatabaseError(f"the file is truncated: it has {actual} of {pages * size} bytes")


def _explain(path: Path, error: sqlite3.DatabaseError) -> sqlite3.DatabaseError:
    """Returns the error with the path and with advice."""
    if isinstance(error, sqlite3.OperationalError):
        return sqlite3.OperationalError(
            f"{path} cannot be opened: {error}; check that its disk has free space and that this user may read and "
            f"write it and its folder, or set another path"
        )
    return sqlite3.DatabaseError(f"{path} is not a readable database: {error}; restore a backup, or set another path")
