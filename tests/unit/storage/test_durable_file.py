"""Whole files: replaced in one step, with their mode, and left as they were where they cannot be written."""

import os
from pathlib import Path

import pytest

from aurum.storage.durable_file import write_file
from tests.support.disks import full_disk, without_privileges


def only(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("sync", [True, False])
def test_file_is_replaced_and_the_older_one_kept_on_request(tmp_path: Path, sync: bool) -> None:
    path, older = tmp_path / "state.json", tmp_path / "state.old"
    write_file(path, b"one", older=older, sync=sync)
    assert only(tmp_path) == {"state.json": b"one"}
    write_file(path, b"two", older=older, sync=sync)
    write_file(path, b"three", older=older, sync=sync)
    assert only(tmp_path) == {"state.json": b"three", "state.old": b"two"}
    write_file(path, b"four", sync=sync)
    assert only(tmp_path) == {"state.json": b"four", "state.old": b"two"}


def test_mode_holds_whatever_a_killed_write_left(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    (tmp_path / ".keys.yaml.new").write_text("half")
    (tmp_path / ".keys.yaml.new").chmod(0o666)
    write_file(path, b"secret", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    before = os.umask(0o027)
    try:
        write_file(path, b"for the group")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640
    assert only(tmp_path) == {"keys.yaml": b"for the group"}


def test_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_file(path, b"old")
    with full_disk(tmp_path, of_its_own=False), pytest.raises(OSError, match="File too large"):
        write_file(path, b"new", older=tmp_path / "older")
    assert only(tmp_path) == {"state.json": b"old"}, "and nothing half written that takes room"
    tmp_path.chmod(0o500)
    try:
        with without_privileges(), pytest.raises(PermissionError):
            write_file(path, b"new")
    finally:
        tmp_path.chmod(0o700)
    assert only(tmp_path) == {"state.json": b"old"}
