"""A gateway with a folder that files are dropped in."""

import gzip
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge import input_counts, newest_time, start_gateway, stored_values
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
        "future.csv": (f"{head}m,99999999999,x,1\n".encode(), "row 2, timestamp: 5138-11-16T09:46:39Z is"),
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


def refused_counts(platform: Platform, name: str, kind: str = "refused") -> dict[str, float]:
    """How many values an input has refused or corrected, by reason."""
    counts = {}
    for line in platform.admin("edge", "/metrics").body.decode().splitlines():
        if line.startswith(f'edge_input_{kind}_total{{input="{name}",reason="'):
            counts[line.partition('reason="')[2].partition('"')[0]] = float(line.split("} ")[1].split(" ")[0])
    return counts


def test_file_whose_writer_stalls_is_stored_completely(platform: Platform, tmp_path: Path) -> None:
    """A writer that stalls for longer than the settling period goes on in the file that was put away."""
    folder = tmp_path / "drops"
    start_gateway(platform, files(folder))
    first, *rest = table("press-4", 200, time.time() - 3600).splitlines(keepends=True)
    with (folder / "slow.csv").open("w") as writer:
        writer.write(first + "".join(rest[:100]))
        writer.flush()
        wait_for(lambda: len(stored_values(platform, "press-4", "load")) == 100, 20, "the first half is stored")
        wait_for(lambda: list((folder / "done").glob("*slow.csv")), 20, "it is put away")
        writer.write("".join(rest[100:]))
    wait_for(lambda: stored_values(platform, "press-4", "load") == list(range(200)), 20, "all readings are stored")
    assert refused_counts(platform, "drops", "corrected") == {"incomplete": 1}


def test_files_of_spreadsheets_and_historians_are_stored(platform: Platform, tmp_path: Path) -> None:
    """Semicolons, decimal commas, Windows-1252, gzip, local times and words in place of numbers, as declared."""
    folder = tmp_path / "drops"
    declared = {"timezone": "Europe/Berlin", "time_format": "%d.%m.%Y %H:%M", "absent_words": ["Wartung"]}
    start_gateway(platform, files(folder, **declared, rules=[{"sensor": "Öl", "becomes": "oil"}]))
    rows = ["25.10.2025 01:30;1,5;7", "25.10.2025 02:30;2,5;Bad Input", "26.10.2025 02:30;3,5;Wartung"]
    rows += ["26.10.2025 02:30;4,5;8"]
    text = "machine_id;timestamp;Öl;flow\r\n" + "".join(f"press-5;{row}\r\n" for row in rows)
    (folder / "EXPORT.CSV.GZ").write_bytes(gzip.compress(text.encode("cp1252")))
    wait_for(lambda: list((folder / "done").glob("*EXPORT.CSV.GZ")), 20, "the file is done")
    wait_for(lambda: stored_values(platform, "press-5", "oil") == [1.5, 2.5, 3.5, 4.5], 20, "the readings are stored")
    assert stored_values(platform, "press-5", "flow") == [7, 8]
    assert newest_time(platform, "press-5", "oil") == datetime(2025, 10, 26, 1, 30, tzinfo=UTC).timestamp()
    assert refused_counts(platform, "drops") == {"absent": 2}
    assert refused_counts(platform, "drops", "corrected") == {"wrong_time": 2}


def test_times_of_a_clock_that_was_not_set_are_refused(platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "drops"
    start_gateway(platform, files(folder))
    text = "machine_id,timestamp,a\npress-6,1970-01-01T00:00:05Z,1\npress-6,2025-01-01T00:00:00Z,2\n"
    (folder / "one.csv").write_text(text)
    wait_for(lambda: list((folder / "done").glob("*one.csv")), 20, "the file is done")
    wait_for(lambda: stored_values(platform, "press-6", "a") == [2], 20, "the other reading is stored")
    assert refused_counts(platform, "drops") == {"wrong_time": 1}
