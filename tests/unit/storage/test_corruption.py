"""Each kind of file, damaged in each way, of a newer version, unreadable, or on a full disk: what comes of it, as the
table in docs/reliability.md says."""

import contextlib
import json
import random
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from aurum.edge.dead_letters import DeadLetterError, DeadLetters, dead_letter_folder, names, read
from aurum.edge.spool import Spool, SpoolOptions
from aurum.ingestion.sqlite import packing, schema
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.store import MachineRecord
from aurum.prediction.model.model_files import write_model
from aurum.prediction.serving.registry import ModelRegistry
from aurum.readings.batch import Batch, Series, now_us
from aurum.readings.transport.refusals import Refused
from aurum.runtime import damage
from aurum.runtime.errors import AurumError, FailedPreconditionError, ResourceExhaustedError
from aurum.security.api_keys import ApiKeys, KeyFile, KeyFileError, make_key, write_keys
from aurum.storage.database import NewerDatabaseError
from aurum.storage.segment_log import NewerLogError
from tests.support.disks import full_disk, scratch_place, small_disk, without_privileges
from tests.support.spool import drain, make_batch, put_batches

DOCS = Path(__file__).parents[3] / "docs" / "reliability.md"
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "a flipped bit": lambda content: _flipped(content, len(content) // 2),
    "zeros": lambda content: bytes(len(content)),
    "empty": lambda content: b"",
    "end duplicated": lambda content: content + content[-len(content) // 3 :],
    "missing": lambda content: None,
}
NEWER, FORBIDDEN, FULL = "newer version", "no permission", "no space"
CONDITIONS = (*DAMAGES, NEWER, FORBIDDEN, FULL)
SMALL_DISK = 64_000_000  # bytes
UNTIL_ROOM = "is refused until there is room"
NEWER, FORBIDDEN, FULL = "newer version", "no permission", "no space"
NEWER_FORMS: dict[str, Callable[[bytes], bytes]] = {
    ".log": lambda content: content.replace(b"ALG\1", b"ALG\2"),
    ".json": lambda content: json.dumps({"format": 3, "said": content.decode()}).encode(),
    ".letter": lambda content: b'{"format": 2}\n' + content,
    ".txt": lambda content: content.replace(b"version=v", b"version=v9", 1),
    ".yaml": lambda content: b"format: 2\n" + content,
}
REFUSED = "refuses to start and leaves the file unchanged"
SMALL_DISK = 32_000_000  # bytes
END = 2**61


FLIPPED_AT, CUT_AT = "a flipped bit at ", "cut at "
MOST_PLACES = 1000  # of a file; of a larger one as many at random


def _at_place(content: bytes, how: str) -> bytes:
    place = int(how.rpartition(" ")[2])
    if how.startswith(CUT_AT):
        return content[:place]
    changed = bytearray(content)
    changed[place] ^= 1 << place % 8
    return bytes(changed)


def _flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


privileges = contextlib.ExitStack()  # which a test has given up
harmed = [0]  # bytes of the file that was harmed last


def harm(path: Path, how: str, place: int | None = None) -> None:
    """place: of the flipped bit; in the middle by default."""
    if how == FORBIDDEN:
        path.chmod(0)
        privileges.enter_context(without_privileges())
        return
    content = path.read_bytes()
    harmed[0] = len(content)
    if how.startswith((FLIPPED_AT, CUT_AT)):
        path.write_bytes(_at_place(content, how))
        return
    if how == NEWER:
        path.write_bytes(NEWER_FORMS[path.suffix](content))
        return
    changed = DAMAGES[how](content) if how != "a flipped bit" or place is None else _flipped(content, place)
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)


def readings(sequence: int) -> Batch:
    at = now_us() - 10**9 + sequence * 1000 + np.arange(5)
    return Batch.from_series("src", sequence, [Series("m", "s", at, np.full(5, float(sequence)))])


