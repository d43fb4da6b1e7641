"""A gateway with a folder that files are dropped in."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import input_counts, start_gateway, stored_values
from tests.support.platform import Platform
from tests.support.waiting import wait_for


def files(folder: Path, **more: Any) -> dict[str, Any]:
    return {"name": "drops", "protocol": "files", "folder": str(folder), "settled": 0.2, **more}


def table(machine: str, rows: int, start: float) -> str:
    lines = [f"{machine},{start + row / 1000:.6f},load,{row}" for row in range(rows)]
    return "machine_id,timestamp,sensor,value\n" + "\n".join(lines) + "\n"


def test_dropped_file_is_stored_once_and_moved_aside(platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "drops"
    rules = [{"sensor": "load", "scale": 0.5}, {"sensor": "huge", "scale": 10}]
    start_gateway(platform, files(folder, rules=rules))
    content = table("press-1", 1000, time.time() - 100) + f"press-1,{time.time():.3f},huge,1e308\n"
    (folder / "one.csv").write_text(content)
    wait_for(lambda: list((folder / "done").glob("*one.csv")), 20, "the file is done")
    expected = [row / 2 for row in range(1000)]
    wait_for(lambda: stored_values(platform, "press-1", "load") == expected, 20, "the readings are stored")
    assert input_counts(platform, "drops")["bad"] == 1
    (folder / "again.csv").write_text(content)
    wait_for(lambda: list((folder / "done").glob("*again.csv")), 20, "the copy is done too")
    assert stored_values(platform, "press-1", "load") == expected


def test_invalid_files_are_rejected_as_a_whole(platform: Platform, tmp_path: Path) -> None:
    head = "machine_id,timestamp,sensor,value\n"
    wrong = {
        "value.csv": (f"{head}m,1764000000,x,1\nm,1764000001,x,high\n".encode(), "row 3, value: 'high'"),
        "columns.csv": (b"machine_id,timestamp,sensor\n", "row 1"),
        "empty.csv": (b"", "row 1"),
        "future.csv": (f"{head}m,99999999999,x,1\n".encode(), "row 2, timestamp: is"),
        "bytes.csv": (b"machine_id,timestamp,a\nm\xc3\xa4,1764000000,1\nm,\x81", "row 3: is not UTF-8 text"),
    }
    folder = tmp_path / "drops"
    start_gateway(platform, files(folder))
    for name, (content, _) in wrong.items():
        (folder / name).write_bytes(content)
    for name, (_, problem) in wrong.items():
        (refused,) = wait_for(lambda: list((folder / "refused").glob(f"*-{name}")), 20, f"{name} is refused")  # noqa: B023
        assert problem in refused.with_name(f"{refused.name}.problem.txt").read_text()
    assert not list(folder.glob("*.csv"))
    assert input_counts(platform, "drops").get("accepted", 0) == 0


@pytest.mark.proof("devices")
def test_killed_gateway_stores_file_completely_and_once(platform: Platform, tmp_path: Path) -> None:
    """A file that the gateway was reading when it was killed is stored completely and once."""
    folder = tmp_path / "drops"
    start_gateway(platform, files(folder))
    count = 400_000
    (folder / "large.csv").write_text(table("press-2", count, time.time() - 3600))
    wait_for(lambda: input_counts(platform, "drops").get("accepted", 0) > 0, 60, "its first batches are safe")
    platform.processes["edge"].kill(signal.SIGKILL)
    assert not list((folder / "done").glob("*")) if (folder / "done").exists() else True
    platform.restart("edge")
    wait_for(lambda: list((folder / "done").glob("*large.csv")), 60, "the file is done")
    wait_for(lambda: len(stored_values(platform, "press-2", "load")) == count, 60, "all of it is stored")
    assert stored_values(platform, "press-2", "load") == list(range(count))
