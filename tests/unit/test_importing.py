"""`aurum import`: what is sent of a table, and in which order."""

import asyncio
from pathlib import Path

import pytest

from aurum.commands.importing import FileForm, ImportFailedError, import_file
from aurum.readings.batch import Series


class SlowTarget:
    """Stores readings. The first write takes longest."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str, int], float] = {}
        self._writes = 0

    async def register(self, machine_id: str, machine_type: str, site: str) -> None:
        raise AssertionError("no type is given")

    async def write(self, source_id: str, series: list[Series]) -> tuple[int, int]:
        self._writes += 1
        for _ in range(20 // self._writes):
            await asyncio.sleep(0)
        for each in series:
            for at, value in zip(each.timestamps.tolist(), each.values.tolist(), strict=True):
                self.stored[each.machine_id, each.sensor, at] = value
        return sum(len(each.values) for each in series), 0


async def imported(tmp_path: Path, *rows: str) -> tuple[SlowTarget, list[str]]:
    path, target = tmp_path / "readings.csv", SlowTarget()
    path.write_text("\n".join(["machine_id,timestamp,sensor,value", *rows]))
    result = await import_file(path, FileForm("csv"), target, machine_type=None, site="")
    return target, result.notes


async def test_later_row_wins_over_one_of_an_earlier_block(tmp_path: Path) -> None:
    first = [f"m,{1_790_000_000 + number},a,1" for number in range(25_000)]
    target, notes = await imported(tmp_path, *first, "m,1790000000,a,2", "m,1790015000,a,3")
    values = [target.stored["m", "a", (1_790_000_000 + number) * 1_000_000] for number in (0, 15_000, 1)]
    assert values == [2.0, 3.0, 1.0]
    last = "2026-09-21T18:23:20Z"
    assert notes == [f"replaced by a later row with the same machine, sensor and time: 2 (last: m a at {last})"]


@pytest.mark.parametrize("names", [("Öfen", "x00D6_fen"), ("x00D6_fen", "Öfen")])
async def test_import_refuses_names_that_would_be_one(tmp_path: Path, names: tuple[str, str]) -> None:
    rows = [f"m,{1_790_000_000 + number},a,1" for number in range(10_000)]
    with pytest.raises(ImportFailedError, match=r"row 10002, machine_id: .* would both be stored as x00D6_fen"):
        await imported(tmp_path, f"{names[0]},1790000000,a,1", *rows[1:], f"{names[1]},1790000000,a,1")
    with pytest.raises(ImportFailedError, match=r"row 3, sensor: .* would both be stored as _x00D6_l"):
        await imported(tmp_path, "m,1790000000,Öl,1", "m,1790000000,_x00D6_l,1")
