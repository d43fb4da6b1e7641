"""SQLite databases: connection settings, preparation, migration to later versions, and rejected files."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aurum.storage import database
from aurum.storage.database import NewerDatabaseError, connect, prepare, read_version, transaction
from tests.support.disks import without_privileges

SCHEMA = "CREATE TABLE things (name TEXT NOT NULL);"


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def connections() -> float:
    return REGISTRY.get_sample_value("db_connections_active") or 0.0


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(tmp_path / "new.db")
    connection.execute(SCHEMA)
    yield connection
    database.close(connection)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page_size", 16384),
        ("auto_vacuum", 2),  # incremental
        ("journal_mode", "wal"),
        ("synchronous", 2),  # full
        ("wal_autocheckpoint", 1000),
        ("journal_size_limit", 64_000_000),
        ("busy_timeout", 10_000),
        ("cache_size", -8000),
    ],
)
def test_database_is_opened_with_durable_settings(opened: sqlite3.Connection, name: str, value: object) -> None:
    assert pragma(opened, name) == value


def test_read_only_connection_has_settings_and_rejects_writes(opened: sqlite3.Connection, tmp_path: Path) -> None:
    reader = connect(tmp_path / "new.db", read_only=True)
    assert pragma(reader, "cache_size") == -2000
    assert pragma(reader, "busy_timeout") == 10_000
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("INSERT INTO things VALUES ('a')")
    database.close(reader)


def test_read_only_connection_creates_no_database(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        connect(tmp_path / "missing.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_connection_can_be_used_across_threads(opened: sqlite3.Connection) -> None:
    failures: list[Exception] = []

    def work() -> None:
        try:
            opened.execute("INSERT INTO things VALUES ('from elsewhere')")
        except sqlite3.Error as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    assert not opened.in_transaction, "a statement outside of a transaction is committed at once"
    assert opened.execute("SELECT name FROM things").fetchall() == [("from elsewhere",)]


def test_open_connections_are_counted(tmp_path: Path) -> None:
    before = connections()
    first, second = connect(tmp_path / "a.db"), connect(tmp_path / "b.db")
    assert connections() == before + 2
    database.close(first)
    assert connections() == before + 1
    database.close(second)
    assert connections() == before
    prepare(tmp_path / "c.db", "things", 1, SCHEMA)
    prepare(tmp_path / "c.db", "things", 1, SCHEMA)
    assert connections() == before


def test_failed_transaction_is_rolled_back(opened: sqlite3.Connection) -> None:
    def fail() -> None:
        with transaction(opened):
            opened.execute("INSERT INTO things VALUES ('lost')")
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    with transaction(opened):
        opened.execute("INSERT INTO things VALUES ('kept')")
    assert opened.execute("SELECT name FROM things").fetchall() == [("kept",)]


def test_database_is_created_with_missing_folders(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "new.db"
    prepare(path, "things", 4, SCHEMA)
    assert read_version(path, "things") == 4
    connection = connect(path)
    assert connection.execute("SELECT name FROM application").fetchall() == [("things",)]
    assert connection.execute("SELECT * FROM things").fetchall() == []
    database.close(connection)


def test_empty_file_is_initialized_as_database(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    path.touch()
    assert read_version(path, "things") == 0
    prepare(path, "things", 2, SCHEMA)
    assert read_version(path, "things") == 2


def test_prepared_database_is_left_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    prepare(path, "things", 1, SCHEMA)
    before = path.read_bytes()
    prepare(path, "things", 1, "this is no SQL", {})
    assert path.read_bytes() == before


def steps(done: list[int]) -> dict[int, database.Migration]:
    """Migrations from the versions 1 to 4, which note that they ran."""

    def step(number: int) -> database.Migration:
        def migrate(connection: sqlite3.Connection) -> None:
            done.append(number)
            connection.execute("INSERT INTO things VALUES (?)", (f"step {number}",))

        return migrate

    return {number: step(number) for number in range(1, 5)}


@pytest.mark.parametrize(("version", "expected"), [(2, []), (3, [2]), (5, [2, 3, 4])])
def test_migrations_run_in_order_from_found_version(tmp_path: Path, version: int, expected: list[int]) -> None:
    path, done = tmp_path / "new.db", list[int]()
    prepare(path, "things", 2, SCHEMA, steps(done))
    assert done == []
    prepare(path, "things", version, SCHEMA, steps(done))
    assert done == expected
    assert read_version(path, "things") == version
    connection = connect(path)
    assert connection.execute("SELECT name FROM things").fetchall() == [(f"step {number}",) for number in expected]
    database.close(connection)


def test_failed_migration_preserves_version(tmp_path: Path) -> None:
    path, done = tmp_path / "new.db", list[int]()
    prepare(path, "things", 3, SCHEMA)
    with pytest.raises(KeyError, match="5"):
        prepare(path, "things", 6, SCHEMA, steps(done))
    assert done == [3, 4]
    assert read_version(path, "things") == 3
    connection = connect(path)
    assert connection.execute("SELECT name FROM things").fetchall() == []
    database.close(connection)
    with pytest.raises(KeyError):
        prepare(path, "things", 4, SCHEMA)


def test_newer_database_error_names_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    prepare(path, "things", 3, SCHEMA)
    with pytest.raises(NewerDatabaseError) as caught:
        prepare(path, "things", 2, SCHEMA)
    assert str(caught.value) == (
        f"{path} was written by a newer version (format 3; this version supports up to 2); "
        "the file is unchanged: start the newer version, or set another path"
    )


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE letters (text TEXT)",
        "CREATE TABLE application (name TEXT)",  # that says nothing
        "CREATE TABLE application (name TEXT); INSERT INTO application VALUES ('other')",
    ],
)
def test_database_of_other_application_is_rejected(tmp_path: Path, script: str) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    before = path.read_bytes()
    for use in (lambda: read_version(path, "things"), lambda: prepare(path, "things", 1, SCHEMA)):
        with pytest.raises(sqlite3.DatabaseError) as caught:
            use()
        assert str(caught.value) == f"{path} is a SQLite database, but not an AurumAI things database; set another path"
    assert path.read_bytes() == before


def test_damaged_database_is_reported_by_path(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA page_size = 512; CREATE TABLE application (name TEXT)")
    connection.close()
    content = path.read_bytes()
    path.write_bytes(content[:512] + b"x" * (len(content) - 512))
    before = connections()
    with pytest.raises(sqlite3.DatabaseError) as caught:
        read_version(path, "things")
    assert str(caught.value).startswith(f"{path} is not a readable database: database disk image is malformed")
    assert connections() == before


@pytest.mark.parametrize("forbidden", ["file", "folder"])
def test_forbidden_database_is_reported_by_path(tmp_path: Path, forbidden: str) -> None:
    path = tmp_path / "things" / "things.db"
    prepare(path, "things", 1, SCHEMA)
    (path if forbidden == "file" else path.parent).chmod(0)
    before = connections()
    try:
        for use in (lambda: read_version(path, "things"), lambda: connect(path)):
            with without_privileges(), pytest.raises(sqlite3.OperationalError) as caught:
                use()
            assert str(caught.value).startswith(f"{path} cannot be opened: ")
            assert str(caught.value).endswith(
                "that this user may read and write it and its folder, or set another path"
            )
    finally:
        path.parent.chmod(0o700)
    assert connections() == before


def test_file_that_is_no_database_is_reported_by_path(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    path.write_text("machine_id,timestamp\n" * 100)
    for use in (lambda: connect(path), lambda: read_version(path, "things")):
        with pytest.raises(sqlite3.DatabaseError, match=rf"^{path} is not a readable database: file is not a"):
            use()


@pytest.mark.parametrize("missing", [1, 700, 4096])
def test_database_that_is_cut_off_is_reported_by_path(tmp_path: Path, missing: int) -> None:
    """Also within its last page, which SQLite itself takes to end in zeros."""
    path = tmp_path / "things.db"
    prepare(path, "things", 1, SCHEMA)
    content = path.read_bytes()
    path.write_bytes(content[:-missing])
    for use in (lambda: read_version(path, "things"), lambda: prepare(path, "things", 1, SCHEMA)):
        with pytest.raises(sqlite3.DatabaseError, match=f"^{path} is not a readable database: the file is truncated"):
            use()
    path.write_bytes(content)
    assert read_version(path, "things") == 1


def test_database_in_use_may_be_longer_than_its_file(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    prepare(path, "things", 1, SCHEMA)
    writer = connect(path)
    size = path.stat().st_size
    writer.execute("CREATE TABLE more (content BLOB)")
    writer.execute("INSERT INTO more VALUES (zeroblob(100000))")
    assert path.stat().st_size == size
    assert read_version(path, "things") == 1
    database.close(writer)