async def stored(path: Path) -> list[float]:
    store = SqliteStore(SqliteOptions(path, min_free_bytes=0))
    await store.start()
    values = sorted(set((await store.read("m", "s", 0, END)).values.tolist()))
    for sequence in range(1, 12):  # it takes everything again, and more
        await (await store.append_batch(readings(sequence), wait=True))
    await store.close()
    return [float(value) for value in values]


async def store_log(folder: Path, how: str, models: Path) -> str:
    """The log of a store that was killed."""
    path = folder / "live" / "store.db"
    store = SqliteStore(SqliteOptions(path, min_free_bytes=0))
    await store.start()
    for sequence in range(1, 11):
        await (await store.append_batch(readings(sequence), wait=True))
    killed = folder / "killed" / "store.db"
    shutil.copytree(path.parent, killed.parent, ignore=shutil.ignore_patterns("*-shm"))
    await store.close()
    (log,) = schema.log_folder(killed).glob("*.log")
    harm(log, how)
    if refused := await _refused(lambda: SqliteStore(SqliteOptions(killed, min_free_bytes=0)), log):
        return refused
    left = await stored(killed)
    assert set(left) <= {float(sequence) for sequence in range(1, 11)}
    if len(left) == 10:
        return "nothing is lost"
    return "the intact records before and after the damage are replayed" if left else "starts without it"


async def _refused(start: Callable[[], Any], path: Path) -> str:
    """How a start is refused, which names the file and leaves it as it is; empty if it is not."""
    before = path.stat() if path.exists() else None  # noqa: ASYNC240
    try:
        started = start()
    except (OSError, sqlite3.DatabaseError, NewerDatabaseError) as error:
        said, kind = str(error), type(error)
    else:
        await started.close()
        return ""
    assert str(path) in said
    after = path.stat()  # noqa: ASYNC240
    assert before is not None
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    if issubclass(kind, (NewerLogError, NewerDatabaseError)):
        return f"{REFUSED}; start the newer version"
    if issubclass(kind, (PermissionError, sqlite3.OperationalError)):
        assert "this user may read and write it" in said
        return f"{REFUSED}; let the service's user read it"
    return f"{REFUSED}; restore a backup"


async def _fill(path: Path) -> None:
    """Stores two times five readings."""
    for part in range(2):
        store = SqliteStore(SqliteOptions(path, min_free_bytes=0))
        await store.start()
        for sequence in range(1 + part * 5, 6 + part * 5):
            await (await store.append_batch(readings(sequence), wait=True))
        await store.close()


async def block(folder: Path, how: str, models: Path) -> str:
    """One of two blocks, its head and its data."""
    path = folder / "store.db"
    await _fill(path)
    if how == FORBIDDEN:  # which it has in common with all that is in the tables
        return await _tables_harmed(path, how)
    with closing(sqlite3.connect(path)) as tables:
        id_, head, data = tables.execute("SELECT id, head, data FROM blocks ORDER BY id").fetchone()
        whole = head + data
        harmed[0] = len(whole)
        if how.startswith((FLIPPED_AT, CUT_AT)):
            changed: bytes | None = _at_place(whole, how)
        else:
            changed = b"\2" + whole[1:] if how == NEWER else DAMAGES[how](whole)
        if changed is None:
            tables.execute("DELETE FROM blocks WHERE id = ?", (id_,))
        else:
            parts = (changed[: len(head)], changed[len(head) :], id_)
            tables.execute("UPDATE blocks SET head = ?, data = ? WHERE id = ?", parts)
        tables.commit()
    left = await stored(path)
    assert set(left) >= {6.0, 7.0, 8.0, 9.0, 10.0}
    if damage.counts():
        return "set apart; the other blocks are served"
    return "nothing is lost" if len(left) == 10 else "its readings are lost without a report"


