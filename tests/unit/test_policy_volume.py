"""A folder of policies that is swapped, as the kubelet does it, at the worst moment: between a look and the reading."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aurum.resilience import PolicyDocument, PolicyError, load_policy_document
from aurum.runtime import policies, policy_watch
from aurum.runtime.policies import Policies, Refusal
from aurum.runtime.settings import load_settings
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

    def late(path: Path) -> PolicyDocument:
        if generation := next(generations, None):
            publish(volume, generation)
        return load_policy_document(path)

    monkeypatch.setattr(policies, "load", late)


def test_policies_load_while_their_volume_is_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "policy", 0)
    swap_while_it_is_read(tmp_path / "policy", monkeypatch)
    assert Policies("api", load_settings(policy_file=tmp_path / "policy")).document.generation == 2


def test_policy_reload_during_swap_is_not_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "policy", 0)
    started = Policies("api", load_settings(policy_file=tmp_path / "policy"))
    swap_while_it_is_read(tmp_path / "policy", monkeypatch)
    found = started.read()
    assert not isinstance(found, Refusal), found
    assert found.generation == 2


def test_missing_policy_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        Policies("api", load_settings(policy_file=tmp_path))


async def test_policies_are_polled_when_watching_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refused(*paths: Path, **options: object) -> AsyncIterator[set[object]]:
        for _ in ():
            yield set()
        raise RuntimeError("Error creating recommended watcher: Too many open files (os error 24)")

    monkeypatch.setattr(policy_watch, "awatch", refused)
    monkeypatch.setattr(policy_watch, "_UNWATCHED_EVERY", 0.01)
    publish(tmp_path / "policy", 0)
    followed = Policies("api", load_settings(policy_file=tmp_path / "policy"))
    following = asyncio.create_task(policy_watch.follow_policy_file(followed))
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
    followed = Policies("ingestion", load_settings(policy_file=file))
    limit = followed.admission()
    following = asyncio.create_task(policy_watch.follow_policy_file(followed))
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
