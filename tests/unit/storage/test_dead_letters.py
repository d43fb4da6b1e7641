"""Dead letters: complete or absent, readable with their reason, bounded in bytes."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from aurum.edge.dead_letters import DeadLetterError, DeadLetters, delete, names, read
from aurum.edge.spool import Spool, SpoolOptions
from aurum.readings.transport.refusals import Refused
from aurum.v1 import columns_pb2
from tests.support.spool import drain, make_batch, put_batches, sequences_of

WHY = Refused(3, "TOO_MANY_MACHINES", "5 machines are known and 5 allowed")


def request(sequence: int) -> bytes:
    return columns_pb2.BatchRequest(batch=make_batch(sequence).data, traceparent="trace").SerializeToString()


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@given(st.binary(max_size=300), st.text(max_size=50))
@settings(deadline=None)  # each is synced
def test_any_request_round_trips(tmp_path_factory: pytest.TempPathFactory, content: bytes, message: str) -> None:
    folder = tmp_path_factory.mktemp("letters")
    DeadLetters(folder, 10**6).put(Refused(1, "WHY", message), content)
    (name,) = names(folder)
    letter = read(folder, name)
    assert (letter.request, letter.reason, letter.message) == (content, "WHY", message)


def test_letter_says_which_batch_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    before = metric("edge_dead_letters_total", reason=WHY.reason)
    DeadLetters(folder, 10**6).put(WHY, request(9))
    letter = read(folder, names(folder)[0])
    assert (letter.source_id, letter.sequence, letter.readings) == ("src", 9, 3)
    assert metric("edge_dead_letters_total", reason=WHY.reason) == before + 1
    assert metric("edge_dead_letters_waiting") == 1


def test_oldest_letters_are_deleted_beyond_the_limit(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path, 5000)
    before = metric("edge_spool_dropped_total", reason="dead_letters_full")
    for number in range(10):
        letters.put(Refused(number, "WHY", ""), os.urandom(1000))
    assert [name.rpartition("-")[2] for name in names(tmp_path)] == [f"{number:012}" for number in range(6, 10)]
    assert metric("edge_spool_dropped_total", reason="dead_letters_full") == before + 6


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"no json\nrest", b"[1]\n", None])
def test_damaged_letter_is_named(tmp_path: Path, damage: bytes | None) -> None:
    DeadLetters(tmp_path, 10**6).put(WHY, request(1))
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content if damage is None else damage)
    with pytest.raises(DeadLetterError, match=path.name):
        read(tmp_path, path.stem)
    delete(tmp_path, path.stem)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["missing", "../spool", ""])
def test_unknown_letter_is_not_deleted(tmp_path: Path, name: str) -> None:
    (tmp_path / "spool.letter").write_text("of another folder")
    folder = tmp_path / "letters"
    folder.mkdir()
    with pytest.raises(DeadLetterError, match="no dead letter"):
        delete(folder, name)
    assert (tmp_path / "spool.letter").exists()


async def test_refused_batch_becomes_a_letter(tmp_path: Path) -> None:
    """A refused batch leaves the spool with what it was, and the others stay."""
    spool = Spool(SpoolOptions(tmp_path))
    await spool.start()
    await put_batches(spool, make_batch(1), make_batch(2), make_batch(3))
    (_, second, _) = await spool.live.batches_after(0, 3)
    before = metric("edge_spool_dropped_total", reason="invalid")
    for refused in (second.id, second.id):  # by two streams
        await spool.live.set_aside(Refused(refused, "WHY", "no"))
    assert metric("edge_spool_dropped_total", reason="invalid") == before + 1
    assert await drain(spool.live) == [1, 3]
    (name,) = names(tmp_path / "dead-letters")
    assert read(tmp_path / "dead-letters", name).request == second.data
    await spool.close()


async def test_batches_that_an_earlier_version_kept_become_letters(tmp_path: Path) -> None:
    folder = tmp_path / "refused"
    folder.mkdir()
    (folder / f"{7:020}.batch").write_bytes(request(7))
    (folder / f"{7:020}.txt").write_text("no good\n")
    (folder / f"{8:020}.batch").write_bytes(b"damaged")
    await asyncio.to_thread(Spool, SpoolOptions(tmp_path))
    letters = [read(tmp_path / "dead-letters", name) for name in names(tmp_path / "dead-letters")]
    assert [(each.sequence, each.message) for each in letters] == [(7, "no good"), (0, "")]
    assert list(folder.iterdir()) == []


async def test_batch_without_room_for_its_letter_stays(tmp_path: Path) -> None:
    """A refused batch whose letter cannot be written stays in the spool, holds up nothing, and is kept later."""
    spool = Spool(SpoolOptions(tmp_path))
    await spool.start()
    folder = tmp_path / "dead-letters"
    folder.write_text("in the way")
    await put_batches(spool, make_batch(1), make_batch(2))
    first = (await spool.live.batches_after(0, 1))[0]
    await spool.live.set_aside(Refused(first.id, "WHY", "no"))
    assert sequences_of(await spool.live.batches_after(0, 5)) == [2]
    assert spool.batches == 2
    folder.unlink()
    await spool.retry_dead_letters()
    assert [read(folder, name).sequence for name in names(folder)] == [1]
    assert spool.batches == 1
    await spool.close()