async def segment(folder: Path, how: str, models: Path) -> str:
    """One of two segments of a series."""
    path = folder / "store.db"
    with mock.patch.object(packing, "SEGMENT_READINGS", 1):
        await _fill(path)
    if how == FORBIDDEN:  # which it has in common with all that is in the tables
        return await _tables_harmed(path, how)
    with closing(sqlite3.connect(path)) as tables:
        id_, data = tables.execute("SELECT id, data FROM segments ORDER BY id").fetchone()
        harmed[0] = len(data)
        if how.startswith((FLIPPED_AT, CUT_AT)):
            changed: bytes | None = _at_place(data, how)
        else:
            changed = b"\2" + data[1:] if how == NEWER else DAMAGES[how](data)
        if changed is None:
            tables.execute("DELETE FROM segments WHERE id = ?", (id_,))
        else:
            tables.execute("UPDATE segments SET data = ? WHERE id = ?", (changed, id_))
        tables.commit()
    left = await stored(path)
    assert set(left) >= {6.0, 7.0, 8.0, 9.0, 10.0}
    if damage.counts():
        return "set apart; the other segments are served"
    return "nothing is lost" if len(left) == 10 else "its readings are lost without a report"


async def tables(folder: Path, how: str, models: Path) -> str:
    """The tables of a store."""
    path = folder / "store.db"
    store = SqliteStore(SqliteOptions(path, min_free_bytes=0))
    await store.start()
    for sequence in range(1, 11):
        await (await store.append_batch(readings(sequence), wait=True))
    await store.close()
    return await _tables_harmed(path, how)


async def _tables_harmed(path: Path, how: str) -> str:
    if how == NEWER:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA user_version = 99")
    else:
        harm(path, how, place=0)
    if how not in ("missing", "empty"):
        if refused := await _refused(lambda: SqliteStore(SqliteOptions(path, min_free_bytes=0)), path):
            return refused
        await stored(path)
        return "starts with the remaining data"
    await stored(path)
    return "starts with empty tables"


async def spool_log(folder: Path, how: str, models: Path) -> str:
    """The log of a gateway's spool."""
    spool = Spool(SpoolOptions(folder / "spool"))
    await spool.start()
    await put_batches(spool, *(make_batch(sequence) for sequence in range(1, 11)))
    await spool.close()
    (log,) = (folder / "spool").glob("*.log")
    harm(log, how)
    if refused := await _refused(lambda: Spool(SpoolOptions(folder / "spool")), log):
        return refused
    return await _drained(folder, 10)


async def acknowledged(folder: Path, how: str, models: Path) -> str:
    """What a spool knows to be acknowledged."""
    spool = Spool(SpoolOptions(folder / "spool"))
    await spool.start()
    await put_batches(spool, *(make_batch(sequence) for sequence in range(1, 11)))
    await spool.live.acknowledge([1, 2, 3])
    await spool.close()
    harm(folder / "spool" / "acked.json", how)
    return await _drained(folder, 7)


async def spool_clock(folder: Path, how: str, models: Path) -> str:
    """By which batches grow old."""
    spool = Spool(SpoolOptions(folder / "spool"))
    await spool.start()
    await put_batches(spool, *(make_batch(sequence) for sequence in range(1, 11)))
    await spool.close()
    harm(folder / "spool" / "clock.json", how)
    return await _drained(folder, 10)


async def _drained(folder: Path, waiting: int) -> str:
    spool = Spool(SpoolOptions(folder / "spool"))
    await spool.start()
    await spool.drop_expired()
    sent = await drain(spool.backlog)
    await put_batches(spool, make_batch(99))
    assert await drain(spool.live) == [99]
    await spool.close()
    if len(sent) > waiting:
        return "all batches are sent again and recognised as duplicates"
    if len(sent) == waiting:
        return "nothing is lost"
    return "the intact records before and after the damage are sent" if sent else "starts without it"


async def dead_letter(folder: Path, how: str, models: Path) -> str:
    """A batch that ingestion refused."""
    letters = DeadLetters(folder, 10**6)
    letters.put(Refused(1, "WHY", "no"), b"first")
    letters.put(Refused(2, "WHY", "no"), b"second")
    first, second = names(folder)
    harm(folder / f"{first}.letter", how)
    assert read(folder, second).request == b"second"
    try:
        read(folder, first)
    except DeadLetterError:
        return "the list names it; the others are replayed"
    return "is replayed"


