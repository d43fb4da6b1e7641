"""Which files in a folder are complete, and what becomes of those that change after they were put away."""

import os
from pathlib import Path

import pytest

from aurum.edge.inputs.files import folder as folders
from aurum.edge.inputs.files.folder import DropFolder

TABLE = "machine_id,timestamp,a\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_PUT_AWAY_INTERVAL", 0.0)


def folder_at(path: Path, pattern: str = "*.csv", keep: int = 10) -> DropFolder:
    return DropFolder(path, pattern, 0.0, keep)


def put_away(drops: DropFolder, path: Path, problem: str | None = None) -> Path:
    version = drops.version(path)
    assert version is not None
    drops.put_away(path, version, problem)
    (moved,) = path.parent.glob(f"{'done' if problem is None else 'refused'}/*-{path.name}")
    return moved


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.Csv", "a.csv.gz", "A.CSV.GZ"])
def test_file_name_matches_in_any_case_and_compressed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLE)
    (tmp_path / "other.txt").write_text(TABLE)
    assert folder_at(tmp_path).complete_files() == [tmp_path / name]


def test_file_that_grows_after_it_was_put_away_is_complete_again(tmp_path: Path) -> None:
    drops, path = folder_at(tmp_path), tmp_path / "a.csv"
    path.write_text(TABLE)
    with path.open("a") as writer:
        moved = put_away(drops, path)
        assert drops.complete_files() == []
        writer.write("m,1,2\n")
        writer.flush()
        assert drops.complete_files() == [moved]
        assert drops.was_put_away(moved)
    drops.put_away(moved, drops.version(moved), None)  # type: ignore[arg-type]
    assert drops.complete_files() == []
    assert [each.name.split("-", 1)[1] for each in (tmp_path / "done").iterdir()] == ["a.csv"]


def test_refused_file_that_is_completed_later_is_read_again(tmp_path: Path) -> None:
    drops, path = folder_at(tmp_path), tmp_path / "a.csv"
    path.write_text(TABLE)
    moved = put_away(drops, path, "row 1: is cut")
    moved.write_text(f"{TABLE}m,1790000000,1\n")
    assert drops.complete_files() == [moved]
    drops.put_away(moved, drops.version(moved), None)  # type: ignore[arg-type]
    assert not list((tmp_path / "refused").iterdir())
    assert len(list((tmp_path / "done").iterdir())) == 1


def test_change_after_put_away_is_noticed_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(TABLE)
    moved = put_away(folder_at(tmp_path), path)
    assert folder_at(tmp_path).complete_files() == []
    later = moved.stat().st_mtime_ns + 5_000_000_000
    os.utime(moved, ns=(later, later))
    assert folder_at(tmp_path).complete_files() == [moved]


def test_old_files_are_removed_but_not_young_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drops = folder_at(tmp_path, keep=1)
    for name in ("a.csv", "b.csv", "c.csv"):
        (tmp_path / name).write_text(TABLE)
        put_away(drops, tmp_path / name)
    assert len(list((tmp_path / "done").iterdir())) == 3
    monkeypatch.setattr(folders, "_KEPT_SECONDS", -1.0)
    drops.complete_files()
    assert [each.name.split("-", 1)[1] for each in (tmp_path / "done").iterdir()] == ["c.csv"]
