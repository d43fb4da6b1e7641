"""Each kind of file, damaged in each way: what comes of it, as the table in docs/reliability.md says."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from aurum.edge.dead_letters import DeadLetterError, DeadLetters, names, read
from aurum.edge.spool import Spool, SpoolOptions
from aurum.ingestion.sqlite import schema
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.prediction.registry import ModelRegistry
from aurum.readings.batch import Batch, Series, now_us
from aurum.readings.refusals import Refused
from aurum.runtime import damage
from aurum.security.api_keys import ApiKeys, KeyFile, KeyFileError, make_key, write_keys
from aurum.storage.database import NewerDatabaseError
from tests.support.spool import batch, drain, put

DOCS = Path(__file__).parents[3] / "docs" / "reliability.md"
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "a flipped bit": lambda content: _flipped(content, len(content) // 2),
    "zeros": lambda content: bytes(len(content)),
    "empty": lambda content: b"",
    "its end twice": lambda content: content + content[-len(content) // 3 :],
    "missing": lambda content: None,
}
NEWER, FORBIDDEN, FULL = "newer version", "no permission", "no space"
CONDITIONS = (*DAMAGES, NEWER, FORBIDDEN, FULL)
SMALL_DISK = 64_000_000  # bytes
UNTIL_ROOM = "is refused until there is room"
END = 2**61


def _flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


def harm(path: Path, how: str, place: int | None = None) -> None:
    """place: of the flipped bit; in the middle by default."""
    content = path.read_bytes()
    changed = DAMAGES[how](content) if how != "a flipped bit" or place is None else _flipped(content, place)
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)


def readings(sequence: int) -> Batch:
    at = now_us() - 10**9 + sequence * 1000 + np.arange(5)
    return Batch.of("src", sequence, [Series("m", "s", at, np.full(5, float(sequence)))])


async def stored(path: Path) -> list[float]:
    store = SqliteStore(SqliteOptions(path, min_free_bytes=0))
    await store.start()
    values = sorted(set((await store.read("m", "s", 0, END)).values.tolist()))
    for sequence in range(1, 12):  # it takes everything again, and more
        await (await store.append(readings(sequence), wait=True))
    await store.close()
    return [float(value) for value in values]


async def store_log(folder: Path, how: str, models: Path) -> str:
    """The log of a store that was killed."""
    path = folder / "live" / "store.db"
    store = SqliteStore(SqliteOptions(path, min_free_bytes=0))
    await store.start()
    for sequence in range(1, 11):
        await (await store.append(readings(sequence), wait=True))
    killed = folder / "killed" / "store.db"
    shutil.copytree(path.parent, killed.parent, ignore=shutil.ignore_patterns("*-shm"))
    await store.close()
    (log,) = schema.log_folder(killed).glob("*.log")
    harm(log, how)
    left = await stored(killed)
    assert set(left) <= {float(sequence) for sequence in range(1, 11)}
    if len(left) == 10:
        return "nothing is lost"
    return "the whole records before and after it are taken up" if left else "starts without it"


async def segment(folder: Path, how: str, models: Path) -> str:
    """One of two segments of a series."""
    path = folder / "store.db"
    for part in range(2):
        store = SqliteStore(SqliteOptions(path, min_free_bytes=0))
        await store.start()
        for sequence in range(1 + part * 5, 6 + part * 5):
            await (await store.append(readings(sequence), wait=True))
        await store.close()
    with closing(sqlite3.connect(path)) as tables:
        id_, data = tables.execute("SELECT id, data FROM segments ORDER BY id").fetchone()
        changed = DAMAGES[how](data)
        if changed is None:
            tables.execute("DELETE FROM segments WHERE id = ?", (id_,))
        else:
            tables.execute("UPDATE segments SET data = ? WHERE id = ?", (changed, id_))
        tables.commit()
    left = await stored(path)
    assert set(left) >= {6.0, 7.0, 8.0, 9.0, 10.0}
    if damage.counts():
        return "set apart; the others are answered from"
    return "nothing is lost" if len(left) == 10 else "its readings are gone, which nothing tells"


async def tables(folder: Path, how: str, models: Path) -> str:
    """The tables of a store."""
    path = folder / "store.db"
    store = SqliteStore(SqliteOptions(path, min_free_bytes=0))
    await store.start()
    for sequence in range(1, 11):
        await (await store.append(readings(sequence), wait=True))
    await store.close()
    harm(path, how, place=0)
    try:
        await stored(path)
    except (sqlite3.DatabaseError, NewerDatabaseError):
        return "refuses to start and leaves it as it is; restore a backup"
    return "starts anew" if how in ("missing", "empty") else "starts with what is left"


async def spool_log(folder: Path, how: str, models: Path) -> str:
    """The log of a gateway's spool."""
    spool = Spool(SpoolOptions(folder / "spool"))
    await spool.start()
    await put(spool, *(batch(sequence) for sequence in range(1, 11)))
    await spool.close()
    (log,) = (folder / "spool").glob("*.log")
    harm(log, how)
    return await _drained(folder, 10)