async def model_file(folder: Path, how: str, models: Path) -> str:
    """The trees of a model."""
    return _served(folder, how, models, "*/rul.txt")


async def model_card(folder: Path, how: str, models: Path) -> str:
    """The card of a model."""
    return _served(folder, how, models, "*/card.json")


async def active_model(folder: Path, how: str, models: Path) -> str:
    """Which model serves."""
    return _served(folder, how, models, "active.json")


def _served(folder: Path, how: str, models: Path, pattern: str) -> str:
    for kind in ("pump", "copy"):
        shutil.copytree(models / "pump", folder / kind)
    (path,) = (folder / "pump").glob(pattern)
    harm(path, how)
    shutil.rmtree(folder / "copy", ignore_errors=True)
    registry = ModelRegistry(folder)
    if registry.active("pump") is not None:
        return "serves as before"
    for each in damage.latest():
        assert str(path.parent) in each["problem"]
        assert re.search("remove|train|let this user read it|start the newer version", each["problem"])
    return (
        "its machine type has no model, which is reported"
        if damage.counts().get("model")
        else "its machine type has no model"
    )


async def api_keys(folder: Path, how: str, models: Path) -> str:
    """The file of API keys."""
    path = folder / "keys.yaml"
    key, record = make_key("a", ("viewer",))
    write_keys(path, KeyFile(keys=(record, make_key("b", ("viewer",))[1])))
    now = [0.0]
    keys = ApiKeys(path, clock=lambda: now[0])
    assert await keys.identify(key, "here") is not None
    harm(path, how, place=path.read_bytes().rindex(b"argon2id"))
    now[0] += 6
    running = await keys.identify(key, "here") is not None
    try:
        started = await ApiKeys(path).identify(key, "here") is not None
    except KeyFileError:
        return f"running, {'the last good keys stay valid' if running else 'no key is valid'}; refuses to start"
    if running and started:
        return "the readable keys are valid"
    return "no key is valid"


class Disk:
    """One that can be full. folder: on it."""

    def __init__(self, folder: Path, *, of_its_own: bool) -> None:
        self.folder = folder
        self._of_its_own = of_its_own

    def full(self) -> contextlib.AbstractContextManager[None]:
        return full_disk(self.folder, of_its_own=self._of_its_own)


async def full_store(disk: Disk, models: Path) -> str:
    """A store whose disk is full for a while, and which is started again."""
    path = disk.folder / "live" / "store.db"
    machine = MachineRecord("m", "pump", "north", 0, "")
    store = SqliteStore(SqliteOptions(path, min_free_bytes=0))
    await store.start()

    async def append(sequence: int) -> None:
        await (await store.append_batch(readings(sequence), wait=True))

    await append(1)
    with disk.full():
        taken = await _until_refused(append)
        with pytest.raises(AurumError):
            await store.register(machine)
        there = set((await store.read("m", "s", 0, END)).values.tolist())
        assert there == {float(sequence) for sequence in range(1, taken + 1)}, "it answers as before"
        await store.close()  # which cannot bring into the tables what is in the log
    with disk.full():
        assert (await _refused(lambda: SqliteStore(SqliteOptions(path, min_free_bytes=0)), path)).startswith(REFUSED)
    store = SqliteStore(SqliteOptions(path, min_free_bytes=0))
    await store.start()
    await append(taken + 1)
    await store.register(machine)
    there = set((await store.read("m", "s", 0, END)).values.tolist())
    assert there == {float(sequence) for sequence in range(1, taken + 2)}
    await store.close()
    return "new readings are refused until there is space, and so is a start; nothing is lost"


async def _until_refused(add: Callable[[int], Awaitable[object]]) -> int:
    """Adds from 2 on; the last that was taken, into a block that was not full yet. The next two are refused."""
    taken = 1
    refused = pytest.raises(ResourceExhaustedError, match="cannot be written: the disk is full")
    with refused:
        while True:
            await add(taken + 1)
            taken += 1
    with refused:
        await add(taken + 2)
    return taken


