"""A folder of policies that is swapped, as the kubelet does it, at the worst moment: between a look and the reading."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aurum.resilience import PolicyError
from aurum.runtime.policy import policies, watch
from aurum.runtime.policy.document import PlatformPolicyDocument, load_platform_document
from aurum.runtime.policy.policies import Policies, Refusal
from aurum.runtime.settings import Settings, load_settings
from tests.support.waiting import until


def publish(volume: Path, generation: int, text: str = "") -> None:
    """Puts a folder in the place of the one before, and removes that."""
    data = volume / "..data"
    before = data.resolve() if data.exists() else None
    folder = volume / f"..{generation}"
    folder.mkdir(parents=True)
    (folder / "policies.yaml").write_text(f"generation: {generation}\n{text}")
    (volume / "..new").symlink_to(folder.name)
    os.replace(volume / "..new", data)
    if before:
        shutil.rmtree(before)


def swap_while_it_is_read(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment of each reading, but two times at most."""
    generations = iter((1, 2))

    def late(path: Path) -> PlatformPolicyDocument:
        if generation := next(generations, None):
            publish(volume, generation)
        return load_platform_document(path)

    monkeypatch.setattr(policies, "load", late)


def test_policies_load_while_their_volume_is_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "policy", 0)
    swap_while_it_is_read(tmp_path / "policy", monkeypatch)
    assert Policies("api", load_settings(Settings, policy_file=tmp_path / "policy")).document.generation == 2


def test_policy_reload_during_swap_is_not_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "policy", 0)
    started = Policies("api", load_settings(Settings, policy_file=tmp_path / "policy"))
    swap_while_it_is_read(tmp_path / "policy", monkeypatch)
    found = started.read()
    assert not isinstance(found, Refusal), found
    assert found.generation == 2


def test_missing_policy_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        Policies("api", load_settings(Settings, policy_file=tmp_path))


async def test_policies_are_polled_when_watching_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(*paths: Path, **options: object) -> AsyncIterator[set[object]]:
        for _ in ():
            yield set()
        raise RuntimeError("Error creating recommended watcher: Too many open files (os error 24)")

    monkeypatch.setattr(watch, "awatch", refused)
    monkeypatch.setattr(watch, "_UNWATCHED_EVERY", 0.01)
    publish(tmp_path / "policy", 0)
    followed = Policies("api", load_settings(Settings, policy_file=tmp_path / "policy"))
    following = asyncio.create_task(watch.follow_policy_file(followed))
    try:
        for generation in (1, 2):  # and again, when a watch was tried once more
            publish(tmp_path / "policy", generation)
            for _ in range(1000):
                if followed.document.generation == generation:
                    break
                await asyncio.sleep(0.01)
            assert followed.document.generation == generation
            await asyncio.sleep(0.7)
    finally:
        following.cancel()
    assert [record.levelname for record in caplog.records if "cannot be watched" in record.message] == ["WARNING"]


async def test_mounted_policy_is_followed_and_bad_one_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file whose symlink leads through ..data, as in a mounted ConfigMap: edits apply, a bad one is refused."""
    volume, file = tmp_path / "policy", tmp_path / "policy" / "policies.yaml"
    admission = "servers: [{server: ingestion, admission: {%s}}]"
    publish(volume, 1)
    file.symlink_to("..data/policies.yaml")
    followed = Policies("ingestion", load_settings(Settings, policy_file=file))
    limit = followed.admission()
    following = asyncio.create_task(watch.follow_policy_file(followed))
    try:
        await asyncio.sleep(0.2)  # until the watch is there
        publish(volume, 2, admission % "maxConcurrent: 33")
        await until(lambda: followed.document.generation == 2)
        assert limit.limit == 33
        assert REGISTRY.get_sample_value("policy_generation") == 2
        publish(volume, 3, admission % "maxConcurent: 1")
        await until(lambda: followed.refusal is not None)
        state = followed.state()
        assert (state["policy"]["generation"], state["refused"]["generation"]) == (2, 3)
        assert "servers[0].admission.maxConcurent" in state["policy"]["reason"]
        assert REGISTRY.get_sample_value("policy_refused") == 1
        assert [record for record in caplog.records if "a policy document was refused" in record.message]
        publish(volume, 4)
        await until(lambda: followed.document.generation == 4)
        assert followed.state()["policy"]["applied"]
        assert REGISTRY.get_sample_value("policy_refused") == 0
    finally:
        following.cancel()


HOSTILE = {
    "an impossible date as a key": b"2026-02-30: x",
    "a tag": b"generation: !!int x",
    "depth": b"uid: " + b"[" * 5000,
    "a bomb": b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    + b"\n".join(
        b"%c: &%c [%s]" % (each, each, b",".join([b"*%c" % (each - 1)] * 9)) for each in range(ord("b"), ord("j"))
    ),
    "size": b"uid: " + b"x" * 2_000_000,
    "a number without end": b"generation: " + b"9" * 4000,
    "no text": b"\xff\xfe",
}


async def test_no_content_of_a_policy_file_ends_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: asyncio.Queue[None] = asyncio.Queue()

    async def told(*paths: Path, **options: object) -> AsyncIterator[set[object]]:
        while True:
            await changes.get()
            yield set()

    monkeypatch.setattr(watch, "awatch", told)
    file = tmp_path / "policies.yaml"
    file.write_text("generation: 7")
    followed = Policies("api", load_settings(Settings, policy_file=file))
    following = asyncio.create_task(watch.follow_policy_file(followed))
    try:
        for content in HOSTILE.values():
            before = followed.refusal
            file.write_bytes(content)
            await changes.put(None)
            await until(lambda before=before: followed.refusal is not before)
            assert not following.done()
            assert followed.document.generation == 7
            assert REGISTRY.get_sample_value("policy_refused") == 1
        file.write_text("uid: 2026-02-30\ngeneration: 8")
        await changes.put(None)
        await until(lambda: followed.document.generation == 8)
        assert followed.document.uid == "2026-02-30"
        assert followed.refusal is None
    finally:
        following.cancel()


def test_policy_that_cannot_be_put_in_force_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("generation: 1")
    started = Policies("api", load_settings(Settings, policy_file=file))

    def fails(document: PlatformPolicyDocument) -> None:
        if document.generation == 2:
            raise OverflowError("too large")

    monkeypatch.setattr(started, "_apply_telemetry", fails)
    file.write_text("generation: 2")
    assert started.reload()
    assert not started.reload(), "the same refusal is reported once"
    assert (started.document.generation, started.state()["refused"]["generation"]) == (1, 2)
    file.write_text("generation: 3")
    assert started.reload()
    assert started.state()["policy"]["applied"]


def test_policy_folder_with_unreadable_track_loads_stable(tmp_path: Path) -> None:
    publish(tmp_path / "policy", 1)
    (tmp_path / "policy" / "..data" / "track").write_bytes(b"\xff\xfe")
    assert Policies("api", load_settings(Settings, policy_file=tmp_path / "policy")).document.generation == 1