async def acknowledged(folder: Path, how: str, models: Path) -> str:
    """What a spool knows to be acknowledged."""
    spool = Spool(SpoolOptions(folder / "spool"))
    await spool.start()
    await put(spool, *(batch(sequence) for sequence in range(1, 11)))
    await spool.live.forwarded([1, 2, 3])
    await spool.close()
    harm(folder / "spool" / "acked.json", how)
    return await _drained(folder, 7)


async def spool_clock(folder: Path, how: str, models: Path) -> str:
    """By which batches grow old."""
    spool = Spool(SpoolOptions(folder / "spool"))
    await spool.start()
    await put(spool, *(batch(sequence) for sequence in range(1, 11)))
    await spool.close()
    harm(folder / "spool" / "clock.json", how)
    return await _drained(folder, 10)


async def _drained(folder: Path, waiting: int) -> str:
    spool = Spool(SpoolOptions(folder / "spool"))
    await spool.start()
    await spool.give_up_old()
    sent = await drain(spool.backlog)
    await put(spool, batch(99))
    assert await drain(spool.live) == [99]
    await spool.close()
    if len(sent) > waiting:
        return "all is sent again, and recognised"
    if len(sent) == waiting:
        return "nothing is lost"
    return "the whole records before and after it are sent" if sent else "starts without it"


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
        return "named by the list; the others are replayed"
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
    shutil.rmtree(folder / "copy")
    registry = ModelRegistry(folder)
    if registry.active("pump") is not None:
        return "serves as before"
    return "its type has no model, which is told" if damage.counts().get("model") else "its type has no model"


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
        return f"running, {'the last good keys hold' if running else 'no key holds'}; refuses to start"
    if running and started:
        return "the keys that can be read hold"
    return "no key holds"


KINDS = {
    "log of the store": store_log,
    "segment of the store": segment,
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


@pytest.fixture(autouse=True)
def told() -> Iterator[None]:
    yield
    for each in damage.shown():
        damage.withdraw(each["kind"], each["name"])


def table() -> dict[tuple[str, str], str]:
    """What the page says, by file and damage."""
    _, _, page = DOCS.read_text().partition("## Damaged files")
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    heads = [cell.strip() for cell in rows[0][1:]]
    return {(row[0].strip(), head): cell.strip() for row in rows[1:] for head, cell in zip(heads, row[1:], strict=True)}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
async def test_damaged_file_has_the_outcome_that_docs_say(kind: str, how: str, tmp_path: Path, models: Path) -> None:
    """Nothing is invented, nothing crashes, and what is lost is what the page says."""
    outcome = await KINDS[kind](tmp_path, how, models)
    assert outcome == table()[kind, how]