async def full_spool(disk: Disk, models: Path) -> str:
    """A gateway whose disk is full for a while."""
    spool = Spool(SpoolOptions(disk.folder / "spool"))
    await spool.start()
    await put_batches(spool, make_batch(1))
    with disk.full():
        taken = await _until_refused(lambda sequence: put_batches(spool, make_batch(sequence)))
        found = await spool.live.batches_after(0, 1)
        await spool.live.acknowledge([each.id for each in found])
        await spool.close()  # which cannot write down what is acknowledged
        spool = Spool(SpoolOptions(disk.folder / "spool"))
        await spool.start()
        assert len(await spool.backlog.batches_after(0, 1)) == 1, "also started anew it sends"
        await spool.close()
    spool = Spool(SpoolOptions(disk.folder / "spool"))
    await spool.start()
    await put_batches(spool, make_batch(taken + 1))
    sent = await drain(spool.backlog) + await drain(spool.live)
    await spool.close()
    assert sent == list(range(1, taken + 2))
    return "new batches are refused until there is space; all batches are sent again and recognised as duplicates"


async def full_dead_letters(disk: Disk, models: Path) -> str:
    """A gateway whose disk is full when ingestion refuses a batch for good."""
    spool = Spool(SpoolOptions(disk.folder / "spool"))
    await spool.start()
    await put_batches(spool, *(make_batch(sequence) for sequence in range(1, 4)))
    first, *others = await spool.live.batches_after(0, 10)
    letters = dead_letter_folder(disk.folder / "spool")
    with disk.full():
        await spool.set_aside(Refused(first.id, "WHY", "no"))
        assert spool.batches == 3
        assert [each.id for each in await spool.live.batches_after(0, 10)] == [each.id for each in others]
    assert names(letters) == []
    await spool.retry_dead_letters()
    assert [read(letters, name).request for name in names(letters)] == [first.data]
    assert spool.batches == 2
    await spool.close()
    return "the batch stays in the spool until there is space; the others are sent"


async def full_models(disk: Disk, models: Path) -> str:
    """A folder of models whose disk is full when a model is written, and when another is to serve."""
    shutil.copytree(models / "pump", disk.folder / "pump")
    (version,) = (path.parent.name for path in (disk.folder / "pump").glob("*/card.json"))
    content = {path.name: path.read_text() for path in (disk.folder / "pump" / version).iterdir()}
    other = content | {"card.json": content["card.json"].replace(f'"{version}"', '"other"')}
    write_model(disk.folder, "pump", "other", other)
    registry = ModelRegistry(disk.folder)
    before = set(disk.folder.rglob("*"))
    with disk.full():
        with pytest.raises(OSError, match=r"No space|too large"):
            write_model(disk.folder, "pump", "third", content)
        with pytest.raises(FailedPreconditionError, match=r"No space|too large"):
            registry.activate("pump", "other")
        champion = registry.active("pump")
        assert champion is not None
        assert champion.card.version == version
    assert set(disk.folder.rglob("*")) == before
    assert registry.activate("pump", "other").active
    return "the change is refused, and the previous model stays active"


async def full_keys(disk: Disk, models: Path) -> str:
    """The file of API keys on a disk that is full when a key is added."""
    path = disk.folder / "keys.yaml"
    key, record = make_key("a", ("viewer",))
    write_keys(path, KeyFile(keys=(record,)))
    with disk.full():
        with pytest.raises(OSError, match=r"No space|too large"):
            write_keys(path, KeyFile(keys=(record, make_key("b", ("viewer",))[1])))
        assert await ApiKeys(path).identify(key, "here") is not None
    assert [each.name for each in disk.folder.iterdir()] == ["keys.yaml"]
    return "the change is refused, and the previous keys stay valid"


KINDS = {
    "log of the store": store_log,
    "segment of the store": segment,
    "block of the store": block,
    "tables of the store": tables,
    "log of the spool": spool_log,
    "acked.json of the spool": acknowledged,
    "clock.json of the spool": spool_clock,
    "dead letter": dead_letter,
    "trees of a model": model_file,
    "card of a model": model_card,
    "active.json of a machine type": active_model,
    "keys.yaml": api_keys,
}
FULL_DISKS = {
    "store": full_store,
    "spool": full_spool,
    "dead letter": full_dead_letters,
    "model": full_models,
    "machine type": full_models,
    "keys.yaml": full_keys,
}


@pytest.fixture(autouse=True)
def told() -> Iterator[None]:
    with privileges:
        yield


def table() -> dict[tuple[str, str], str]:
    """What the page says, by file and damage."""
    _, _, page = DOCS.read_text().partition("## Damaged files")
    section, _, _ = page.partition("\n## ")
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    heads = [cell.strip() for cell in rows[0][1:]]
    return {(row[0].strip(), head): cell.strip() for row in rows[1:] for head, cell in zip(heads, row[1:], strict=True)}


@pytest.mark.parametrize("how", [*DAMAGES, NEWER, FORBIDDEN])
@pytest.mark.parametrize("kind", KINDS)
async def test_damaged_file_has_the_outcome_that_docs_say(kind: str, how: str, tmp_path: Path, models: Path) -> None:
    """Nothing is invented, nothing crashes, and what is lost is what the page says."""
    outcome = await KINDS[kind](tmp_path, how, models)
    assert outcome == table()[kind, how]


def test_changed_number_in_a_card_is_no_model(tmp_path: Path, models: Path) -> None:
    """A card of an earlier version, which has no checksum, is taken as it is."""
    shutil.copytree(models / "pump", tmp_path / "pump")
    (card,) = (tmp_path / "pump").glob("*/card.json")
    card.write_text(card.read_text().replace('"machines": 12', '"machines": 13'))
    assert ModelRegistry(tmp_path).active("pump") is None
    assert "card.json is corrupt: its SHA-256 is not the one in card.json.sha256" in damage.latest()[0]["problem"]
    card.with_name("card.json.sha256").unlink()
    assert ModelRegistry(tmp_path).active("pump") is not None


@pytest.mark.proof("matrices")
@pytest.mark.parametrize("how", [FLIPPED_AT, CUT_AT])
@pytest.mark.parametrize("kind", KINDS)
async def test_damage_at_every_byte_has_an_outcome_of_the_page(kind: str, how: str, models: Path) -> None:
    """Wherever a bit of a file is flipped or its end cut off, what comes of it is one of the outcomes in the docs."""
    harmless = {"nothing is lost", "is replayed", "serves as before"}
    outcomes = {cell for (row, _), cell in table().items() if row == kind} | harmless
    places = [0]
    while places:
        place = places.pop()
        with tempfile.TemporaryDirectory(prefix="aurum-", dir=scratch_place()) as folder:
            outcome = await KINDS[kind](Path(folder), f"{how}{place}", models)
        assert outcome in outcomes, f"{how}{place}"
        for each in damage.latest():
            damage.withdraw(each["kind"], each["name"])
        if place == 0:
            places = list(range(1, harmed[0]))
            if len(places) > MOST_PLACES:
                places = random.Random(1).sample(places, MOST_PLACES)


@pytest.mark.parametrize("of_its_own", [True, False], ids=["small disk", "no more bytes"])
@pytest.mark.parametrize("part", FULL_DISKS)
async def test_full_disk_has_the_outcome_that_docs_say(
    part: str, of_its_own: bool, tmp_path: Path, models: Path
) -> None:
    """What cannot be written is refused and told, what was written holds, and it goes on when there is room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, SMALL_DISK if of_its_own else 0) as mounted:
        if of_its_own and not mounted:
            pytest.skip("only root may mount a small disk")
        outcome = await FULL_DISKS[part](Disk(folder, of_its_own=mounted), models)
    told = {kind: cell for (kind, how), cell in table().items() if how == FULL and kind.endswith(part)}
    assert told
    assert set(told.values()) == {outcome}
